"""Which x-features of two fits correspond, by the correlation of their values."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from torchxnn.errors import DataError, check_finite


def feature_correlation(
    first: Float[Tensor, "images first"], second: Float[Tensor, "others second"]
) -> Float[Tensor, "first second"]:
    """Pearson correlation of every x-feature of one fit with every one of another.

    One that does not vary, such as a dead x-feature, has correlation 0 with all. E of both fits,
    (M, n), is of the same images in the same order.

    Returns:
        (n, n), float64, in [-1, 1].

    Raises:
        DataError: no images, or different numbers of images.
        NonFiniteError: a value is NaN or infinite.
    """
    if len(first) != len(second) or len(first) == 0:
        raise DataError(
            f"fits must be compared on the same images, got {len(first)} and {len(second)}"
        )
    a, b = _unit_columns(first), _unit_columns(second)
    return (a.T @ b).clamp(-1, 1)


def match_features(similarity: Float[Tensor, "features features"]) -> tuple[int, ...]:
    """For every row the column it is matched with, so that the sum of similarities is largest.

    Source: Kuhn, The Hungarian method for the assignment problem, 1955. The similarity (n, n), such
    as from `feature_correlation` or of maps, is signed: an x-feature that is on where another is
    off is not the same concept.

    Raises:
        DataError: there are no x-features.
        NonFiniteError: a similarity is NaN or infinite.
    """
    if len(similarity) == 0:
        raise DataError("there are no x-features to match")
    check_finite("a similarity of two x-features is NaN or infinite", similarity)
    _, columns = linear_sum_assignment(similarity.detach().cpu().numpy(), maximize=True)
    return tuple(int(column) for column in columns)


def constant(features: Float[Tensor, "images features"]) -> Bool[Tensor, " features"]:
    """Which x-features do not vary; the rounded mean of a constant need not be the constant."""
    return features.amax(0) == features.amin(0)


def _unit_columns(features: Float[Tensor, "images features"]) -> Float[Tensor, "images features"]:
    """Centred columns of length 1; those that do not vary are 0."""
    check_finite("an x-feature of a fit is NaN or infinite", features)
    values = features.detach().cpu().double()
    centred = torch.where(constant(values), 0.0, values - values.mean(0))
    norm = centred.norm(dim=0)
    return centred / torch.where(norm > 0, norm, 1.0)
