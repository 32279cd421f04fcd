"""The backward walk: relevance of many seeds from the output of a tape down to its images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchxnn.attribution.base import LayerCertificate
from torchxnn.attribution.excitation_backprop.competition import Competition, LinearMap, Negative
from torchxnn.attribution.excitation_backprop.rules.table import Rule, Shares, refuse, rule_of
from torchxnn.attribution.excitation_backprop.tape import Operation, Tape, Value, forget
from torchxnn.errors import NonFiniteError, UnsupportedOperationError, XNNError

_LOGITS = (
    "explain the logits instead of the probabilities, or draw with another method "
    "(integrated_gradients)"
)
_HINTS = {
    "_softmax": _LOGITS,
    "_log_softmax": _LOGITS,
    "_native_multi_head_attention": "call the module instead of the fused kernel",
    "_transformer_encoder_layer_fwd": "call the module instead of the fused kernel",
}


@dataclass(eq=False)
class Prepared:
    """A tape with what all walks over it share.

    Attributes:
        tape: the recorded forward pass.
        images: number of images.
        dtype: precision of the relevance.
        certify: whether sums are taken per image after every operation.
        owners: for each value the image that each element comes from, 1-based, 0 for a constant.
        readers: how many operations on the way to the output read each value.
        masks: elements of a value that take part, as far as they were asked for.
        refusals: operations whose outputs have no owners, and why; an error once relevance arrives
            at a value that comes from one.
    """

    tape: Tape
    images: int
    dtype: torch.dtype
    certify: bool
    owners: dict[Value, Tensor] = field(default_factory=dict)
    readers: Counter[Value] = field(default_factory=Counter)
    masks: dict[Value, Tensor | None] = field(default_factory=dict)
    refusals: dict[Operation, UnsupportedOperationError] = field(default_factory=dict)


def prepare(tape: Tape, *, certify: bool) -> Prepared:
    """Find out which elements depend on the images and how often each value is read."""
    output = tape.output.tensor
    dtype = torch.float32 if output is None else torch.promote_types(output.dtype, torch.float32)
    prepared = Prepared(tape, tape.images.shape[0], dtype, certify)
    _count_readers(prepared)
    _spread_owners(prepared)
    return prepared


def _count_readers(prepared: Prepared) -> None:
    needed = {prepared.tape.output}
    for operation in reversed(prepared.tape.operations):
        if any(output in needed for output in operation.outputs if output is not None):
            prepared.readers.update(operation.dependents)
            needed.update(operation.dependents)


def _spread_owners(prepared: Prepared) -> None:
    owners, tape = prepared.owners, prepared.tape
    device = None if tape.images.tensor is None else tape.images.tensor.device
    count = torch.arange(1, prepared.images + 1, dtype=torch.int32, device=device)
    shape = (-1, *(1 for _ in tape.images.shape[1:]))
    owners[tape.images] = count.reshape(shape).expand(tape.images.shape)

    def get(value: Value) -> Tensor:
        if value in owners:
            return owners[value]
        device = None if value.tensor is None else value.tensor.device
        one = torch.full((), int(value.dependent), dtype=torch.int32, device=device)
        return one.expand(value.shape)

    for operation in tape.operations:
        rule = rule_of(operation)
        known = any(value in owners for value in operation.dependents)
        if rule is None and known:
            why = _HINTS.get(operation.name, "it has no rule")
            prepared.refusals[operation] = refuse(operation, why)
        if rule is None or not (known or rule.mixes_constants(operation)):
            continue
        try:
            found = rule.owners(operation, get)
        except UnsupportedOperationError as error:
            prepared.refusals[operation] = error  # raised only if relevance arrives there
            continue
        each = [found] if isinstance(found, Tensor) else found
        for output, owner in zip(operation.outputs, each, strict=False):
            if output is not None and output.tensor is not None and output.tensor.is_complex():
                prepared.refusals[operation] = refuse(operation, "complex numbers have no rule")
            if output is None or not output.floating:
                continue
            owners[output] = shared_out(owner).expand(output.shape)


def _why_no_owner(prepared: Prepared, value: Value) -> XNNError:
    """The refusal of the nearest operation that a value without owners comes from."""
    sources = [value]
    for source in sources:
        operation = source.producer
        if operation in prepared.refusals:
            return prepared.refusals[operation]
        if operation is not None and source not in prepared.owners:
            sources += [each for each in operation.dependents if each not in sources]
    # Complex numbers break the chain of values that depend on the images: the last refusal before.
    bug = XNNError("a value has no owner; please report this as a bug of torchxnn")
    return next(reversed(prepared.refusals.values()), bug)


def shared_out(owner: Tensor) -> Tensor:
    """Owners with every dimension along which they do not vary cut down to 1.

    Nearly all values keep their images apart along the first dimension, so that sums over an image
    are plain sums over the others.
    """
    for dim, (size, step) in enumerate(zip(owner.shape, owner.stride(), strict=True)):
        if size > 1 and step == 0:
            owner = owner.narrow(dim, 0, 1)
    for dim in reversed(range(owner.ndim)):
        if owner.shape[dim] > 1:
            first = owner.narrow(dim, 0, 1)
            owner = first if bool((owner == first).all()) else owner
    return owner


ROW_LENGTH = 1024
"""Terms that are added in the precision of the relevance before float64 takes over."""

_NOTHING = torch.zeros((), dtype=torch.float64)


class MetFallbackError(Exception):
    """A fallback was met by a walk that carries nothing but a difference, which tells no share."""


class Walk:
    """One backward walk with a group of seeds.

    Args:
        prepared: the tape.
        contrastive: whether the last linear operation is answered by the unit minus its dual.
        beside: carry the unit's own relevance beside the difference from its dual's. Unit and dual
            are nearly equal further down, so the difference does not tell how much relevance a
            fallback shared out. A contrastive walk without it, and without a certificate, ends with
            `MetFallbackError` where it would have to tell.
        free: whether this is the last walk, so that activations are freed on the way.

    Attributes:
        error: largest distance from 1 so far of the relevance of a cut, if the walk is certified.
        layers: what was conserved by the dotted name of the innermost module, from the top down;
            kept only by a certified walk.
    """

    def __init__(
        self, prepared: Prepared, *, contrastive: bool, beside: bool = False, free: bool
    ) -> None:
        self.error = 0.0
        self.layers: dict[str, LayerCertificate] = {}
        self._prepared = prepared
        self._contrastive = contrastive
        self._beside = beside
        self._alone = contrastive and not (beside or prepared.certify)  # nothing but a difference
        self._free = free
        self._fallback: Tensor | None = None
        # Whether images could be told apart so far, and how many seeds there are.
        self._apart, self._seeds = True, 0
        # Relevance above and below the last linear operation that feeds the target.
        self._above: dict[Value, Tensor] = {}
        self._below: dict[Value, Tensor] = {}
        # Sums of them per image, of all values of the present cut and of each, if it is certified.
        self._cut = _NOTHING
        self._tallies: dict[tuple[Value, bool], Tensor] = {}
        self._signs: dict[Value, Negative] = {}
        self._crossing = self._all_above = False

    @property
    def fallback(self) -> Tensor | None:
        """The unit's relevance that was shared out by a fallback so far, (seeds, images), float64.

        Where images cannot be told apart (only a walk without a certificate gets so far), each has
        their mean. None if there was no fallback.
        """
        found = self._fallback
        if found is None or self._apart:
            return found
        return found.mean(1, keepdim=True).expand_as(found)

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
            mask = None if owner is None else shared_out(owner) > 0
            some = mask is not None and not bool(mask.all())
            masks[value] = mask.expand(value.shape) if mask is not None and some else None
        return masks[value]

    def negative(self, value: Value) -> Negative:
        """Which elements of an operation's output count as negative, as units after folding."""
        if value in self._signs:
            return self._signs[value]
        if value.tensor is None:
            raise XNNError("a value was not kept; please report this as a bug of torchxnn")
        return value.tensor < 0

    def compete(
        self, operation: Operation, linear: LinearMap, value: Value, relevance: Tensor
    ) -> Tensor:
        """Relevance that the input `value` receives through a linear operation.

        From the last linear operation of a contrastive walk on it is the unit's minus its dual's;
        see `run` for what else is carried.
        """
        competition = operation.cache.get("competition")
        if competition is None:
            competition = Competition(linear, self.data(value), self.takes_part(value))
            operation.cache["competition"] = competition
        negative = self.negative(operation.output)

        def note(lost: Tensor) -> None:
            self.note(operation, lost)

        # Nobody else reads the relevance that has arrived, unless sums are still to be taken.
        consume = not (self._crossing or self._prepared.certify)
        received: Tensor = competition.pass_down(relevance, negative, note, consume=consume)
        if not self._crossing:
            return received
        flipped = not negative if isinstance(negative, bool) else ~negative
        # That nothing speaks against a unit is no doubt about its map, so it is not counted.
        dual = competition.pass_down(relevance, flipped, lambda lost: None, dual=True)
        if self._prepared.certify:
            return torch.cat([received, dual])
        return torch.cat([received, received - dual]) if self._beside else received - dual

    def note(self, operation: Operation, lost: Tensor) -> None:
        """Count relevance of the unit that a fallback shared out."""
        if self._alone and not self._all_above:
            raise MetFallbackError
        sums = self._sums(operation.output, lost[: self._seeds].abs())
        if self._prepared.certify:
            self._enter(operation, fallback=float(sums.max()))
        self._fallback = (
            sums if self._fallback is None else self._fallback + sums.to(self._fallback.device)
        )

    # The walk itself.

    def run(self, seeds: Tensor, target: Value) -> Tensor:
        """Carry seeds (n, *output shape) down to `target`.

        Returns:
            Relevance (n, *target shape), the unit's minus its dual's if the walk is contrastive. It
            is (2 n, ...) with the dual's behind the unit's if it is certified too, and with that
            difference behind the unit's if it carries them beside each other.

        Raises:
            MetFallbackError: see the class.
        """
        tape, self._seeds = self._prepared.tape, seeds.shape[0]
        start = self._above if self._contrastive else self._below
        start[tape.output] = seeds.to(self._prepared.dtype)
        self._signs[tape.output] = False
        if self._prepared.certify:
            self._cut = self._sums(tape.output, start[tape.output])
            self._tallies[tape.output, self._contrastive] = self._cut
            self._measure()
        operations = tape.operations
        last = 0 if target.producer is None else operations.index(target.producer) + 1
        for index in range(len(operations) - 1, last - 1, -1):
            self._step(operations[index])
            if self._free and self._alone:
                operations[index].cache.clear()  # the walk may have to start again
            elif self._free:
                forget(operations[index])
        return self._arrived(target)

    def _arrived(self, target: Value) -> Tensor:
        if target in self._above:
            raise XNNError(
                "there is no linear operation with weights between the target and where the map "
                "is wanted, so the contrastive map is empty; use contrastive=False"
            )
        found = self._below.get(target)
        if found is None:
            raise XNNError(
                "no relevance arrives where the map is wanted; the target does not depend on it "
                "other than through gates, or the layer lies beside the path"
            )
        return found

    def _step(self, operation: Operation) -> None:
        outputs = [output for output in operation.outputs if output is not None]
        for relevances, above in ((self._above, True), (self._below, False)):
            arrived = [relevances.pop(output, None) for output in outputs]
            if all(tensor is None for tensor in arrived):
                continue
            rule = rule_of(operation)
            if rule is None:
                raise refuse(operation, _HINTS.get(operation.name, "it has no rule"))
            self._crossing, self._all_above = above and _weighted(operation, rule), above
            reached = [o for o, each in zip(outputs, arrived, strict=True) if each is not None]
            self._apart &= all(output in self._prepared.owners for output in reached)
            try:
                shares = rule.propagate(operation, arrived, self)
            except NonFiniteError as error:
                raise NonFiniteError(
                    f"{operation.full_name} in {operation.place}: {error}; check the activations "
                    "and weights there"
                ) from error
            settled = self._crossing or not above
            self._crossing = False
            change = self._settle(shares, settled=settled)
            for output in outputs:
                change = self._added(change, -self._tallies.pop((output, above), _NOTHING))
            self._balance(operation, change)
            self._fold(operation, rule)

    def _settle(self, shares: Shares, *, settled: bool) -> Tensor:
        """Hand out shares; returns by how much the sums on their receivers rose."""
        relevances = self._below if settled else self._above
        change = _NOTHING
        for value, share in shares:
            known = relevances.get(value)
            relevances[value] = share if known is None else known + share
            if self._prepared.certify:
                before = self._tallies.get((value, not settled), _NOTHING)
                after = self._sums(value, relevances[value])
                self._tallies[value, not settled] = after
                change = self._added(change, self._added(after, -before))
        return change

    def _balance(self, operation: Operation, change: Tensor) -> None:
        """Keep account of what an operation added to all sums and took from them."""
        if not self._prepared.certify:
            return
        if not bool(torch.isfinite(change).all()):
            raise NonFiniteError(
                f"relevance became NaN or infinite at {operation.full_name} in {operation.place}; "
                "check the activations and weights there"
            )
        self._cut = self._added(self._cut, change)
        self._enter(operation, count=1, error=self._measure())

    def _measure(self) -> float:
        error = float((self._cut - 1).abs().max())
        self.error = max(self.error, error)
        return error

    def _enter(
        self, operation: Operation, *, count: int = 0, error: float = 0.0, fallback: float = 0.0
    ) -> None:
        """Add figures of an operation to those of its module; the worst ones count."""
        layer = operation.place.module
        known = self.layers.get(layer, LayerCertificate(layer, 0, 0.0, 0.0))
        self.layers[layer] = LayerCertificate(
            layer,
            known.operations + count,
            max(known.conservation_error, error),
            max(known.fallback_share, min(1.0, fallback)),
        )

    def _sums(self, value: Value, relevance: Tensor) -> Tensor:
        """Sums over each image, (seeds, images); a certified walk must be able to take them."""
        owner = self._prepared.owners.get(value)
        if owner is None and not self._prepared.certify:
            flat = relevance.flatten(1).sum(1, keepdim=True, dtype=torch.float64)
            return (flat / self._prepared.images).expand(-1, self._prepared.images)
        if owner is None:
            raise _why_no_owner(self._prepared, value)
        return sum_by_owner(relevance, owner, self._prepared.images)

    def _added(self, first: Tensor, second: Tensor) -> Tensor:
        """Sum of two tallies; one of the seeds alone counts for the unit and for its dual."""
        first = first.to(second.device)
        if first.ndim and second.ndim and first.shape[0] < second.shape[0]:
            first = torch.cat([first, first])
        elif first.ndim and second.ndim and first.shape[0] > second.shape[0]:
            second = torch.cat([second, second])
        return first + second

    def _fold(self, operation: Operation, rule: Rule) -> None:
        """Hand the sign of a unit to the linear operation that belongs to it."""
        output, dependents = operation.output, operation.dependents
        target = self._signs.get(output)
        if isinstance(target, bool) and rule.keeps_target(operation):
            for value in dependents:
                if self._prepared.readers[value] == 1:
                    self._signs[value] = target
            return
        if rule.sign is None or len(dependents) != 1:
            return
        value = dependents[0]
        if self._prepared.readers[value] > 1:
            return
        if target is not False and not self._feeds(value):
            return
        negative = rule.sign(operation, self.negative(output))
        if negative is not None:
            self._signs[value] = negative

    def _feeds(self, value: Value) -> bool:
        """Whether a value comes from a weighted linear operation by folding steps only."""
        while value.producer is not None:
            operation = value.producer
            rule = rule_of(operation)
            if rule is None or value is not operation.outputs[0]:
                return False
            if _weighted(operation, rule):
                return True
            if rule.sign is None or len(operation.dependents) != 1:
                return False
            value = operation.dependents[0]
            if self._prepared.readers[value] > 1:
                return False
        return False


