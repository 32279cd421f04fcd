"""The Sparse Reconstruction Autoencoder (paper section 2.2, figure 2a)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.embeddings.base import Embedding
from torchxnn.errors import XNNError


class SRAE(Embedding):
    """Encoder Z -> hidden -> n, mirrored decoder, ReLU after every layer, linear readout.

    The network sees Z divided by one number, `scale`, so that learning rates and penalties mean the
    same for every layer of every model; `decode` multiplies it back.

    Args:
        dims: S_z, dimensions of Z.
        n_features: n, number of x-features.
        n_targets: k, number of logits to reproduce.
        hidden: sizes of the encoder's hidden layers; (800, 100) in the paper.
        nonnegative: whether Z is never negative, so that the reconstruction ends in a ReLU.
    """

    scale: Tensor

    def __init__(
        self,
        dims: int,
        n_features: int,
        n_targets: int = 1,
        hidden: Sequence[int] = (800, 100),
        nonnegative: bool = True,
    ) -> None:
        super().__init__()
        sizes = (dims, *hidden, n_features)
        if min((*sizes, n_targets)) < 1:
            raise XNNError(f"all sizes must be positive, got {sizes} and {n_targets} target(s)")
        self.dims, self.n_features, self.n_targets = dims, n_features, n_targets
        self.hidden, self.nonnegative = tuple(hidden), nonnegative
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes[::-1]))
        self.readout = nn.Linear(n_features, n_targets)
        self.register_buffer("scale", torch.ones(()))

    def settings(self) -> dict[str, Any]:
        """What `SRAE(**settings)` needs to build an equal network, as plain values."""
        return {
            "dims": self.dims,
            "n_features": self.n_features,
            "n_targets": self.n_targets,
            "hidden": list(self.hidden),
            "nonnegative": self.nonnegative,
        }

    def encode(self, activations: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch features"]:
        """X-features E >= 0 of activations Z, (B, S_z) -> (B, n)."""
        hidden = activations / self.scale
        for layer in self.encoder:
            hidden = torch.relu(layer(hidden))
        return hidden

    def decode(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch dims"]:
        """Reconstruction of Z, (B, n) -> (B, S_z)."""
        hidden = features
        for layer in self.decoder[:-1]:
            hidden = torch.relu(layer(hidden))
        hidden = self.decoder[-1](hidden)
        return (torch.relu(hidden) if self.nonnegative else hidden) * self.scale
