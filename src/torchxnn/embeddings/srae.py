"""The Sparse Reconstruction Autoencoder (paper section 2.2, figure 2a)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.subspace import Subspace
from torchxnn.errors import XNNError


class SRAE(Embedding):
    """Encoder Z -> hidden -> n, mirrored decoder, ReLU after every layer, linear readout.

    The network sees Z divided by one number, `scale`, so that learning rates and penalties mean the
    same for every layer of every model; `decode` multiplies it back.

    While it is fitted, its outer layers may be confined to a subspace of Z: the first one sees the
    coordinates of Z there, and the last one gives coordinates, plus an `offset` in all dimensions.
    `expanded` turns it into an ordinary SRAE, which is what users get.

    Args:
        dims: S_z, dimensions of Z.
        n_features: n, number of x-features.
        n_targets: k, number of logits to reproduce.
        hidden: sizes of the encoder's hidden layers; (800, 100) in the paper.
        nonnegative: whether Z is never negative, so that the reconstruction ends in a ReLU.
        subspace: what the outer layers are confined to; None for all of Z.
    """

    kind = "srae"
    scale: Tensor

    def __init__(
        self,
        dims: int,
        n_features: int,
        n_targets: int = 1,
        hidden: Sequence[int] = (800, 100),
        nonnegative: bool = True,
        subspace: Subspace | None = None,
    ) -> None:
        super().__init__()
        sizes = (dims if subspace is None else subspace.rank, *hidden, n_features)
        if min((*sizes, dims, n_targets)) < 1:
            raise XNNError(f"all sizes must be positive, got {sizes} and {n_targets} target(s)")
        self.dims, self.n_features, self.n_targets = dims, n_features, n_targets
        self.hidden, self.nonnegative = tuple(hidden), nonnegative
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes[::-1]))
        self.readout = nn.Linear(n_features, n_targets)
        self.subspace = subspace
        self.offset = None if subspace is None else nn.Parameter(subspace.mean.clone())
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
        return self.encode_inputs(self.inputs(activations))

    def inputs(self, activations: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch inputs"]:
        """What the first layer sees of Z: divided by `scale`, in the subspace if there is one."""
        if self.subspace is None:
            return activations / self.scale
        return self.subspace.project(activations, self.scale)

    def encode_inputs(self, inputs: Float[Tensor, "batch inputs"]) -> Tensor:
        """X-features (B, n) of `inputs`."""
        return torch.relu(self.encoder[-1](self.below_x_layer(inputs)))

    def below_x_layer(self, inputs: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch units"]:
        """Outputs of the layer below the x-layer."""
        hidden = inputs
        for layer in self.encoder[:-1]:
            hidden = torch.relu(layer(hidden))
        return hidden

    def decode(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch dims"]:
        """Reconstruction of Z, (B, n) -> (B, S_z)."""
        hidden = features
        for layer in self.decoder[:-1]:
            hidden = torch.relu(layer(hidden))
        return self.output(hidden) * self.scale

    def output(self, hidden: Float[Tensor, "batch units"]) -> Float[Tensor, "batch dims"]:
        """Reconstruction of scaled Z from the decoder's last hidden layer."""
        output = self.decoder[-1](hidden)
        if self.subspace is not None and self.offset is not None:
            output = self.subspace.span(output) + self.offset
        return torch.relu(output) if self.nonnegative else output

    @torch.no_grad()
    def expanded(self) -> SRAE:
        """The same function of Z as an ordinary SRAE, without a subspace."""
        if self.subspace is None or self.offset is None:
            return self
        with torch.random.fork_rng(devices=[]):
            whole = SRAE(**self.settings()).to(self.scale)
        own = self.state_dict()
        state = {name: own[name] for name in whole.state_dict()}
        last, basis = len(self.decoder) - 1, self.subspace.basis
        state["encoder.0.weight"], state["encoder.0.bias"] = self.subspace.unfold(
            own["encoder.0.weight"], own["encoder.0.bias"]
        )
        state[f"decoder.{last}.weight"] = basis @ own[f"decoder.{last}.weight"]
        state[f"decoder.{last}.bias"] = basis @ own[f"decoder.{last}.bias"] + self.offset
        whole.load_state_dict(state)
        return whole
