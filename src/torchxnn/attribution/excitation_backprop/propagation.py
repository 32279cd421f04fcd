"""The backward walk: relevance of many seeds from the output of a tape down to its images."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.account import Account
from torchxnn.attribution.excitation_backprop.competition import Competition, Negative
from torchxnn.attribution.excitation_backprop.linear_map import LinearMap
from torchxnn.attribution.excitation_backprop.prepared import HINTS, Prepared
from torchxnn.attribution.excitation_backprop.rules.table import Shares, refuse, rule_of
from torchxnn.attribution.excitation_backprop.signs import Signs, weighted
from torchxnn.attribution.excitation_backprop.silence import Silence
from torchxnn.attribution.excitation_backprop.tape import Operation, Value, forget
from torchxnn.errors import NonFiniteError, XNNError


class MetFallbackError(Exception):
    """A fallback was met by a walk that carries nothing but a difference, which tells no share."""


class Walk:
    """One backward walk with a group of seeds.

    What is carried of a value is (seeds, *shape), or several of these behind each other: the unit's
    relevance, or its difference from the dual's, or the unit's and the dual's; in a certified walk
    with differences, behind them the *witness*, the mean of unit and dual summed over the seeds;
    and last, once a fallback was met that shares, the *clean* part of the unit's relevance, which
    met none. All of them are shared out by the same rules, but for the clean part that reaches a
    fallback: it is counted and ends. Relevance is conserved, so what was counted is its share at
    the pixels, too.

    Args:
        prepared: the tape.
        contrastive: whether the last linear operation is answered by the unit minus its dual.
        absorb: whether relevance ends at units below that operation that nothing agrees with; else
            they share it by size.
        beside: carry from the start what tells how much relevance met a fallback: the unit's and
            the dual's relevance one by one if it ends there, and else the clean part of the unit's
            beside the difference. Unit and dual are nearly equal further down, so the difference
            does not tell. A contrastive walk without it ends with `MetFallbackError` where it would
            have to tell.
        one_by_one: carry the unit's and the dual's relevance with their clean part in any case, so
            that a certified walk needs no witness, and knows what met a fallback in every layer.
        free: whether this is the last walk, so that activations are freed on the way.

    Attributes:
        account: what was measured on the way.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        contrastive: bool,
        absorb: bool = False,
        beside: bool = False,
        one_by_one: bool = False,
        free: bool,
    ) -> None:
        self._prepared = prepared
        self._contrastive = contrastive
        self._absorb = absorb
        self._beside = beside
        self._alone = contrastive and not beside  # nothing that tells a share
        self._pair = contrastive and beside and (one_by_one or absorb)
        self._witness = contrastive and not self._pair and prepared.certify
        self._free = free
        self._last = not (self._alone or self._witness)  # no other walk may have to follow
        self._met = 0  # how often a fallback shared
        self._seeds = 0
        # Relevance above and below the last linear operation that feeds the target.
        self._above: dict[Value, Tensor] = {}
        self._below: dict[Value, Tensor] = {}
        self.account = Account(prepared, pair=self._pair, witness=self._witness)
        self._signs = Signs(prepared.tape.output, prepared.readers)
        self._silence = Silence(self._signs.handed)
        self._by_size = False
        self._crossing = self._all_above = False

    # What rules may ask.

    def data(self, value: Value) -> Tensor:
        """The value in the precision of the walk."""
        if value.tensor is None:
            raise XNNError("a value was not kept; please report this as a bug of torchxnn")
        return value.tensor.to(self._prepared.dtype)

    def takes_part(self, value: Value) -> Tensor | None:
        """Mask of the elements that depend on the images; None if all do."""
        masks = self._prepared.masks
        if value not in masks:
            owner = self._prepared.owners.get(value)
            some = owner is not None and not owner.complete
            masks[value] = (owner.compact > 0).expand(value.shape) if owner and some else None
        return masks[value]

    def negative(self, value: Value) -> Negative:
        """Which elements of an operation's output count as negative, as units after folding."""
        return self._signs.negative(value)

    def compete(
        self, operation: Operation, linear: LinearMap, value: Value, relevance: Tensor
    ) -> Tensor:
        """Relevance that the input `value` receives through a linear operation.

        From the last linear operation of a contrastive walk on it is the unit's minus its dual's;
        see `run` for what else is carried.
        """
        competition = operation.cache.get("competition")
        if competition is None:
            x, part, known = self.data(value), self.takes_part(value), operation.known
            facts = {"signed": known.get("signed"), "positive": known.get("positive")}
            competition = Competition(linear, x, part, **facts)
            operation.cache["competition"] = competition
        silent = self._silence.of_negative(operation.output)
        negative = False if silent else self.negative(operation.output)
        received = self._compete(operation, competition, relevance, negative)
        self._by_size = not competition.spread
        if not (self._crossing and self._contrastive):
            return received
        unit, clean = received[: self._seeds], received[self._seeds :]
        flipped = not negative if isinstance(negative, bool) else ~negative
        ways = {"dual": True, "cut": self._is_cut(operation)}
        # That nothing speaks against a unit is no doubt about its map, so it is not counted.
        dual = competition.pass_down(relevance[: self._seeds], flipped, lambda lost: lost, **ways)
        self._by_size = not competition.spread
        if len(clean) == 0 and ((self._beside and not self._absorb) or self._met):
            clean = unit
        if self._pair:
            return torch.cat([unit, dual, clean])
        witness = [(unit + dual).sum(0, keepdim=True) / 2] if self._witness else []
        beside = witness + [clean] * bool(len(clean))
        return torch.cat([unit - dual, *beside]) if beside else unit - dual

    def _compete(
        self, operation: Operation, competition: Competition, relevance: Tensor, negative: Negative
    ) -> Tensor:
        """What the inputs receive, with the clean part behind it from the first fallback on."""
        known, before = self._knows_clean(relevance), self._met
        # Nobody else reads the relevance that has arrived, unless sums are still to be taken.
        told = known or self._difference or self._absorbs
        needed = self._crossing or self._prepared.certify or not told
        ways = {"consume": not needed, "cut": self._is_cut(operation)}
        told_of = partial(self.note, operation)
        received = competition.pass_down(relevance, negative, told_of, **ways)
        if known or self._met == before:
            return received
        ways = {"cut": self._is_cut(operation)}
        clean = competition.pass_down(relevance[: self._seeds], negative, torch.zeros_like, **ways)
        return torch.cat([received, clean])

    def _is_cut(self, operation: Operation) -> bool:
        """Whether some columns of an operation's output may have received nothing."""
        return self._all_above or operation.output in self._prepared.cut

    def shared_by_size(self) -> None:
        """A rule says that all it hands on are multiples of the size of what receives them."""
        self._by_size = True

    def undecided(self, operation: Operation, received: Tensor, units: Tensor) -> Tensor:
        """Relevance that a sum received, its clean part without the units that a fallback decides.

        Args:
            operation: the sum.
            received: (n, *output shape).
            units: mask of the output.
        """
        known, before = self._knows_clean(received), self._met
        self.note(operation, received * units)
        if self._absorbs:
            return received.masked_fill(units, 0)
        if self._met == before:
            return received
        plain = received[: -self._seeds] if known else received
        clean = received[-self._seeds :] if known else received[: self._seeds]
        return torch.cat([plain, clean.masked_fill(units, 0)])

    def note(self, operation: Operation, lost: Tensor) -> Tensor:
        """Count relevance that a fallback shares out or absorbs; returns what is shared of it.

        That is nothing of what was clean, and nothing at all where it is absorbed.
        """
        if not bool(lost.any()):
            return lost
        known, seeds, ends = self._knows_clean(lost), self._seeds, self._absorbs
        tells = known and not self._witness and not ends
        if self._alone and not tells and (self._difference or self._below):
            raise MetFallbackError
        self._met += not ends
        clean = lost[-seeds:] if known else lost[:seeds]
        whole = self._pair or self._all_above or not self._contrastive  # else it is a difference
        self.account.meet_fallback(operation, lost[:seeds] if whole else None, clean)
        if ends:
            self.account.absorb(operation, lost[: self._plain(above=False)])
            return torch.zeros_like(lost)
        return torch.cat([lost[:-seeds], torch.zeros_like(clean)]) if known else lost

    @property
    def _absorbs(self) -> bool:
        """Whether relevance ends at units of the present operation that nothing agrees with."""
        return self._absorb and not (self._crossing or self._all_above)

    @property
    def _difference(self) -> bool:
        """Whether what an operation receives now is nothing but a difference."""
        return self._alone and not self._all_above

    def _plain(self, *, above: bool) -> int:
        """Rows of what is carried without the clean part."""
        if above:
            return self._seeds
        return 2 * self._seeds if self._pair else self._seeds + self._witness

    def _knows_clean(self, relevance: Tensor) -> bool:
        """Whether the clean part is carried of what the present operation receives."""
        return relevance.shape[0] > self._plain(above=self._all_above)

    def _behind(self, carried: Tensor, rows: int) -> Tensor:
        """With the clean part behind it, where other relevance has one: none of this is lost."""
        missing = len(carried) < rows
        return torch.cat([carried, carried[: self._seeds]]) if missing else carried

    # The walk itself.

    def run(self, seeds: Tensor, target: Value) -> Tensor:
        """Carry seeds (n, *output shape) down to `target`.

        Returns:
            Relevance (n, *target shape), the unit's minus its dual's if the walk is contrastive. It
            is (2 n, ...) with the dual's behind the unit's if these are carried one by one.

        Raises:
            MetFallbackError: see the class.
            NonFiniteError: relevance became NaN or infinite, in a certified walk.
        """
        tape, self._seeds = self._prepared.tape, seeds.shape[0]
        self._above[tape.output] = seeds.to(self._prepared.dtype)
        self.account.begin(tape.output, self._above[tape.output])
        operations = tape.operations
        last = 0 if target.producer is None else operations.index(target.producer) + 1
        try:
            for index in range(len(operations) - 1, last - 1, -1):
                self._step(operations[index])
                if self._free and self._last:
                    forget(operations[index])
                elif self._free:
                    operations[index].cache.clear()  # the walk may have to start again
        except XNNError:  # NaN of an earlier operation may be why
            self.account.finish()
            raise
        self.account.finish()
        return self._arrived(target)

    def _arrived(self, target: Value) -> Tensor:
        above = self._above.get(target)
        if above is not None and self._contrastive:
            raise XNNError(
                "there is no linear operation with weights between the target and where the map "
                "is wanted, so the contrastive map is empty; use contrastive=False"
            )
        found = self._below.get(target)
        if found is None:
            found = above
        elif above is not None:  # some of the paths have no weights
            rows = max(len(found), len(above))
            found = self._behind(found, rows) + self._behind(above, rows)
        if found is None:
            raise XNNError(
                "no relevance arrives where the map is wanted; the target does not depend on it "
                "other than through gates, or the layer lies beside the path"
            )
        return found[: 2 * self._seeds if self._pair else self._seeds]

    def _step(self, operation: Operation) -> None:
        outputs = [output for output in operation.outputs if output is not None]
        for relevances, above in ((self._above, True), (self._below, False)):
            arrived = [relevances.pop(output, None) for output in outputs]
            rows = max((len(tensor) for tensor in arrived if tensor is not None), default=0)
            if rows == 0:
                continue
            arrived = [None if each is None else self._behind(each, rows) for each in arrived]
            rule = rule_of(operation)
            if rule is None:
                raise refuse(operation, HINTS.get(operation.name, "it has no rule"))
            self._crossing, self._all_above = above and weighted(operation, rule), above
            reached = [o for o, each in zip(outputs, arrived, strict=True) if each is not None]
            self.account.apart &= all(output in self._prepared.owners for output in reached)
            self._by_size = False
            self.account.open(operation, outputs, arrived, above=above)
            try:
                shares = rule.propagate(operation, arrived, self)
            except NonFiniteError as error:
                raise NonFiniteError(
                    f"{operation.full_name} in {operation.place}: {error}; check the activations "
                    "and weights there"
                ) from error
            settled = self._crossing or not above
            self._crossing = False
            self._settle(shares, settled=settled)
            self.account.close(outputs)
            self._signs.fold(operation, rule)
            receivers = [value for value, _ in shares]
            if settled:
                ways = {"by_size": self._by_size, "copies": rule.copies}
                self._silence.hand_on(operation, reached, receivers, **ways)
            else:
                self._silence.unknown(receivers)

    def _settle(self, shares: Shares, *, settled: bool) -> None:
        """Hand out shares, to receivers below the last linear operation or above it."""
        relevances = self._below if settled else self._above
        for value, share in shares:
            known = relevances.get(value)
            if known is not None:
                rows = max(len(known), len(share))
                share = self._behind(known, rows) + self._behind(share, rows)
            relevances[value] = share
            plain = share[: self._plain(above=not settled)]
            self.account.receive(value, plain, above=not settled)