def _weighted(operation: Operation, rule: Rule) -> bool:
    return rule.linear and len(operation.dependents) == 1


def sum_by_owner(relevance: Tensor, owner: Tensor, images: int) -> Tensor:
    """Sum (seeds, *shape) over the elements of each image, (seeds, images), in float64.

    Relevance on elements that belong to no image is left out: it is lost.
    """
    compact = shared_out(owner)
    dims = [dim + 1 for dim, size in enumerate(compact.shape) if size == 1]
    sums = relevance.new_zeros((relevance.shape[0], images + 1), dtype=torch.float64)
    index = compact.reshape(-1).to(torch.int64)
    flat = precise_sum(relevance, dims).reshape(relevance.shape[0], -1)
    return sums.index_add_(1, index, flat)[:, 1:]


def precise_sum(tensor: Tensor, dims: list[int]) -> Tensor:
    """Sum over dimensions in float64, without a copy of the tensor in float64.

    Rows along the innermost dimensions in memory are summed in the tensor's own precision first,
    pairwise; a float32 sum of a few hundred terms is good to 1e-7.
    """
    by_step = sorted(dims, key=lambda dim: tensor.stride(dim))
    length, rows = 1, []
    for dim in by_step:
        if length * tensor.shape[dim] > ROW_LENGTH:
            break
        length *= tensor.shape[dim]
        rows.append(dim)
    if rows:
        tensor = tensor.sum(rows, keepdim=True)
    rest = [dim for dim in dims if dim not in rows]
    return tensor.sum(dims, dtype=torch.float64) if rest or rows else tensor.to(torch.float64)


def first_non_finite(tape: Tape) -> Operation | None:
    """The first operation whose results hold NaN or infinity."""
    for operation in tape.operations:
        tensors = [output.tensor for output in operation.outputs if output is not None]
        if not all(tensor is None or bool(torch.isfinite(tensor).all()) for tensor in tensors):
            return operation
    return None
