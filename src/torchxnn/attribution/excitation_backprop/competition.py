"""Winner-take-all competition among the inputs of linear units: where the relevance of a unit goes.

The unit y_i = sum_j w_ij x_j + b_i passes its relevance to the inputs that agree with its sign s_i:

    P(j | i) = (s_i w_ij x_j)+ / sum_k (s_i w_ik x_k)+ ,    R_j = sum_i P(j | i) R_i .

For x >= 0 and s_i = + this is excitation backprop (Zhang et al., 2016, eq. 2), computed with one
positive forward pass for the denominators and one data gradient for every seed. The bias takes no
part. A unit without an agreeing contribution shares its relevance by |w_ij x_j|, then by |w_ij|,
then evenly; what is shared so is counted as *fallback*. A dual unit (see `excitation_backprop`)
without an agreeing contribution shares by |x_j| instead: there is no evidence against the unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchxnn.errors import NonFiniteError, XNNError

Negative = bool | Tensor
"""Which units count as negative (s_i = -1): all or none of them, or a mask."""

Note = Callable[[Tensor], Tensor]
"""Called with the relevance (seeds, *units) of units that a fallback decides; returns what of it is
shared out."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear operation and its transpose.

    Attributes:
        apply: (x, weight) -> y, without the bias; `weight` is None where that of the map is.
        adjoint: (q of shape (seeds, *y.shape), weight) -> (seeds, *x.shape).
        weight: the weights; None if the operation has fixed weights >= 0 (pooling).
        layout: memory format in which it is fastest; None if that does not matter.
    """

    apply: Callable[[Tensor, Any], Tensor]
    adjoint: Callable[[Tensor, Any], Tensor]
    weight: Tensor | None
    layout: torch.memory_format | None = None


def laid_out(tensor: Tensor, layout: torch.memory_format | None, *, seeds: bool = False) -> Tensor:
    """A (B, C, H, W) tensor, or one with seeds in front, in a memory format, copied if need be."""
    if layout is None or tensor.ndim != 4 + seeds:
        return tensor
    if not seeds:
        return tensor.contiguous(memory_format=layout)
    flat = tensor.flatten(0, 1).contiguous(memory_format=layout)
    return flat.unflatten(0, tensor.shape[:2])


def smallest(tensor: Tensor) -> float:
    """The denominator from which a division is safe: below, products are subnormal numbers."""
    return torch.finfo(tensor.dtype).tiny * 1e8


IMAGES_AT_ONCE = 64
"""Maps of images per data gradient: bounds the working buffers; fewer are slower on a CPU."""


class Competition:
    """The competition of all units of one linear operation, for any number of seeds.

    Args:
        linear: the operation.
        x: its input.
        takes_part: mask of the inputs computed from the images; None if all are. The others are
            constants and, like a bias, take no part.
    """

    def __init__(self, linear: LinearMap, x: Tensor, takes_part: Tensor | None) -> None:
        if takes_part is not None:
            x = torch.where(takes_part, x, 0)
        x = laid_out(x, linear.layout)
        self._linear = linear
        self._takes_part = takes_part
        self._inputs = {1: x}
        if x.numel() and bool(x.amin() < 0):
            self._inputs = {1: x.clamp(min=0), -1: (-x).clamp(min=0)}
        self._denominators: dict[int, Tensor] = {}
        self._weights: dict[int, Tensor | None] = {}
        # By sign the units without an agreeing contribution, as an index; their denominator is 1.
        self._losing: dict[int, tuple[Tensor, ...]] = {}

    def pass_down(
        self,
        relevance: Tensor,
        negative: Negative,
        note: Note,
        *,
        consume: bool = False,
        dual: bool = False,
    ) -> Tensor:
        """Relevance of the units (seeds, *y.shape) to relevance of the inputs (seeds, *x.shape).

        Args:
            relevance: what the units received.
            negative: which units count as negative.
            note: is told what arrives at units that a fallback decides.
            consume: whether `relevance` may be overwritten, which saves an allocation of its size.
            dual: whether the units are dual units, whose fallback does not look at the weights.
        """
        layout = self._linear.layout
        if isinstance(negative, Tensor):
            negative = laid_out(negative, layout)
        arranged = laid_out(relevance, layout, seeds=True)
        consume = consume or arranged.data_ptr() != relevance.data_ptr()
        relevance = arranged
        if relevance.numel() == 0:
            return relevance.new_zeros((relevance.shape[0], *self._inputs[1].shape))
        result: Tensor | None = None
        losers: list[Tensor] = []
        for sign, share in split_by_sign(relevance, negative):
            denominator = self._denominator(sign)
            if denominator is None:
                losers.append(share)
                continue
            mine = consume or share is not relevance
            if sign in self._losing:
                unit: tuple[Any, ...] = (slice(None), *self._losing[sign])
                values = share[unit]
                # Most such units are silenced by a ReLU above and receive nothing.
                if bool(values.any()):
                    lost = torch.zeros_like(share)
                    lost[unit] = values
                    losers.append(lost)
                    share = share if mine else share.clone()
                    share[unit] = 0
                    mine = True
            scaled = share.div_(denominator) if mine and _dense(share) else share / denominator
            for x, weight in self._contributors(sign):
                result = self._add_products(result, scaled, x, weight)
        for lost in losers:
            extra = self._fall_back(note(lost), dual=dual)
            result = extra if result is None else result.add_(extra)
        if result is None:
            return relevance.new_zeros((relevance.shape[0], *self._inputs[1].shape))
        return result

    def _add_products(
        self, result: Tensor | None, scaled: Tensor, x: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Add x * W^T r, a few seeds at a time, so that working buffers do not grow with them."""
        seeds = scaled.shape[0]
        step = max(1, math.ceil(IMAGES_AT_ONCE / max(1, x.shape[0])))
        if step >= seeds:
            part = self._linear.adjoint(scaled, weight).mul_(x)
            return part if result is None else result.add_(part)
        fresh = result is None
        if result is None:
            shape = (seeds, *x.shape)
            result = laid_out(x.new_empty(shape), self._linear.layout, seeds=True)
        for first in range(0, seeds, step):
            chunk = slice(first, first + step)
            part = self._linear.adjoint(scaled[chunk], weight)
            if fresh:
                torch.mul(part, x, out=result[chunk])
            else:
                result[chunk].addcmul_(part, x)
        return result

    def _contributors(self, sign: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """(|x| of one side of x, weights) that contribute with the given sign."""
        for side, x in self._inputs.items():
            if self._linear.weight is None:
                if side == sign:
                    yield x, None
            elif (weight := self._weight(side * sign)) is not None:
                yield x, weight

    def _weight(self, sign: int) -> Tensor | None:
        """The positive or the negative part of the weights; None if it is zero."""
        weight = self._linear.weight
        if weight is not None and sign not in self._weights:
            # `aminmax` would copy a transposed or channels-last tensor first, at many times the
            # cost.
            present = bool(weight.amax() > 0) if sign > 0 else bool(weight.amin() < 0)
            part = weight if sign > 0 else -weight
            self._weights[sign] = part.clamp(min=0) if present else None
        return self._weights[sign]

    def _denominator(self, sign: int) -> Tensor | None:
        if sign not in self._denominators:
            total = None
            for x, weight in self._contributors(sign):
                part = self._linear.apply(x, weight)
                total = part if total is None else total.add_(part)
            if total is None:
                return None
            low, high = (float(total.amin()), float(total.amax())) if total.numel() else (1.0, 1.0)
            if not math.isfinite(high):  # NaN shows as the maximum too
                raise NonFiniteError("the contributions of a unit add up to NaN or infinity")
            if not low > smallest(total):
                losing = ~(total > smallest(total))
                self._losing[sign] = losing.nonzero(as_tuple=True)
                total = total.masked_fill(losing, 1)
            self._denominators[sign] = total
        return self._denominators[sign]

    def _fall_back(self, lost: Tensor, *, dual: bool) -> Tensor:
        """Share by |w_ij x_j|; where that is zero by |w_ij|; where that is zero evenly.

        With `dual` by |x_j|, then evenly.
        """
        x = self._inputs[1] + self._inputs[-1] if -1 in self._inputs else self._inputs[1]
        everyone = torch.ones_like(x) if self._takes_part is None else self._takes_part.to(x.dtype)
        weight = self._linear.weight
        stages: list[tuple[Tensor, Tensor | None]]
        if weight is None:
            stages = [(x, None), (everyone, None)]
        elif dual:
            alike = torch.ones_like(weight)
            stages = [(x, alike), (everyone, alike)]
        else:
            size = weight.abs()
            stages = [(x, size), (everyone, size), (everyone, torch.ones_like(weight))]
        result = lost.new_zeros((lost.shape[0], *x.shape))
        for share, used in stages:
            denominator = self._linear.apply(share, used)
            won = denominator > smallest(denominator)
            scaled = lost.masked_fill(~won, 0) / denominator.masked_fill(~won, 1)
            result += share * self._linear.adjoint(scaled, used)
            lost = lost.masked_fill(won, 0)
            if not bool(lost.any()):
                return result
        raise XNNError(
            "relevance reached units that do not depend on the images; the target may be a "
            "constant, choose another one"
        )


def _dense(tensor: Tensor) -> bool:
    return all(
        step > 0 or size == 1 for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )


def split_by_sign(relevance: Tensor, negative: Negative) -> list[tuple[int, Tensor]]:
    """Relevance of the positive and of the negative units, leaving out a part that is zero."""
    if isinstance(negative, bool):
        return [(-1 if negative else 1, relevance)]
    if not bool(negative.any()) or not _reaches(relevance, negative):
        return [(1, relevance)]
    return [(1, relevance.masked_fill(negative, 0)), (-1, relevance.masked_fill(~negative, 0))]


def _reaches(relevance: Tensor, units: Tensor) -> bool:
    """Whether any relevance (seeds, *units) reaches the units of a mask.

    Both extremes are found sooner than `any` of floats, and reductions are ten times as fast in the
    order in which the values lie in memory. NaN equals nothing, so it reaches.
    """
    order = sorted(range(1, relevance.ndim), key=relevance.stride, reverse=True)
    ordered = relevance.permute(0, *order)
    silent = (ordered.amax(0) == 0) & (ordered.amin(0) == 0)
    return bool((units.permute([dim - 1 for dim in order]) & ~silent).any())


def shares(
    contributions: list[Tensor], takes_part: list[Tensor | None], negative: Negative
) -> tuple[list[Tensor], Tensor]:
    """Winning probabilities of the terms of an element-wise sum y = sum_k c_k (+ constants).

        P(k) = (s c_k)+ / sum_l (s c_l)+ ,

    with the same fallback as above: by |c_k|, then evenly. Where a single term depends on the
    images it wins with certainty, whatever its sign: the others act as a bias.

    Args:
        contributions: the terms, all of one shape.
        takes_part: for each, where it depends on the images; None for everywhere.
        negative: sign of the sum.

    Returns:
        One probability tensor per term, and the mask of the elements decided by the fallback.
    """
    shape = contributions[0].shape
    ones = torch.ones((), dtype=contributions[0].dtype, device=contributions[0].device)
    masks = [
        ones.expand(shape) if mask is None else mask.to(ones.dtype).expand(shape)
        for mask in takes_part
    ]
    rivals = sum(masks[1:], masks[0])
    signed = [
        (torch.where(negative, -c, c) if isinstance(negative, Tensor) else (-c if negative else c))
        for c in contributions
    ]
    agreeing = [c.clamp(min=0) * mask for c, mask in zip(signed, masks, strict=True)]
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
    return [won / total for won in agreeing], fallback & (rivals > 0)
