"""What a walk measures: sums of relevance per image, and in a certified walk of every cut.

A cut is the set of values that hold all relevance at one moment of the walk. Its sums are not taken
anew after every operation: an operation takes its outputs out of the cut and adds its inputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchxnn.attribution.base import LayerCertificate
from torchxnn.attribution.excitation_backprop.owners import same_images, same_memory, sum_by_owner
from torchxnn.attribution.excitation_backprop.prepared import Prepared, why_no_owner
from torchxnn.attribution.excitation_backprop.tape import Operation, Value
from torchxnn.embeddings.exact import exact_sum
from torchxnn.errors import NonFiniteError

_NOTHING = torch.zeros((), dtype=torch.float64)


class Account:
    """The account of one walk; see `Walk` for what it carries.

    Args:
        prepared: the tape; it says whether the walk is certified.
        pair: whether, below the last linear operation, the dual's relevance is behind the unit's.
        witness: whether the witness is there behind the differences.

    Attributes:
        error: largest distance from 1 so far of the relevance of a cut, if the walk is certified.
            With a witness it is no less than that, unless one seed's loss is another's gain: the
            witness' distance from the number of seeds, and half the largest sum of a difference.
        absorbed: relevance that ended at units that nothing agrees with, (seeds, images) in
            float64, or (2 seeds, images) with the dual's behind the unit's; 0 if none did.
        layers: what was conserved by the dotted name of the innermost module, from the top down;
            kept only by a certified walk. With a witness nothing is known of their fallback.
        apart: whether images could be told apart in all that relevance reached.
    """

    def __init__(self, prepared: Prepared, *, pair: bool, witness: bool) -> None:
        self.error = 0.0
        self.absorbed = _NOTHING
        self.layers: dict[str, LayerCertificate] = {}
        self.apart = True
        self._prepared = prepared
        self._pair, self._witness, self._seeds = pair, witness, 0
        self._fallback: Tensor | None = None
        # Sums per image, of all values of the present cut and of each, above and below the last
        # linear operation that feeds the target.
        self._cut = _NOTHING
        self._tallies: dict[tuple[Value, bool], Tensor] = {}
        # Of the present operation: what it received, and what it changed so far.
        self._arrived: list[tuple[Value, Tensor, int]] = []
        self._above = False
        self._change = _NOTHING

    @property
    def fallback(self) -> Tensor | None:
        """The unit's relevance that has met a fallback so far, (seeds, images), float64.

        Relevance that meets several counts once. Where images cannot be told apart (only a walk
        without a certificate gets so far), each has their mean. None if there was no fallback.
        """
        found = self._fallback
        if found is None or self.apart:
            return found
        return found.mean(1, keepdim=True).expand_as(found)

    def begin(self, output: Value, relevance: Tensor) -> None:
        """The walk starts with this relevance (seeds, *output shape)."""
        self._seeds = relevance.shape[0]
        if self._prepared.certify:
            self._cut = self._sums(output, relevance)
            self._tallies[output, True] = self._cut
            self._measure()

    def open(self, outputs: list[Value], arrived: list[Tensor | None], *, above: bool) -> None:
        """An operation is about to pass on what has arrived at its outputs."""
        self._arrived = [
            (output, each, each._version)
            for output, each in zip(outputs, arrived, strict=True)
            if each is not None
        ]
        self._above, self._change = above, _NOTHING

    def receive(self, value: Value, relevance: Tensor, *, above: bool) -> None:
        """The operation has made the relevance of an input what it is now."""
        if not self._prepared.certify:
            return
        before = self._tallies.get((value, above), _NOTHING)
        after = self._known(value, relevance)
        if after is None:
            after = self._sums(value, relevance)
        self._tallies[value, above] = after
        self._change = self._added(self._change, self._added(after, -before))

    def close(self, operation: Operation, outputs: list[Value]) -> None:
        """The operation has passed on all; refuse NaN and infinity in a certified walk."""
        self._arrived = []
        if not self._prepared.certify:
            return
        for output in outputs:
            gone = self._tallies.pop((output, self._above), _NOTHING)
            self._change = self._added(self._change, -gone)
        self._cut = self._added(self._cut, self._change)
        error = self._measure()
        if not math.isfinite(error):
            raise NonFiniteError(
                f"relevance became NaN or infinite at {operation.full_name} in {operation.place}; "
                "check the activations and weights there"
            )
        self._enter(operation, count=1, error=error)

    def meet_fallback(self, operation: Operation, lost: Tensor | None, clean: Tensor) -> None:
        """Count what units that a fallback decides received.

        Args:
            operation: whose units they are.
            lost: the unit's relevance there (seeds, *output shape), if it is known.
            clean: what of it had met none before.
        """
        if self._prepared.certify and lost is not None:
            shared = self._sums(operation.output, lost)
            self._enter(operation, fallback=float(shared.max()))
        sums = self._sums(operation.output, clean)
        known = self._fallback
        self._fallback = sums if known is None else known + sums.to(known.device)

    def absorb(self, operation: Operation, lost: Tensor) -> None:
        """Count what ended at units of an operation, of all that is carried."""
        self.absorbed = self._added(self.absorbed, self._sums(operation.output, lost))

    def _known(self, value: Value, relevance: Tensor) -> Tensor | None:
        """Sums of what was only handed on (ReLU, BatchNorm), which need not be added up again."""
        owner = self._prepared.owners.get(value)
        for output, each, version in self._arrived:
            if same_memory(each, relevance) and each._version == version:
                known = self._tallies.get((output, self._above))
                if known is not None and same_images(self._prepared.owners.get(output), owner):
                    return known
        return None

    def _measure(self) -> float:
        if self._witness and len(self._cut) > self._seeds:
            leak = self._cut[:-1].abs().amax(0) / 2 + (self._cut[-1] - self._seeds).abs()
        else:
            leak = (self._added(self._cut, self.absorbed) - 1).abs()
        error = float(leak.max())
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
            flat = exact_sum(relevance.flatten(1), 1, keepdim=True)
            return (flat / self._prepared.images).expand(-1, self._prepared.images)
        if owner is None:
            raise why_no_owner(self._prepared, value)
        return sum_by_owner(relevance, owner, self._prepared.images)

    def _added(self, first: Tensor, second: Tensor) -> Tensor:
        """Sum of two tallies; one of the seeds alone counts for the unit and for its dual."""
        first = first.to(second.device)
        if first.ndim and second.ndim and first.shape[0] < second.shape[0]:
            first = self._of_both(first)
        elif first.ndim and second.ndim and first.shape[0] > second.shape[0]:
            second = self._of_both(second)
        return first + second

    def _of_both(self, sums: Tensor) -> Tensor:
        """Sums of what is carried below, of those of the seeds above (seeds, images)."""
        if self._pair:
            return torch.cat([sums, sums])
        return torch.cat([torch.zeros_like(sums), sums.sum(0, keepdim=True)])
