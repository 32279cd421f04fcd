"""The relevance that each x-feature sends to Z, as a differentiable function of the embedding."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def relevance_through(
    weights: list[Tensor], biases: list[Tensor], inputs: Float[Tensor, "samples dims"]
) -> Float[Tensor, "samples features dims"]:
    r"""Share of every input in what speaks for every x-feature.

    At each sample the encoder is one linear map J of its inputs, its effective weights. What
    :math:`(J_{ij}z_j)^+` is of its sum over the inputs is the positive part of the contrastive
    excitation backprop map on Z, drawn as x-features on vectors are drawn by default
    (`EffectiveExcitationBackprop`). The ReLU of an x-feature counts as on, so that one that is off
    learns, too.

    Source: Zhang et al., 2016 (excitation backprop); its use in a loss is ours. Weights and biases
    are those of the encoder's layers, from the input up; inputs are scaled Z >= 0.

    Returns:
        (M, n, S_z), non-negative, each row of sum 1, or 0 where nothing speaks for it.
    """
    on, hidden = [], inputs
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden = torch.relu(torch.nn.functional.linear(hidden, weight, bias))
        on.append(hidden > 0)
    effective = weights[-1].expand(len(inputs), -1, -1)
    for weight, passing in zip(weights[-2::-1], on[::-1], strict=True):
        effective = (effective * passing.unsqueeze(1)) @ weight
    agreeing = (effective * inputs.unsqueeze(1)).clamp(min=0)
    return agreeing / _safe(agreeing.sum(2, keepdim=True))


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


def _safe(total: Tensor) -> Tensor:
    """Denominators without zeros."""
    return torch.where(total > 0, total, torch.ones_like(total))
