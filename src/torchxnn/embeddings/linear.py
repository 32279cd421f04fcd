"""Means, moments and linear maps in closed form."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def weighted_mean(
    values: Float[Tensor, "*fits samples dims"],
    weights: Float[Tensor, "*fits samples"] | None = None,
) -> Float[Tensor, "*fits dims"]:
    r"""Mean over the samples, :math:`\sum_i w_i x_i / \sum_i w_i`.

    Args:
        values: (..., M, d).
        weights: (..., M), non-negative, any scale; None weighs all samples alike.
    """
    if weights is None:
        return values.mean(-2)
    return (normalised(weights).unsqueeze(-2) @ values).squeeze(-2)


def normalised(weights: Float[Tensor, "*fits samples"]) -> Float[Tensor, "*fits samples"]:
    """Weights (..., M) divided by their sum."""
    return weights / weights.sum(-1, keepdim=True)


def second_moments(
    features: Float[Tensor, "*fits samples features"],
    weights: Float[Tensor, "*fits samples"] | None = None,
) -> Float[Tensor, "*fits features features"]:
    r"""Mean outer product :math:`\frac1M\sum_i E^{(i)}E^{(i)\top}`, (..., n, n)."""
    root = torch.full_like(features[..., 0], 1.0) if weights is None else weights
    return features.mT @ (features * normalised(root).unsqueeze(-1))


RIDGE = 1e-3
"""Share of the mean variance that is added to the diagonal when a linear map is fitted."""


def fit_linear(
    inputs: Float[Tensor, "samples dims"],
    outputs: Float[Tensor, "samples targets"],
    weights: Float[Tensor, " samples"],
    ridge: float = RIDGE,
) -> tuple[Float[Tensor, "targets dims"], Float[Tensor, " targets"]]:
    """Weighted ridge regression in closed form, solved in float64.

    Args:
        inputs: (M, d).
        outputs: (M, k).
        weights: (M,) sample weights.
        ridge: penalty as a share of the mean variance of the inputs.

    Returns:
        Weight (k, d) and intercept (k,).
    """
    inputs64, outputs64, weights64 = inputs.double(), outputs.double(), weights.double()
    mean_in, mean_out = weighted_mean(inputs64, weights64), weighted_mean(outputs64, weights64)
    centred = inputs64 - mean_in
    covariance = second_moments(centred, weights64)
    cross = centred.mT @ ((outputs64 - mean_out) * (weights64 / weights64.sum()).unsqueeze(1))
    damping = ridge * covariance.diagonal().mean() + torch.finfo(torch.float64).tiny
    eye = torch.eye(len(covariance), dtype=torch.float64, device=inputs.device)
    weight = torch.linalg.lstsq(covariance + damping * eye, cross).solution.mT
    return weight.to(inputs.dtype), (mean_out - weight @ mean_in).to(inputs.dtype)
