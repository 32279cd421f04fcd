"""The starting point of an SRAE: scaled, pretrained, its x-layer and readout set from data."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from torchxnn.data.activations import Activations
from torchxnn.embeddings.srae import SRAE
from torchxnn.embeddings.subspace import Subspace, principal_subspace
from torchxnn.errors import XNNError
from torchxnn.training.config import Side, TrainConfig
from torchxnn.training.initialise import (
    deviation,
    fit_readout,
    pretrain_greedily,
    set_scale,
    split_logit,
)


@dataclass(frozen=True, eq=False)
class _Pretrained:
    """Weights after pretraining, and the generator's state then."""

    weights: dict[str, Tensor]
    generator: Tensor


_PRETRAINED: WeakKeyDictionary[Activations, dict[tuple[object, ...], _Pretrained]] = (
    WeakKeyDictionary()
)
"""Pretraining sees no target: what it gave is kept while the activations are, and shared by all
fits to them that draw the same numbers."""

_SUBSPACES: WeakKeyDictionary[Activations, dict[tuple[int, int], Subspace]] = WeakKeyDictionary()
"""The same for principal subspaces, by rank and seed."""

SUBSPACE_SAMPLES = 8192
"""Most samples that the principal subspace is computed from."""


def start_embedding(
    split: Side, n_features: int, config: TrainConfig, generator: torch.Generator
) -> SRAE:
    """A new SRAE at its starting point: scaled, pretrained, x-layer and readout set from data."""
    embedding = _pretrained(split, n_features, config, generator)
    with torch.no_grad():
        if config.split_logit:
            hidden = embedding.below_x_layer(embedding.inputs(split.data.z))
            split_logit(embedding, hidden, split.logits, split.weights, split.positives, generator)
    if config.split_logit or not config.faithful:
        refit_readout(embedding, split)
    return embedding


def _pretrained(
    split: Side, n_features: int, config: TrainConfig, generator: torch.Generator
) -> SRAE:
    """Scaled and pretrained on Z; the generator is left as if it had just been done."""
    z, targets = split.data.z, split.logits.shape[1]
    settings = (config.hidden, config.pretrain_epochs, config.batch_size, config.subspace)
    key = (n_features, targets, *settings, generator.get_state().numpy().tobytes())
    known = _PRETRAINED.setdefault(split.data, {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        nonnegative = bool((z >= 0).all())
        embedding = SRAE(
            z.shape[1],
            n_features,
            targets,
            config.hidden,
            nonnegative,
            _subspace(split.data, config),
        ).to(z.device, torch.promote_types(z.dtype, torch.float32))
    if key in known:
        embedding.load_state_dict(known[key].weights)
        generator.set_state(known[key].generator)
        return embedding
    with torch.no_grad():
        set_scale(embedding, z)
    if config.pretrain_epochs:
        pretrain_greedily(embedding, z, generator, config.pretrain_epochs, config.batch_size)
    known[key] = _Pretrained(copy.deepcopy(embedding.state_dict()), generator.get_state())
    return embedding


def _subspace(data: Activations, config: TrainConfig) -> Subspace | None:
    """The principal subspace that the settings ask for; None for all of Z."""
    if config.subspace is None or config.subspace >= data.z.shape[1]:
        return None
    if config.subspace < 1:
        raise XNNError(f"subspace must be at least 1 dimension, got {config.subspace}")
    known = _SUBSPACES.setdefault(data, {})
    key = (config.subspace, config.seed)
    if key not in known:
        z = data.z
        if len(z) > SUBSPACE_SAMPLES:
            generator = torch.Generator().manual_seed(config.seed)
            z = z[torch.randperm(len(z), generator=generator)[:SUBSPACE_SAMPLES]]
        known[key] = principal_subspace(z / deviation(z), config.subspace, config.seed)
    return known[key]


@torch.no_grad()
def refit_readout(embedding: SRAE, split: Side) -> None:
    """Set the readout to the least squares solution over one side of the data."""
    fit_readout(embedding, embedding.encode(split.data.z), split.logits, split.weights)
