"""Which units of an operation relevance reaches, and the extremes of a tensor: passes over memory.

On a CPU reductions are ten times as fast in the order in which the values lie in memory. What is
found is read back at once, since Python has to wait for a GPU each time.
"""

from __future__ import annotations

import torch
from torch import Tensor

FEW = 1 << 20
"""Numbers that are looked through at once."""


def reached(relevance: Tensor) -> Tensor:
    """Mask of the units that have relevance (seeds, *units); NaN is some.

    Both extremes are found sooner than `any` of floats.
    """
    if relevance.shape[0] == 1:
        return relevance[0] != 0
    order = _order(relevance[0])
    ordered = relevance.permute(0, *(dim + 1 for dim in order))
    found = (ordered.amax(0) != 0) | (ordered.amin(0) != 0)
    return found.permute(sorted(range(found.ndim), key=order.__getitem__))


def reached_columns(relevance: Tensor) -> slice | None:
    """The columns of (seeds, rows, columns) that relevance reaches, if a third of them is left out.

    Of the queries, keys and values that a network computes as one product, relevance passes the
    values alone. One seed and a few rows answer where all columns are reached.
    """
    few = relevance.numel() <= FEW
    for some in [relevance] if few else [relevance[:1, :16], relevance]:
        reached = (some != 0).any(dim=(0, 1)).tolist()  # read back once
        if True not in reached:
            continue
        first, last = reached.index(True), len(reached) - reached[::-1].index(True)
        if last - first > 2 / 3 * relevance.shape[2]:
            return None
    return slice(first, last) if True in reached else None


def extremes(tensor: Tensor) -> tuple[float, float]:
    """The smallest and the largest element, in one pass; NaN if there is any."""
    low, high = torch.stack(torch.aminmax(tensor.permute(_order(tensor)))).tolist()
    return low, high


def _order(tensor: Tensor) -> list[int]:
    """The dimensions from the outermost to the innermost in memory."""
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
