"""Which x-features of two fits correspond, by the correlation of their values."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.embeddings.linear import CONSTANT
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


def partial_out(
    values: Float[Tensor, "images features"], what: Float[Tensor, " rows"]
) -> Float[Tensor, "images features"]:
    r"""What is left of each column when its linear dependence on a number per image is taken out.

    .. math:: e_l-\bar e_l-\frac{\sum_i(w_i-\bar w)e_{il}}{\sum_i(w_i-\bar w)^2}(w-\bar w)

    Contributions to a logit rise and fall with it, so they all correlate; without it is left what
    tells them apart. A column of which no more than rounding is left is exactly 0.

    Args:
        values: (M, n).
        what: w, (M,), such as the logit.

    Returns:
        (M, n), float64.

    Raises:
        DataError: no images, or different numbers of images.
        NonFiniteError: a value is NaN or infinite.
    """
    if len(values) != len(what) or len(values) == 0:
        raise DataError(f"{len(values)} images of x-features, but {len(what)} of what to take out")
    check_finite("an x-feature, or what is taken out of it, is NaN or infinite", values)
    check_finite("an x-feature, or what is taken out of it, is NaN or infinite", what)
    columns, row = values.detach().cpu().double(), what.detach().cpu().double()
    row = row - row.mean()
    centred = columns - columns.mean(0)
    slope = row @ centred / row.square().sum().clamp(min=torch.finfo(row.dtype).tiny)
    left = centred - row.unsqueeze(1) * slope
    return torch.where(left.norm(dim=0) > CONSTANT * columns.norm(dim=0), left, 0.0)


def match_features(similarity: Float[Tensor, "features others"]) -> tuple[int, ...]:
    """For every row the column it is matched with, so that the sum of similarities is largest.

    Source: Kuhn, The Hungarian method for the assignment problem, 1955. The similarity (n, m), such
    as from `feature_correlation` or of maps, is signed: an x-feature that is on where another is
    off is not the same concept. There may be more columns than rows; some are then left over.

    Raises:
        DataError: there are no x-features, or fewer columns than rows.
        NonFiniteError: a similarity is NaN or infinite.
    """
    from scipy.optimize import linear_sum_assignment

    if len(similarity) == 0:
        raise DataError("there are no x-features to match")
    if len(similarity) > similarity.shape[1]:
        raise DataError("{} x-features cannot be matched with {}".format(*similarity.shape))
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
