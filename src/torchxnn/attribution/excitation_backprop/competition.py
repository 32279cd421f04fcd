"""Winner-take-all competition among the inputs of linear units: where the relevance of a unit goes.

The unit y_i = sum_j w_ij x_j + b_i passes its relevance to the inputs that agree with its sign s_i:

    P(j | i) = (s_i w_ij x_j)+ / sum_k (s_i w_ik x_k)+ ,    R_j = sum_i P(j | i) R_i .

For x >= 0 and s_i = + this is excitation backprop (Zhang et al., 2016, eq. 2), computed with one
positive forward pass for the denominators and one data gradient for every seed. The bias takes no
part. A unit without an agreeing contribution was decided by its bias. What it receives is counted
as *fallback*, and ends there or is shared by |w_ij x_j|, then by |w_ij|, then evenly (see `Walk`).
A dual unit (see `excitation_backprop`) without an agreeing contribution shares by |x_j| instead:
there is no evidence against the unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.both_signs import BothSigns
from torchxnn.attribution.excitation_backprop.linear_map import LinearMap, laid_out, smallest
from torchxnn.attribution.excitation_backprop.reach import extremes, reached, reached_columns
from torchxnn.errors import NonFiniteError, XNNError

PARTS_KEPT = 2
"""Ranges of columns whose weights and denominators one operation keeps: those that all that is
carried reaches, and those that the unit's relevance alone does. Other seeds may reach others."""

Negative = bool | Tensor
"""Which units count as negative (s_i = -1): all or none of them, or a mask."""

Note = Callable[[Tensor], Tensor]
"""Called with the relevance (seeds, *units) of units that a fallback decides; returns what of it is
shared out."""


