"""The Lasso on Z, along its path: few dimensions of Z that reproduce a logit (paper section 4.2).

Coordinate descent of scikit-learn on the Gram matrix of Z, one grid of penalties downwards, each
fit from the one before. With more samples than dimensions the Gram matrix is what saves time: on
1,500 samples of 1,024 dimensions this took less than celer 0.7 and skglm 0.5, without their
dependencies and without compiling first.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from torchxnn.embeddings.apply import anchor
from torchxnn.embeddings.concepts import check_activations, import_sklearn
from torchxnn.embeddings.dimensions import SelectedDimensions, select_dimensions
from torchxnn.embeddings.linear import CONSTANT, check_weights
from torchxnn.errors import DataError, XNNError, XNNWarning, check_finite

STEP = 0.97
"""Each penalty of the path is this share of the one before."""

STEPS_AT_ONCE = 16
TOLERANCE = 1e-7
GAP_LIMIT = 1e-6
"""Largest relative duality gap of a fit that counts as converged."""


@dataclass(frozen=True, eq=False)
class LassoPoint:
    """One fit on the path.

    Attributes:
        ratio: alpha / alpha_max; comparable between layers and networks.
        alpha: weight of the L1 norm, in the units of Z times those of the logit.
        index: dimensions of Z with a coefficient other than 0, in ascending order.
        coefficients: theirs, not refitted: the Lasso's own, shrunken ones, as in the paper.
        intercept: not penalised.
        duality_gap: upper bound of how far the objective is above its optimum, as a share of the
            objective with all coefficients 0.
    """

    ratio: float
    alpha: float
    index: tuple[int, ...]
    coefficients: tuple[float, ...]
    intercept: float
    duality_gap: float

    @property
    def selected(self) -> int:
        """Num_x of paper tables .4 and .6: number of selected dimensions."""
        return len(self.index)

    @property
    def converged(self) -> bool:
        """Whether the duality gap is below the limit."""
        return self.duality_gap <= GAP_LIMIT


@dataclass(frozen=True, eq=False)
class LassoPath:
    """Fits of one logit at falling penalties.

    Attributes:
        alpha_max: the smallest penalty at which no dimension is selected.
        points: in the order of falling alpha; the first, at `alpha_max`, selects nothing.
    """

    alpha_max: float
    points: tuple[LassoPoint, ...]

    def nearest(self, selected: int) -> LassoPoint:
        """The fit whose number of selected dimensions is nearest, and at least 1.

        Of equally near ones, the one with the smallest penalty: it shrinks least, so it is the most
        faithful.

        Raises:
            XNNError: fewer than one dimension is asked for.
        """
        if selected < 1:
            raise XNNError(f"selected is {selected}; an embedding has at least 1 dimension")
        return min(
            (point for point in self.points if point.selected),
            key=lambda point: (abs(point.selected - selected), point.ratio),
        )


@dataclass(frozen=True, eq=False)
class _Problem:
    """The weighted Lasso without its intercept: centred, scaled by the roots of the weights."""

    x: np.ndarray
    y: np.ndarray
    mean_x: np.ndarray
    mean_y: float
    gram: np.ndarray
    cross: np.ndarray


def fit_lasso_path(
    activations: Float[Tensor, "samples *dims"],
    logits: Float[Tensor, " rows"],
    weights: Float[Tensor, " entries"] | None = None,
    most: int = 232,
    smallest_ratio: float = 1e-4,
) -> LassoPath:
    r"""The Lasso path of one logit on Z, from no dimension to `most` of them.

    .. math:: \min_{b,c}\frac1{2\sum_mw_m}\sum_mw_m(\hat y^{(m)}-b^\top z^{(m)}-c)^2
              +\alpha\|b\|_1

    Z is not standardised, as in the paper. Alpha falls by 3% per step from alpha_max, the smallest
    one at which nothing is selected, until `most` dimensions are selected.

    Source: paper section 4.2 and tables .4 and .6, whose absolute alphas depend on the scale of Z.

    Args:
        activations: Z, (M, S_z).
        logits: (M,), of one target.
        weights: (M,) sample weights, any scale; None weighs all samples alike.
        most: selected dimensions at which the path ends.
        smallest_ratio: alpha / alpha_max at which it ends at the latest.

    Raises:
        DataError: the logit or Z does not vary, or sizes do not match.
        NonFiniteError: NaN or infinity.
        XNNError: scikit-learn is not installed, or settings out of range.

    Example:
        >>> path = fit_lasso_path(train.z, train.logits[:, 47])
        >>> [path.nearest(count).ratio for count in (5, 8, 21, 68, 232)]
    """
    check_activations(activations, 1)
    if most < 1 or not 0 < smallest_ratio < 1:
        raise XNNError(
            f"most is {most} and smallest_ratio {smallest_ratio}; "
            "they must be at least 1 and between 0 and 1"
        )
    problem = _prepare(activations, logits, check_weights(weights, activations))
    alpha_max = float(np.abs(problem.cross).max())
    if alpha_max == 0:
        raise DataError("the Lasso has nothing to select: the logit does not vary with Z")
    ratios, coefficients = _descend(problem, alpha_max, most, smallest_ratio)
    points = _as_points(problem, alpha_max, ratios, coefficients)
    _warn_of_gaps(points)
    return LassoPath(alpha_max, points)


def lasso_embedding(
    point: LassoPoint,
    activations: Float[Tensor, "samples dims"],
    positives: Bool[Tensor, " samples"] | None = None,
) -> SelectedDimensions:
    """The selected dimensions as concepts, read by the Lasso's own coefficients.

    The decoder is fitted to `activations`, Z of the training set. Contributions are counted from
    what the images that are not `positives` get; without these they are not anchored.

    Raises:
        DataError: the point selects nothing.
    """
    index = torch.tensor(point.index, dtype=torch.long, device=activations.device)
    embedding = select_dimensions(activations, index)
    with torch.no_grad():
        embedding.readout.weight.copy_(torch.tensor([point.coefficients]))
        embedding.readout.bias.copy_(torch.tensor([point.intercept]))
    if positives is not None:
        anchor(embedding, activations, positives.unsqueeze(1))
    return embedding


def fit_lasso(
    activations: Float[Tensor, "samples dims"],
    logits: Float[Tensor, " samples"],
    n_concepts: int,
    weights: Float[Tensor, " samples"] | None = None,
    positives: Bool[Tensor, " samples"] | None = None,
) -> SelectedDimensions:
    """The fit on the Lasso path whose number of dimensions is nearest to `n_concepts`.

    See `fit_lasso_path` for arguments and errors, and `lasso_embedding` for `positives`.
    """
    path = fit_lasso_path(activations, logits, weights, most=n_concepts)
    return lasso_embedding(path.nearest(n_concepts), activations, positives)


def _prepare(
    activations: Float[Tensor, "samples dims"],
    logits: Float[Tensor, " rows"],
    weights: Float64[Tensor, " samples"],
) -> _Problem:
    if logits.shape != (len(activations),):
        raise DataError(
            f"the Lasso reproduces one logit per sample, ({len(activations)},), got shape "
            f"{tuple(logits.shape)}"
        )
    check_finite("the logits contain NaN or infinite values", logits)
    shares = (weights / weights.sum()).cpu().numpy()
    x, y = (values.cpu().double().numpy() for values in (activations, logits))
    mean_x, mean_y = shares @ x, float(shares @ y)
    varies = [_varies(column, shares) for column in (y[:, None], x)]
    if not all(varies):
        raise DataError(
            f"the Lasso has nothing to select: {'Z' if varies[0] else 'the logit'} "
            "is the same on all samples that have a weight"
        )
    # scikit-learn divides by the number of samples, so the weights have to sum to it.
    root = np.sqrt(shares * len(shares))
    x, y = np.asfortranarray((x - mean_x) * root[:, None]), (y - mean_y) * root
    return _Problem(x, y, mean_x, mean_y, x.T @ x / len(y), x.T @ y / len(y))


def _varies(columns: np.ndarray, shares: np.ndarray) -> bool:
    """Whether any column varies by more than rounding."""
    deviation = shares @ np.square(columns - shares @ columns)
    return bool((deviation > CONSTANT**2 * (shares @ np.square(columns))).any())


def _descend(
    problem: _Problem, alpha_max: float, most: int, smallest_ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Ratios (T,) and coefficients (T, S_z) down to `most` dimensions or the smallest ratio."""
    path = import_sklearn("linear_model").lasso_path
    failure = import_sklearn("exceptions").ConvergenceWarning
    size = len(problem.y)
    shared: dict[str, Any] = {"precompute": problem.gram * size, "Xy": problem.cross * size}
    found, used = [np.zeros((1, len(problem.cross)))], [1.0]
    while used[-1] * STEP >= smallest_ratio:
        wanted = used[-1] * STEP ** np.arange(1, STEPS_AT_ONCE + 1)
        wanted = wanted[wanted >= smallest_ratio]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", failure)  # the duality gap is judged below
            _, rows, _ = path(
                problem.x,
                problem.y,
                alphas=alpha_max * wanted,
                coef_init=found[-1][-1].copy(),  # it is overwritten
                tol=TOLERANCE,
                max_iter=10_000,
                **shared,
            )
        found.append(rows.T)
        used.extend(wanted)
        if ((found[-1] != 0).sum(1) >= most).any():
            break
    return np.array(used), np.concatenate(found)


