"""What a walk measures: sums of relevance per image, and in a certified walk of every cut.

A cut is the set of values that hold all relevance at one moment of the walk. Its sums are not taken
anew after every operation: an operation takes its outputs out of the cut and adds its inputs. All
sums are read back at the end of the walk, in one go, since Python waits for a GPU each time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from torchxnn.attribution.base import LayerCertificate
from torchxnn.attribution.excitation_backprop.owners import same_images, same_memory, sum_by_owner
from torchxnn.attribution.excitation_backprop.prepared import Prepared, why_no_owner
from torchxnn.attribution.excitation_backprop.tape import Operation, Value
from torchxnn.embeddings.exact import exact_sum
from torchxnn.errors import NonFiniteError

_NOTHING = torch.zeros((), dtype=torch.float64)


@dataclass(eq=False)
class _Step:
    """What an operation changed, in numbers of sums that were taken.

    Attributes:
        operation: None for the start.
        change: sums that were added to the cut and, beside them, sums that were taken out of it.
        absorbed: what had ended by then.
        fallbacks: what met one at its units.
    """

    operation: Operation | None
    change: list[tuple[int | None, int | None]] = field(default_factory=list)
    absorbed: int | None = None
    fallbacks: list[int] = field(default_factory=list)


class Account:
    """The account of one walk; see `Walk` for what it carries.

    Args:
        prepared: the tape; it says whether the walk is certified.
        pair: whether, below the last linear operation, the dual's relevance is behind the unit's.
        witness: whether the witness is there behind the differences.

    Attributes:
        error: largest distance from 1 so far of the relevance of a cut, if the walk is certified;
            it and `layers` are known from `finish` on. With a witness it is no less than that,
            unless one seed's loss is another's gain: the witness' distance from the number of
            seeds, and half the largest sum of a difference.
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
        # Sums per image, and the number of that of each value of the present cut, above and below
        # the last linear operation that feeds the target.
        self._taken: list[Tensor] = []
        self._tallies: dict[tuple[Value, bool], int] = {}
        self._steps: list[_Step] = []
        self._ended: int | None = None
        # Of the present operation: what it received, and what it changed so far.
        self._arrived: list[tuple[Value, Tensor, int]] = []
        self._above = False
        self._step = _Step(None)

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
            number = self._take(self._sums(output, relevance))
            self._tallies[output, True] = number
            self._steps.append(_Step(None, [(number, None)]))

    def open(
        self,
        operation: Operation,
        outputs: list[Value],
        arrived: list[Tensor | None],
        *,
        above: bool,
    ) -> None:
        """An operation is about to pass on what has arrived at its outputs."""
        self._arrived = [
            (output, each, each._version)
            for output, each in zip(outputs, arrived, strict=True)
            if each is not None
        ]
        self._above, self._step = above, _Step(operation)

    def receive(self, value: Value, relevance: Tensor, *, above: bool) -> None:
        """The operation has made the relevance of an input what it is now."""
        if not self._prepared.certify:
            return
        before = self._tallies.get((value, above))
        after = self._known(value, relevance)
        if after is None:
            after = self._take(self._sums(value, relevance))
        self._tallies[value, above] = after
        self._step.change.append((after, before))

    def close(self, outputs: list[Value]) -> None:
        """The operation has passed on all."""
        self._arrived = []
        if not self._prepared.certify:
            return
        gone = (self._tallies.pop((output, self._above), None) for output in outputs)
        self._step.change += [(None, number) for number in gone if number is not None]
        self._step.absorbed = self._ended
        self._steps.append(self._step)

    def meet_fallback(self, operation: Operation, lost: Tensor | None, clean: Tensor) -> None:
        """Count what units that a fallback decides received.

        Args:
            operation: whose units they are.
            lost: the unit's relevance there (seeds, *output shape), if it is known.
            clean: what of it had met none before.
        """
        if self._prepared.certify and lost is not None:
            self._step.fallbacks.append(self._take(self._sums(operation.output, lost)))
        sums = self._sums(operation.output, clean)
        known = self._fallback
        self._fallback = sums if known is None else known + sums.to(known.device)

    def absorb(self, operation: Operation, lost: Tensor) -> None:
        """Count what ended at units of an operation, of all that is carried."""
        sums = self._sums(operation.output, lost)
        self.absorbed = self.absorbed.to(sums.device) + sums
        self._ended = self._take(self.absorbed) if self._prepared.certify else None

    def finish(self) -> None:
        """Read what was measured, once the walk has ended, by an error too.

        Raises:
            NonFiniteError: relevance became NaN or infinite, in a certified walk.
        """
        taken, cut = self._read(), np.zeros(())
        for step in self._steps:
            change = np.zeros(())
            for more, less in step.change:
                sums = np.zeros(()) if more is None else taken[more]
                gone = np.zeros(()) if less is None else -taken[less]
                change = self._added(change, self._added(sums, gone))
            cut = self._added(cut, change)
            absorbed = np.zeros(()) if step.absorbed is None else taken[step.absorbed]
            error = self._leak(cut, absorbed)
            operation = step.operation
            if operation is None:
                continue
            if not math.isfinite(error):
                raise NonFiniteError(
                    f"relevance became NaN or infinite at {operation.full_name} in "
                    f"{operation.place}; check the activations and weights there"
                )
            shares = [float(taken[number].max()) for number in step.fallbacks]
            self._enter(operation, error, max(shares, default=0.0))
        self._steps.clear()
        self._taken.clear()

    def _take(self, sums: Tensor) -> int:
        self._taken.append(sums)
        return len(self._taken) - 1

    def _read(self) -> list[np.ndarray]:
        """All sums, read back at once from each device."""
        there = defaultdict(list)
        for number, sums in enumerate(self._taken):
            there[sums.device].append(number)
        found: dict[int, np.ndarray] = {}
        for numbers in there.values():
            parts = [self._taken[number] for number in numbers]
            whole = torch.cat([part.reshape(-1) for part in parts]).cpu()
            split = whole.split([part.numel() for part in parts])
            for number, part, values in zip(numbers, parts, split, strict=True):
                found[number] = values.reshape(part.shape).numpy()
        return [found[number] for number in range(len(self._taken))]

    def _known(self, value: Value, relevance: Tensor) -> int | None:
        """Which sums are those of what was only handed on (ReLU, BatchNorm); None for new ones."""
        owner = self._prepared.owners.get(value)
        for output, each, version in self._arrived:
            if same_memory(each, relevance) and each._version == version:
                known = self._tallies.get((output, self._above))
                if known is not None and same_images(self._prepared.owners.get(output), owner):
                    return known
        return None

    def _leak(self, cut: np.ndarray, absorbed: np.ndarray) -> float:
        if self._witness and len(cut) > self._seeds:
            leak = np.abs(cut[:-1]).max(0) / 2 + np.abs(cut[-1] - self._seeds)
        else:
            leak = np.abs(self._added(cut, absorbed) - 1)
        error = float(leak.max())
        self.error = max(self.error, error)
        return error

    def _enter(self, operation: Operation, error: float, fallback: float) -> None:
        """Add figures of an operation to those of its module; the worst ones count."""
        layer = operation.place.module
        known = self.layers.get(layer, LayerCertificate(layer, 0, 0.0, 0.0))
        self.layers[layer] = LayerCertificate(
            layer,
            known.operations + 1,
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

    def _added(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Sum of two tallies; one of the seeds alone counts for the unit and for its dual."""
        if first.ndim and second.ndim and len(first) < len(second):
            first = self._of_both(first)
        elif first.ndim and second.ndim and len(first) > len(second):
            second = self._of_both(second)
        return np.asarray(first + second)

    def _of_both(self, sums: np.ndarray) -> np.ndarray:
        """Sums of what is carried below, of those of the seeds above (seeds, images)."""
        if self._pair:
            return np.concatenate([sums, sums])
        return np.concatenate([np.zeros_like(sums), sums.sum(0, keepdims=True)])
