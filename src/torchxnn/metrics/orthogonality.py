"""Whether the heatmaps of different x-features fall on different places (paper section 4.2)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.errors import DataError, XNNWarning


@dataclass(frozen=True)
class Orthogonality:
    r"""Correlation of the x-features' heatmaps; every figure is better when lower.

    Attributes:
        o1: :math:`\|P\|_F-\sqrt n` over the alive x-features (paper section 4.2, metric 2a); 0 is
            best. One x-feature alone gives 0 for nothing, so compare at equal `alive`.
        o2: :math:`-\log\det P` over the alive x-features (metric 2b), natural log; infinite if two
            maps always coincide.
        mean_squared_correlation: over all n(n-1) pairs, with a pair that has a dead x-feature
            counted as 1; the figure to compare methods by.
        alive: x-features that are not 0 on every positive and whose maps are not empty.
        n_features: n.
        maps: images whose maps were aggregated.
    """

    o1: float
    o2: float
    mean_squared_correlation: float
    alive: int
    n_features: int
    maps: int


class MapCovariance:
    """Covariance of n heatmaps over all pixels of all images, without keeping the maps."""

    def __init__(self, n_features: int) -> None:
        self._count, self._images = 0, 0
        self._sum = torch.zeros(n_features, dtype=torch.float64)
        self._products = torch.zeros(n_features, n_features, dtype=torch.float64)

    def update(self, heatmaps: Float[Tensor, "batch features *map"]) -> None:
        """Add the maps of a batch, of pixels or of voxels; negative relevance counts as 0."""
        flat = heatmaps.detach().cpu().double().clamp(min=0).transpose(0, 1).flatten(1)
        self._sum += flat.sum(1)
        self._products += flat @ flat.mT
        self._count += flat.shape[1]
        self._images += len(heatmaps)

    def covariance(self) -> Float[Tensor, "features features"]:
        """The covariance matrix C of the paper, (n, n), float64.

        Raises:
            DataError: no maps were added.
        """
        if self._count == 0:
            raise DataError("no heatmaps were given to measure orthogonality on")
        mean = self._sum / self._count
        return self._products / self._count - torch.outer(mean, mean)

    def result(self, dead: tuple[int, ...] = ()) -> Orthogonality:
        """O1, O2 and the mean squared correlation.

        Args:
            dead: x-features that are 0 on every positive. A dead x-feature still has a map, so it
                is left out by the test on E, with a warning. So is one whose maps are 0 everywhere.
        """
        covariance = self.covariance()
        n = len(covariance)
        empty = (covariance.diagonal() <= 0).nonzero().flatten().tolist()
        out = {*dead, *empty}
        alive = [i for i in range(n) if i not in out]
        if out:
            warnings.warn(
                f"{len(set(dead))} dead x-feature(s) and {len(out - set(dead))} with empty maps "
                "left out of O1 and O2; compare methods by mean_squared_correlation",
                XNNWarning,
                stacklevel=2,
            )
        inside = correlation(covariance[alive][:, alive])
        squared = torch.ones(n, n, dtype=torch.float64)
        index = torch.tensor(alive, dtype=torch.long)
        squared[index.unsqueeze(1), index] = inside.square()
        different = float(squared.sum() - squared.diagonal().sum())
        return Orthogonality(
            o1=float(inside.norm()) - math.sqrt(len(alive)),
            o2=_minus_log_det(inside),
            mean_squared_correlation=different / max(1, n * (n - 1)),
            alive=len(alive),
            n_features=n,
            maps=self._images,
        )


def _minus_log_det(matrix: Float[Tensor, "features features"]) -> float:
    """O2; infinite for a singular matrix, whose determinant rounding may make negative."""
    if len(matrix) == 0:
        return 0.0
    eigenvalues = torch.linalg.eigvalsh(matrix)
    if float(eigenvalues.min()) <= 1e-12:
        return math.inf
    return max(0.0, -float(eigenvalues.log().sum()))


def correlation(
    covariance: Float[Tensor, "features features"],
) -> Float[Tensor, "features features"]:
    r""":math:`P=\mathrm{diag}(C)^{-1/2}\,C\,\mathrm{diag}(C)^{-1/2}` (paper section 4.2).

    A map without variance (zero everywhere) has no correlations; they are set to 0 here.
    """
    variance = covariance.diagonal()
    scale = torch.where(variance > 0, variance, 1.0).sqrt()
    matrix = covariance / torch.outer(scale, scale)
    return matrix - torch.diag(matrix.diagonal()) + torch.eye(len(matrix), dtype=matrix.dtype)