def _as_points(
    problem: _Problem, alpha_max: float, ratios: np.ndarray, coefficients: np.ndarray
) -> tuple[LassoPoint, ...]:
    gaps = _duality_gaps(problem, alpha_max * ratios, coefficients).tolist()
    return tuple(
        LassoPoint(
            ratio=ratio,
            alpha=alpha_max * ratio,
            index=tuple(np.flatnonzero(row).tolist()),
            coefficients=tuple(row[row != 0].tolist()),
            intercept=float(problem.mean_y - row @ problem.mean_x),
            duality_gap=gap,
        )
        for ratio, row, gap in zip(ratios.tolist(), coefficients, gaps, strict=True)
    )


def _duality_gaps(problem: _Problem, alphas: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    r"""Primal minus dual objective, at the residual shrunk until it is feasible in the dual.

    With r the residual, :math:`s=\min(1,\alpha/\|X^\top r\|_\infty)` and means over samples,
    :math:`\tfrac12\|r\|^2+\alpha\|b\|_1-(s\,y^\top r-\tfrac12s^2\|r\|^2)`.
    """
    total = float(problem.y @ problem.y) / len(problem.y)
    fitted = coefficients @ problem.gram
    explained = coefficients @ problem.cross
    residual = total - 2 * explained + (coefficients * fitted).sum(1)
    steepest = np.abs(problem.cross - fitted).max(1)
    shrink = np.minimum(1.0, alphas / np.maximum(steepest, np.finfo(float).tiny))
    primal = residual / 2 + alphas * np.abs(coefficients).sum(1)
    dual = shrink * (total - explained) - shrink**2 * residual / 2
    return (primal - dual) / (total / 2)


def _warn_of_gaps(points: tuple[LassoPoint, ...]) -> None:
    open_ones = [point for point in points if not point.converged]
    if open_ones:
        worst = max(open_ones, key=lambda point: point.duality_gap)
        warnings.warn(
            f"{len(open_ones)} of {len(points)} fits of the Lasso path did not converge; the "
            f"largest relative duality gap is {worst.duality_gap:.2g}, with {worst.selected} "
            "dimensions; end the path earlier (smallest_ratio)",
            XNNWarning,
            stacklevel=3,
        )