class Competition:
    """The competition of all units of one linear operation, for any number of seeds.

    Args:
        linear: the operation.
        x: its input.
        takes_part: mask of the inputs computed from the images; None if all are. The others are
            constants and, like a bias, take no part.
        signed: whether an element of x is negative; None if that has to be looked up.
        positive: whether a weight is; None if that has to be looked up.

    Attributes:
        spread: whether inputs that are 0 may have received something, by a fallback.
    """

    def __init__(
        self,
        linear: LinearMap,
        x: Tensor,
        takes_part: Tensor | None,
        *,
        signed: bool | None = None,
        positive: bool | None = None,
    ) -> None:
        if takes_part is not None:
            x = torch.where(takes_part, x, 0)
        self._x = laid_out(x, linear.layout)
        if signed is None or (signed and takes_part is not None):
            signed = bool(x.numel()) and float(self._x.amin()) < 0
        self._signed, self._positive = signed, positive
        self.spread = False
        self._linear = linear
        self._takes_part = takes_part
        # The operation for units of both signs, with the mask of the negative ones.
        self._both: tuple[Tensor, BothSigns] | None = None
        self._parts: dict[tuple[int, int], Competition] = {}
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
        cut: bool = True,
    ) -> Tensor:
        """Relevance of the units (seeds, *y.shape) to relevance of the inputs (seeds, *x.shape).

        Args:
            relevance: what the units received.
            negative: which units count as negative.
            note: is told what arrives at units that a fallback decides.
            consume: whether `relevance` may be overwritten, which saves an allocation of its size.
            dual: whether the units are dual units, whose fallback does not look at the weights.
            cut: whether some columns of a product of matrices may have received nothing.
        """
        layout = self._linear.layout
        if isinstance(negative, Tensor):
            negative = laid_out(negative, layout)
        arranged = laid_out(relevance, layout, seeds=True)
        consume = consume or arranged.data_ptr() != relevance.data_ptr()
        relevance = arranged
        if relevance.numel() == 0:
            return relevance.new_zeros((relevance.shape[0], *self._x.shape))
        columns = reached_columns(relevance) if cut and self._linear.matrix else None
        if columns is not None:
            if isinstance(negative, Tensor):
                negative = negative[:, columns]
            note = _of_some(note, relevance.shape, (slice(None), columns))
            some = relevance[:, :, columns].clone(memory_format=torch.contiguous_format)
            part = self._part(columns)
            passed = part.pass_down(some, negative, note, consume=True, dual=dual, cut=False)
            self.spread |= part.spread
            return passed
        of_any_sign = self._signed and self._linear.weight is not None and not dual
        if of_any_sign and isinstance(negative, Tensor):
            there = reached(relevance)
            if bool((there & negative).any()):
                return self._pass_both(relevance, there, negative, note, consume=consume)
            negative = False
        parts = split_by_sign(relevance, negative)
        return self._pass_parts(relevance, parts, note, consume=consume, dual=dual)

    def _part(self, columns: slice) -> Competition:
        """The competition of some columns; what it computes of them is kept for the next seeds."""
        within = columns.start, columns.stop
        part = self._parts.pop(within, None)
        if part is None:
            linear = self._linear.units(columns)
            part = Competition(linear, self._x, self._takes_part, signed=self._signed)
        self._parts[within] = part  # as the last used one
        if len(self._parts) > PARTS_KEPT:
            del self._parts[next(iter(self._parts))]
        return part

    def _pass_both(
        self, relevance: Tensor, there: Tensor, negative: Tensor, note: Note, *, consume: bool
    ) -> Tensor:
        """Both signs at once, and by themselves the units for which that is not exact.

        Args:
            relevance: what the units received.
            there: mask of the units that received anything.
            negative: mask of the units that count as negative.
            note: see `pass_down`.
            consume: see `pass_down`.
        """
        if self._both is None or not torch.equal(self._both[0], negative):
            complete = self._takes_part is None
            both = BothSigns(self._linear, self._x, negative, complete=complete)
            self._both = negative, both
        both = self._both[1]
        if not bool((there > both.strong).any()):  # weak units have nothing
            return both.pass_down(relevance, consume=consume)
        both.check_finite()
        weak = relevance.masked_fill(both.strong, 0)
        result = both.pass_down(relevance, consume=consume)
        if self._linear.matrix:
            return self._add_some(result, weak, negative, note)
        parts = split_by_sign(weak, negative)
        return result.add_(self._pass_parts(weak, parts, note, consume=True, dual=False))

    def _add_some(self, result: Tensor, relevance: Tensor, negative: Tensor, note: Note) -> Tensor:
        """Add what few units of a product of matrices pass down, from their rows and columns."""
        reached = (relevance != 0).any(0)
        rows, columns = (reached.any(dim).nonzero()[:, 0] for dim in (1, 0))
        unit = rows[:, None], columns
        takes_part = None if self._takes_part is None else self._takes_part[rows]
        linear = self._linear.units(columns, rows)
        part = Competition(linear, self._x[rows], takes_part, signed=self._signed)
        some, note = relevance[:, *unit], _of_some(note, relevance.shape, unit)
        parts = split_by_sign(some, negative[unit])
        passed = part._pass_parts(some, parts, note, consume=True, dual=False)
        self.spread |= part.spread
        return result.index_add_(1, rows, passed)

    def _pass_parts(
        self,
        relevance: Tensor,
        parts: list[tuple[int, Tensor]],
        note: Note,
        *,
        consume: bool,
        dual: bool,
    ) -> Tensor:
        """One sign after the other."""
        result: Tensor | None = None
        losers: list[Tensor] = []
        for sign, share in parts:
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
                result = self._linear.add_products(result, scaled, x, weight)
        for lost in losers:
            shared = note(lost)
            if bool(shared.any()):
                extra = self._fall_back(shared, dual=dual)
                result = extra if result is None else result.add_(extra)
        if result is None:
            return relevance.new_zeros((relevance.shape[0], *self._x.shape))
        return result

    @cached_property
    def _inputs(self) -> dict[int, Tensor]:
        """|x| of the positive and of the negative inputs."""
        x = self._x
        return {1: x.clamp(min=0), -1: (-x).clamp(min=0)} if self._signed else {1: x}

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
            if sign > 0:
                present = bool(weight.amax() > 0) if self._positive is None else self._positive
            else:
                present = bool(weight.amin() < 0)
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
            low, high = extremes(total) if total.numel() else (1.0, 1.0)
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
            self.spread = True
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
    if not bool((reached(relevance) & negative).any()):
        return [(1, relevance)]
    return [(1, relevance.masked_fill(negative, 0)), (-1, relevance.masked_fill(~negative, 0))]


def _of_some(note: Note, shape: torch.Size, unit: tuple[Any, ...]) -> Note:
    """A note of some units, told with the others, of which nothing is lost, beside them."""

    def told(lost: Tensor) -> Tensor:
        whole = lost.new_zeros((lost.shape[0], *shape[1:]))
        whole[:, *unit] = lost
        return note(whole)[:, *unit]

    return told
