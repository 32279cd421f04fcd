"""Which samples a fit reads: all of them, or as many as its memory allows."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.activations import Activations
from torchxnn.data.positives import all_positives, sample_classes, sample_kinds, split_kinds
from torchxnn.embeddings import linear, subspace, wide
from torchxnn.errors import XNNError
from torchxnn.models.meaning import CLASSES, Meaning
from torchxnn.models.outputs import class_of_target
from torchxnn.training.config import TrainConfig
from torchxnn.training.initialise import SUBSPACE_SAMPLES
from torchxnn.training.slots import CPU_SLOTS

SAFETY = 1.1
"""Memory that is set aside for everything small."""

PER_STEP = 8
"""Tensors as large as a fit's batch of Z that one step holds."""

WHOLE_LAYERS = 4
"""Layers that see all of Z in a finished fit: two of its own, and their copies while it is
measured."""


@dataclass(frozen=True, eq=False)
class Needs:
    """What fits need of a recording, and the memory that they may use.

    Attributes:
        data: recorded activations, in memory or in a cache.
        layer: of the cache.
        config: settings of the fits.
        memory: gigabytes for activations and what is computed from them.
        meaning: of the model's outputs.
    """

    data: Activations | ActivationCache
    layer: str
    config: TrainConfig
    memory: float
    meaning: Meaning = CLASSES

    @property
    def budget(self) -> int:
        """Samples that fit the memory, no more than there are."""
        if isinstance(self.data, Activations):
            return len(self.data)
        # not beyond: where the solver changes, some more samples need less memory
        return bisect_right(range(1, len(self.data) + 1), self.memory * 1e9, key=self.bytes)

    def bytes(self, samples: int) -> float:
        """Bytes that fits to so many samples of a cache hold at once, at most."""
        if isinstance(self.data, Activations):
            raise XNNError("activations in memory need no memory more; give a cache")
        config, size = self.config, self.data.dims(self.layer)
        dims, outputs = math.prod(size), self.data.n_outputs
        inner = min(dims, config.subspace or dims)
        # Z and a mask of it, what the first layer sees, hidden units before and after their ReLU
        values = samples * (1.25 * dims + inner + 2 * (sum(config.hidden) + outputs))
        if len(size) > 1:
            values += PER_STEP * config.conv.map_batch_size * dims
        else:
            start = max(_for_readout(samples, dims, outputs), _for_subspace(samples, dims, inner))
            whole = dims * max(config.hidden, default=1)  # a layer that sees all of Z
            steps = CPU_SLOTS * PER_STEP * config.batch_size * dims
            values += max(start, steps + WHOLE_LAYERS * whole)
        return 4 * SAFETY * values

    @property
    def all_fit(self) -> bool:
        """Whether the memory holds all samples."""
        return self.budget >= len(self.data)


def _for_readout(samples: int, dims: int, outputs: int) -> int:
    """Numbers in float32 that the linear model of all logits takes at once."""
    if dims <= linear.WIDE:  # the covariance with copies of the solver, and rows of Z, in float64
        return 2 * (3 * dims**2 + 2 * min(samples, linear.ROWS_AT_ONCE) * dims)
    side = min(samples, dims)
    parts = 3 * max(dims, samples, wide.VALUES_AT_ONCE)
    if side > wide.LARGEST_SIDE:  # what conjugate gradients carry along
        side, parts = 0, parts + 6 * dims * min(outputs, wide.OUTPUTS_AT_ONCE)
    return 2 * (2 * side**2 + parts + 2 * (samples + dims) * outputs)


def _for_subspace(samples: int, dims: int, inner: int) -> int:
    """Numbers in float32 that the principal subspace takes at once."""
    if inner >= dims:
        return 0
    seen = min(samples, SUBSPACE_SAMPLES)
    sample = seen * dims if samples > seen else 0
    if dims <= subspace.EXACT_DIMS:  # what the logits are not read from, then its covariance
        return sample + max(2 * seen * dims, seen * dims + 6 * dims**2)
    return sample + 2 * max(dims, subspace.VALUES_AT_ONCE) + 6 * (dims + seen) * (inner + 16)


def load_splits(
    needs: Needs, targets: Sequence[tuple[int, ...]] | None, validation: Activations | None = None
) -> tuple[Activations, Activations]:
    """Training and held-out activations in memory.

    Which samples are held out does not depend on the targets: those that the cache says, or else
    the same share of every class. If the memory does not hold all samples, these are all positives
    of the targets and a random sample of the others; without targets everything is read. Beside
    `validation`, held-out activations that the caller has, the rest is for training.

    Raises:
        XNNError: the memory is too small for the positives, or they have no weight of their own.
    """
    data, config = needs.data, needs.config
    if validation is not None and isinstance(data, Activations):
        return data, validation
    mask = data.held_out if isinstance(data, ActivationCache) else None
    if mask is None:
        mask = split_kinds(sample_kinds(data, needs.meaning), config.validation_share, config.seed)
    if isinstance(data, Activations):
        return data.select(~mask), data.select(mask)
    chosen = torch.ones(len(data), dtype=torch.bool)
    if targets is not None and not needs.all_fit:
        chosen = _sample(needs, data, targets)
    splits = [(chosen & split).nonzero().flatten() for split in (~mask, mask)]
    train, held_out = (data.activations(needs.layer, rows).meant(needs.meaning) for rows in splits)
    return train, held_out


def _sample(
    needs: Needs, data: ActivationCache, targets: Sequence[tuple[int, ...]]
) -> Bool[Tensor, " samples"]:
    """All positives of the targets, and a random sample of the others, as memory allows."""
    budget = needs.budget
    if not budget:
        raise XNNError(
            f"{needs.memory} GB hold no sample: fits to {math.prod(data.dims(needs.layer))} "
            f"dimensions need {needs.bytes(1) / 1e9:.2f} GB beside Z; allow more memory"
        )
    if needs.config.positive_share is None:
        raise XNNError(
            f"{len(data)} samples do not fit {needs.memory} GB, and a sample of them needs "
            "positive_share to weigh the positives; set it, or allow more memory"
        )
    every = [target for each in targets for target in each]
    if needs.meaning.outputs_are == "classes":
        wanted = [class_of_target(target, data.n_outputs) for target in every]
        chosen = torch.isin(sample_classes(data), torch.tensor(wanted))
    else:
        chosen = all_positives(data, needs.meaning)[:, every].any(1)
    positives = int(chosen.sum())
    if 2 * positives > budget:
        raise XNNError(
            f"{needs.memory} GB hold {budget} samples, too few for the {positives} positives of "
            f"{len(targets)} class(es) and as many others; allow more memory or smaller blocks"
        )
    others = (~chosen).nonzero().flatten()
    generator = torch.Generator().manual_seed(needs.config.seed)
    order = torch.randperm(len(others), generator=generator)
    chosen[others[order[: budget - positives]]] = True
    return chosen
