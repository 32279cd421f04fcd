"""Directions in Z as concepts, whoever found them: labels, independence, or chance."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.embeddings.concepts import ConceptEmbedding, blank_linear, check_activations
from torchxnn.embeddings.linear import check_weights, least_squares
from torchxnn.errors import DataError


class DirectionConcepts(ConceptEmbedding):
    r"""Linear functions of Z of any sign, :math:`E=Wz+b`; Z is reconstructed linearly from them.

    For its arguments see `ConceptEmbedding`.
    """

    kind = "directions"

    def __init__(self, dims: int, n_features: int, n_targets: int = 1) -> None:
        super().__init__(dims, n_features, n_targets)
        self.encoder = blank_linear(dims, n_features)
        self.decoder = blank_linear(n_features, dims)

    def encode(self, activations: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch features"]:
        """The linear functions of activations Z, (B, S_z) -> (B, n)."""
        return self.encoder(activations)

    def decode(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch dims"]:
        """The least squares reconstruction of Z, (B, n) -> (B, S_z)."""
        return self.decoder(features)

    def units(self) -> nn.Module:
        """The linear map itself."""
        return self.encoder


@torch.no_grad()
def as_directions(
    weight: Float[Tensor, "features dims"],
    bias: Float[Tensor, " features"],
    activations: Float[Tensor, "samples *dims"],
) -> DirectionConcepts:
    """Given directions W, b as concepts, with a decoder fitted by least squares; no readout yet.

    Activations are Z of the training set, (M, S_z).

    Raises:
        DataError: maps, more concepts than dimensions, or directions of another layer.
        NonFiniteError: NaN or infinity.
    """
    check_activations(activations, len(weight))
    if weight.shape[1] != activations.shape[1]:
        raise DataError(
            f"directions of {weight.shape[1]} dimensions for activations of {activations.shape[1]}"
        )
    embedding = DirectionConcepts(weight.shape[1], len(weight)).to(activations.device)
    embedding.encoder.weight.copy_(weight)
    embedding.encoder.bias.copy_(bias)
    everywhere = check_weights(None, activations)
    back, offset = least_squares(embedding.encode(activations), activations, everywhere)
    embedding.decoder.weight.copy_(back)
    embedding.decoder.bias.copy_(offset)
    return embedding
