"""The competition among the terms of an element-wise sum."""

from __future__ import annotations

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.competition import Negative
from torchxnn.attribution.excitation_backprop.linear_map import signs_of, smallest


def shares(
    contributions: list[Tensor], takes_part: list[Tensor | None], negative: Negative
) -> tuple[list[Tensor], Tensor | None]:
    """Winning probabilities of the terms of an element-wise sum y = sum_k c_k (+ constants).

        P(k) = (s c_k)+ / sum_l (s c_l)+ ,

    with the same fallback as above: by |c_k|, then evenly. Where a single term depends on the
    images it wins with certainty, whatever its sign: the others act as a bias.

    Args:
        contributions: the terms, all of one shape.
        takes_part: for each, where it depends on the images; None for everywhere.
        negative: sign of the sum.

    Returns:
        One probability tensor per term, and the mask of the elements decided by the fallback, None
        if there are none.
    """
    if isinstance(negative, Tensor):
        signs = signs_of(negative, contributions[0].dtype)
        signed = [c * signs for c in contributions]
    else:
        signed = [-c if negative else c for c in contributions]
    agreeing = [c.clamp(min=0) for c in signed]
    if len(contributions) > 1 and all(mask is None for mask in takes_part):
        total = sum(agreeing[1:], agreeing[0])
        if bool((total > smallest(total)).all()):
            return [won / total for won in agreeing], None
    return _with_fallback(contributions, agreeing, takes_part)


def _with_fallback(
    contributions: list[Tensor], agreeing: list[Tensor], takes_part: list[Tensor | None]
) -> tuple[list[Tensor], Tensor | None]:
    """Where a term is alone, or none agrees."""
    shape = contributions[0].shape
    ones = torch.ones((), dtype=contributions[0].dtype, device=contributions[0].device)
    masks = [
        ones.expand(shape) if mask is None else mask.to(ones.dtype).expand(shape)
        for mask in takes_part
    ]
    rivals = sum(masks[1:], masks[0])
    agreeing = [won * mask for won, mask in zip(agreeing, masks, strict=True)]
    total = sum(agreeing[1:], agreeing[0])
    lone = rivals == 1
    fallback = ~(total > smallest(total)) & ~lone
    if bool(lone.any()) or bool(fallback.any()):
        sizes = [c.abs() * mask for c, mask in zip(contributions, masks, strict=True)]
        size = sum(sizes[1:], sizes[0])
        even = fallback & ~(size > smallest(size))
        agreeing = [
            torch.where(lone | even, mask, torch.where(fallback, absolute, won))
            for mask, absolute, won in zip(masks, sizes, agreeing, strict=True)
        ]
        total = torch.where(lone | even, rivals, torch.where(fallback, size, total))
        total = total.masked_fill(total == 0, 1)
    decided = fallback & (rivals > 0)
    return [won / total for won in agreeing], decided if bool(decided.any()) else None
