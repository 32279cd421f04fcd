"""The relevance that each x-feature sends to Z, as a differentiable function of the embedding."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def relevance_through(
    weights: list[Tensor], biases: list[Tensor], inputs: Float[Tensor, "samples dims"]
) -> Float[Tensor, "samples features dims"]:
    r"""Share of every input in the contrastive excitation backprop map of every x-feature.

    From an x-feature down each unit hands its relevance to its inputs in proportion to
    :math:`(w_{ij}h_j)^+` (Z and all hidden units are >= 0), and the same for the dual unit, with
    the weights of the x-layer negated. The difference on Z, its positive part, divided by its sum:
    what the heatmap of the x-feature starts from. A hidden unit that its bias alone keeps on passes
    nothing here, where the heatmap falls back to :math:`|w_{ij}h_j|`.

    Source: Zhang et al., 2016 (excitation backprop); its use in a loss is ours. Weights and biases
    are those of the encoder's layers, from the input up; inputs are scaled Z >= 0.

    Returns:
        (M, n, S_z), non-negative, each row of sum 1, or 0 where nothing is positive.
    """
    hidden = [inputs]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden.append(torch.relu(torch.nn.functional.linear(hidden[-1], weight, bias)))
    weight, top = weights[-1], hidden[-1]
    relevance = _shares(top, weight.clamp(min=0)) - _shares(top, (-weight).clamp(min=0))
    for weight, below in zip(weights[-2::-1], hidden[-2::-1], strict=True):
        positive = weight.clamp(min=0)
        total = below @ positive.mT
        received = (relevance / _safe(total).unsqueeze(1)) @ positive
        relevance = below.unsqueeze(1) * received
    relevance = relevance.clamp(min=0)
    return relevance / _safe(relevance.sum(2, keepdim=True))


def relevance_moments(
    relevance: Float[Tensor, "samples features dims"],
) -> tuple[Float[Tensor, "features features"], Float[Tensor, "1 features"]]:
    """Second and first moments of the relevance, over all samples and dimensions.

    Times the number of dimensions, so that a map that looks everywhere alike is 1 everywhere. Zero
    if there are no samples.
    """
    flat = relevance.transpose(1, 2).flatten(0, 1) * relevance.shape[2]
    count = max(1, len(flat))
    return flat.mT @ flat / count, flat.sum(0, keepdim=True) / count


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
