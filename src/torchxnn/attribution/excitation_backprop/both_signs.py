"""The competition of signed inputs for units of both signs, in half the products.

With (z)+ = (|z| + z) / 2 the sums of `competition` over the four combinations of signs become

    2 D_i = sum_k |w_ik x_k| + s_i sum_k w_ik x_k ,      R_j = |x_j| sum_i |w_ij| q_i
            + x_j sum_i w_ij s_i q_i ,                   q_i = R_i / (2 D_i) :

one product with |W| and the one that the network computed, instead of four, and two data gradients
instead of four. A difference of nearly equal sums would be rounding alone, so units whose agreeing
contributions are less than `LEAST_SHARE` of all of them (and of the bias) are left to the plain
form, which adds up nothing but what agrees.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.linear_map import (
    LinearMap,
    laid_out,
    signs_of,
    smallest,
    where_or,
)
from torchxnn.errors import NonFiniteError

LEAST_SHARE = 1 / 16
"""Agreeing contributions over all of them, from which rounding grows to 16 times its size at most;
where a unit's own sign decides it is at least 1/2 without a bias."""


class BothSigns:
    """The competition of one linear operation with weights and signed inputs.

    Args:
        linear: the operation.
        x: its input, zero where it takes no part, in the layout of the operation.
        complete: whether all inputs take part, so that its recorded output can be used.
        negative: mask of the units with s_i = -1.

    Attributes:
        strong: mask of the units that are not left to the plain form; those whose contributions
            add up to NaN or infinity are, see `check_finite`.
    """

    def __init__(self, linear: LinearMap, x: Tensor, negative: Tensor, *, complete: bool) -> None:
        if linear.weight is None:
            raise ValueError("an operation without weights has one sign only")
        self._linear = linear
        self._sides = x.abs(), x
        self._weights = linear.weight.abs(), linear.weight
        self._signs = signs_of(negative, x.dtype)
        sizes = linear.apply(self._sides[0], self._weights[0])
        self._largest: Tensor | None = sizes.amax()
        least = sizes * (2 * LEAST_SHARE)
        if complete and linear.output is not None:
            net = laid_out(linear.output, linear.layout)
            if linear.bias is not None:
                net = net - linear.bias
                least = least.add_(linear.bias.abs(), alpha=2 * LEAST_SHARE)
        else:
            net = linear.apply(x, linear.weight)
        twice = sizes.addcmul_(self._signs, net)
        self.strong = twice > least.clamp_(min=smallest(least))
        self._twice = where_or(self.strong, twice, torch.inf)  # weak ones pass on nothing here

    def check_finite(self) -> None:
        """Refuse contributions that add up to NaN or infinity, once relevance reaches weak units.

        Raises:
            NonFiniteError: they do.
        """
        if self._largest is not None and not math.isfinite(float(self._largest)):
            raise NonFiniteError("the contributions of a unit add up to NaN or infinity")
        self._largest = None

    def pass_down(self, relevance: Tensor, *, consume: bool) -> Tensor:
        """Relevance (seeds, *y.shape) of all but the weak units to that of the inputs.

        Args:
            relevance: what the units received, finite.
            consume: whether it may be overwritten.
        """
        scaled = relevance.div_(self._twice) if consume else relevance / self._twice
        size, x = self._sides
        result = self._linear.add_products(None, scaled, size, self._weights[0])
        return self._linear.add_products(result, scaled.mul_(self._signs), x, self._weights[1])
