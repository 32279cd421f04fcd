"""Single dimensions of Z as concepts: those that somebody chose, as the network made them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.embeddings.concepts import (
    ConceptEmbedding,
    blank_linear,
    check_activations,
    with_readout,
)
from torchxnn.embeddings.exact import exact
from torchxnn.embeddings.linear import check_weights, least_squares
from torchxnn.errors import DataError

MOST_ACTIVE = 64
"""Dimensions whose heatmaps stand for those of all of Z."""


class SelectedDimensions(ConceptEmbedding):
    r"""Concepts are dimensions of Z, :math:`E_l=z_{j_l}`; Z is reconstructed linearly from them.

    `units` copies the chosen elements. So the last linear operation that feeds a unit, whose
    weights c-MWP negates, is the network's own. For its arguments see `ConceptEmbedding`.
    """

    kind = "dimensions"
    index: Int64[Tensor, " features"]

    def __init__(self, dims: int, n_features: int, n_targets: int = 1) -> None:
        super().__init__(dims, n_features, n_targets)
        self.register_buffer("index", torch.zeros(n_features, dtype=torch.long))
        self.decoder = blank_linear(n_features, dims)

    def encode(self, activations: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch features"]:
        """The chosen dimensions of Z, (B, S_z) -> (B, n)."""
        return activations.index_select(1, self.index)

    def decode(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch dims"]:
        """The least squares reconstruction of Z, (B, n) -> (B, S_z)."""
        return self.decoder(features)


@torch.no_grad()
def select_dimensions(
    activations: Float[Tensor, "samples dims"], index: Int64[Tensor, " features"]
) -> SelectedDimensions:
    """The given dimensions as concepts, with a decoder fitted by least squares; no readout yet.

    Activations are Z of the training set, (M, S_z).

    Raises:
        DataError: no dimensions, or one out of range or given twice.
    """
    check_activations(activations, 1)
    dims = activations.shape[1]
    unique = len(index) > 0 and len(index.unique()) == len(index)
    if not unique or not 0 <= int(index.min()) <= int(index.max()) < dims:
        raise DataError(
            f"expected different dimensions of Z from 0 to {dims - 1}, got {_brief(index.tolist())}"
        )
    embedding = SelectedDimensions(dims, len(index)).to(activations.device)
    embedding.index.copy_(index)
    everywhere = check_weights(None, activations)
    weight, bias = least_squares(activations[:, index], activations, everywhere)
    embedding.decoder.weight.copy_(weight)
    embedding.decoder.bias.copy_(bias)
    return embedding


def fit_dimensions(
    activations: Float[Tensor, "samples *dims"],
    logits: Float[Tensor, "samples targets"],
    positives: Bool[Tensor, " samples"],
    n_concepts: int = MOST_ACTIVE,
    weights: Float[Tensor, " samples"] | None = None,
) -> SelectedDimensions:
    """The dimensions of Z that are most active on the positives, on average, and a linear readout.

    The most active one comes first; of equally active ones, the one with the lower index.

    Source: the column Z of paper table 1, which averages over all dimensions; the most active ones
    stand for them, since a map of every dimension on every image is out of reach.

    Args:
        activations: Z, (M, S_z).
        logits: (M, k), those to reproduce.
        positives: (M,).
        n_concepts: number of dimensions.
        weights: (M,) sample weights of the readout; None weighs all samples alike.

    Raises:
        DataError: no positives, or more concepts than dimensions.
        NonFiniteError: NaN or infinity.

    Example:
        >>> fit_dimensions(train.z, train.logits[:, [47]], train.labels == 47).units()
    """
    check_activations(activations, 1)
    if not bool(positives.any()):
        raise DataError("no positives to choose the most active dimensions on")
    if not 1 <= n_concepts <= activations.shape[1]:
        raise DataError(f"n_concepts is {n_concepts}; Z has {activations.shape[1]} dimensions")
    mean = exact(activations[positives]).mean(0)
    index = mean.argsort(descending=True, stable=True)[:n_concepts].to(activations.device)
    embedding = select_dimensions(activations, index)
    others = positives.unsqueeze(1).expand(-1, logits.shape[1])
    return with_readout(embedding, embedding.encode(activations), logits, weights, others)


def _brief(values: list[Any]) -> str:
    return str(values) if len(values) <= 10 else f"{values[:10]} and {len(values) - 10} more"
