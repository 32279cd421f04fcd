"""A linear operation and its transpose, in the memory format in which it is fastest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

IMAGES_AT_ONCE = 64
"""Maps of images per data gradient: bounds the working buffers; fewer are slower on a CPU."""


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear operation and its transpose.

    Attributes:
        apply: (x, weight) -> y, without the bias; `weight` is None where that of the map is.
        adjoint: (q of shape (seeds, *y.shape), weight) -> (seeds, *x.shape).
        weight: the weights; None if the operation has fixed weights >= 0 (pooling).
        layout: memory format in which it is fastest; None if that does not matter.
        output: y plus the bias, as the network computed it in the precision of the weights; None
            if that is not at hand.
        bias: what `output` has beside y, of a shape that can be added to it; None for nothing.
        matrix: whether x and the weights are matrices and y = x w, so that the units of some rows
            and columns are those of the same rows of x and columns of w.
    """

    apply: Callable[[Tensor, Any], Tensor]
    adjoint: Callable[[Tensor, Any], Tensor]
    weight: Tensor | None
    layout: torch.memory_format | None = None
    output: Tensor | None = None
    bias: Tensor | None = None
    matrix: bool = False

    def units(self, columns: Tensor | slice, rows: Tensor | slice = slice(None)) -> LinearMap:
        """The same of some units only, if it is one of matrices."""
        if self.weight is None:
            raise ValueError("a map without weights is none of matrices")
        output, bias = self.output, self.bias
        if output is not None and bias is not None:
            bias = bias.expand_as(output)[rows][:, columns]
        return replace(
            self,
            weight=self.weight[:, columns],
            output=None if output is None else output[rows][:, columns],
            bias=bias,
        )

    def add_products(
        self, result: Tensor | None, scaled: Tensor, x: Tensor, weight: Tensor | None
    ) -> Tensor:
        """Add x * W^T r, a few seeds at a time, so that working buffers do not grow with them.

        Args:
            result: what to add to, in place; None for nothing.
            scaled: r, of shape (seeds, *y.shape).
            x: factors of the result, of the shape of the input.
            weight: the weights of W.
        """
        seeds = scaled.shape[0]
        step = max(1, math.ceil(IMAGES_AT_ONCE / max(1, x.shape[0])))
        if step >= seeds:
            part = self.adjoint(scaled, weight).mul_(x)
            return part if result is None else result.add_(part)
        fresh = result is None
        if result is None:
            shape = (seeds, *x.shape)
            result = laid_out(x.new_empty(shape), self.layout, seeds=True)
        for first in range(0, seeds, step):
            chunk = slice(first, first + step)
            part = self.adjoint(scaled[chunk], weight)
            if fresh:
                torch.mul(part, x, out=result[chunk])
            else:
                result[chunk].addcmul_(part, x)
        return result


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


def signs_of(negative: Tensor, dtype: torch.dtype) -> Tensor:
    """-1 where a mask is set, 1 elsewhere."""
    minus, one = (_number(number, negative.device, dtype) for number in (-1.0, 1.0))
    return torch.where(negative, minus, one)


def where_or(mask: Tensor, tensor: Tensor, other: float) -> Tensor:
    """A tensor where a mask is set, and a number elsewhere."""
    return torch.where(mask, tensor, _number(other, tensor.device, tensor.dtype))


@lru_cache
def _number(number: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Made once, since to put a number on a GPU is one more launch each time."""
    return torch.full((), number, dtype=dtype, device=device)
