"""What the SRAE and its convolutional form share: encoder and mirrored decoder (paper 2.2, 4.4)."""

from __future__ import annotations

from abc import ABC

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.subspace import Subspace


class Autoencoder(Embedding, ABC):
    """Encoder Z -> hidden -> n, mirrored decoder, ReLU after every layer, linear readout.

    The network sees Z divided by one number, `scale`, so that learning rates and penalties mean the
    same for every layer of every model; `decode` multiplies it back.

    Attributes:
        encoder: its layers, from Z up; the last one is the x-layer.
        decoder: its layers, from the x-features back to Z.
        scale: what Z is divided by, ().
        nonnegative: whether Z is never negative, so that the reconstruction ends in a ReLU.
        subspace: what the outer layers are confined to; None for all of Z.
        offset: of the reconstruction in a subspace, (S_z,).
    """

    encoder: nn.ModuleList
    decoder: nn.ModuleList
    scale: Tensor
    nonnegative: bool
    subspace: Subspace | None
    offset: nn.Parameter | None

    def encode(
        self, activations: Float[Tensor, "batch dims *map"]
    ) -> Float[Tensor, "batch features *map"]:
        """X-features E >= 0 of activations Z, (B, S_z) -> (B, n), or maps of them."""
        return self.x_layer(self.below_x_layer(self.inputs(activations)))

    def inputs(
        self, activations: Float[Tensor, "batch dims *map"]
    ) -> Float[Tensor, "batch inputs *map"]:
        """What the first layer sees of Z: divided by `scale`, in the subspace if there is one."""
        if self.subspace is None:
            return activations / self.scale
        return self.subspace.project(activations, self.scale)

    def below_x_layer(
        self, inputs: Float[Tensor, "batch inputs *map"]
    ) -> Float[Tensor, "batch units *map"]:
        """Outputs of the layer below the x-layer."""
        hidden = inputs
        for layer in self.encoder[:-1]:
            hidden = torch.relu(layer(hidden))
        return hidden

    def x_layer(
        self, hidden: Float[Tensor, "batch units *map"]
    ) -> Float[Tensor, "batch features *map"]:
        """X-features of the outputs of the layer below."""
        return torch.relu(self.encoder[-1](hidden))

    def decode(
        self, features: Float[Tensor, "batch features *map"]
    ) -> Float[Tensor, "batch dims *map"]:
        """Reconstruction of Z, (B, n) -> (B, S_z), or of any set of positions of maps."""
        hidden = features
        for layer in self.decoder[:-1]:
            hidden = torch.relu(layer(hidden))
        return self.output(hidden) * self.scale

    def output(self, hidden: Float[Tensor, "batch units *map"]) -> Float[Tensor, "batch dims *map"]:
        """Reconstruction of scaled Z from the decoder's last hidden layer."""
        output = self.decoder[-1](hidden)
        if self.subspace is not None and self.offset is not None:
            output = self.subspace.span(output) + self.offset
        return torch.relu(output) if self.nonnegative else output

    def expanded(self) -> Autoencoder:
        """The same function of Z without what only its fit needs: itself."""
        return self
