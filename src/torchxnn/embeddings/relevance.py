"""The relevance that each x-feature sends to Z, as a differentiable function of the embedding."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import XNNError


def relevance_on_activations(
    embedding: SRAE, activations: Float[Tensor, "samples dims"]
) -> Float[Tensor, "samples features dims"]:
    r"""Share of every dimension of Z in the contrastive excitation backprop map of every x-feature.

    From an x-feature down each unit hands its relevance to its inputs in proportion to
    :math:`(w_{ij}h_j)^+` (Z and all hidden units are >= 0), and the same for the dual unit, with
    the weights of the x-layer negated. The difference on Z, its positive part, divided by its sum:
    what the heatmap of the x-feature starts from. A hidden unit that its bias alone keeps on passes
    nothing here, where the heatmap falls back to :math:`|w_{ij}h_j|`.

    Source: Zhang et al., 2016 (excitation backprop); its use in a loss is ours.

    Args:
        embedding: an SRAE.
        activations: Z >= 0, (M, S_z).

    Returns:
        (M, n, S_z), non-negative, each row of sum 1, or 0 where nothing is positive.

    Raises:
        XNNError: Z may be negative, where units have other inputs that agree with them.
    """
    if not embedding.nonnegative:
        raise XNNError("relevance on Z needs activations >= 0: attach to a layer after its ReLU")
    layers: list[Any] = list(embedding.encoder)
    hidden = [activations / embedding.scale]
    for layer in layers[:-1]:
        hidden.append(torch.relu(layer(hidden[-1])))
    weight, top = layers[-1].weight, hidden[-1]
    relevance = _shares(top, weight.clamp(min=0)) - _shares(top, (-weight).clamp(min=0))
    for layer, below in zip(layers[-2::-1], hidden[-2::-1], strict=True):
        positive = layer.weight.clamp(min=0)
        total = below @ positive.mT
        received = (relevance / _safe(total).unsqueeze(1)) @ positive
        relevance = below.unsqueeze(1) * received
    relevance = relevance.clamp(min=0)
    return relevance / _safe(relevance.sum(2, keepdim=True))


def _shares(
    hidden: Float[Tensor, "samples units"], weight: Float[Tensor, "features units"]
) -> Float[Tensor, "samples features units"]:
    """Winning probabilities of the inputs of each unit; by activity where no weight agrees."""
    won = hidden.unsqueeze(1) * weight
    total = won.sum(2, keepdim=True)
    activity = hidden / _safe(hidden.sum(1, keepdim=True))
    return torch.where(total > 0, won / _safe(total), activity.unsqueeze(1))


def _safe(total: Tensor) -> Tensor:
    """Denominators without zeros."""
    return torch.where(total > 0, total, torch.ones_like(total))
