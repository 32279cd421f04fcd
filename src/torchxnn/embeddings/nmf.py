"""Non-negative matrix factorisation of Z, as in CRAFT (Fel et al. 2023, arXiv 2211.10154)."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.embeddings.concepts import (
    ConceptEmbedding,
    blank_linear,
    check_activations,
    import_sklearn,
)
from torchxnn.embeddings.exact import back, exact
from torchxnn.errors import DataError, XNNWarning, check_finite

RIDGE = 1e-10
"""Added to the dictionary's unit diagonal, so that codes are unique even for equal concepts."""


class NMFConcepts(ConceptEmbedding):
    r"""Codes of a non-negative dictionary, :math:`E(z)=\arg\min_{E\ge0}\|z-EH\|^2`.

    The rows of H have norm 1, so a code is in the units of Z. `encode` solves the non-negative
    least squares problem exactly. That solution is no composition of network operations, so `units`
    are the projections :math:`Hz` on the concepts: like CRAFT, a heatmap shows where the concept's
    direction is present in the image, not what the code keeps after all concepts competed for it.
    For its arguments see `ConceptEmbedding`.
    """

    kind = "nmf"

    def __init__(self, dims: int, n_features: int, n_targets: int = 1) -> None:
        super().__init__(dims, n_features, n_targets)
        self.projection = blank_linear(dims, n_features, bias=False)

    @property
    def dictionary(self) -> Float[Tensor, "features dims"]:
        """H, (n, S_z), rows of norm 1 or, for a dead concept, 0."""
        return self.projection.weight

    @torch.no_grad()
    def encode(self, activations: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch features"]:
        """Codes E >= 0 of activations Z, (B, S_z) -> (B, n); without gradients."""
        dictionary = exact(self.dictionary)
        products = exact(activations) @ dictionary.mT
        codes = nonnegative_codes(dictionary @ dictionary.mT, products)
        return back(codes, activations)

    def decode(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch dims"]:
        """Reconstruction EH, (B, n) -> (B, S_z)."""
        return features @ self.dictionary

    def units(self) -> nn.Module:
        """Projections of Z on the concepts."""
        return self.projection


@torch.no_grad()
def fit_nmf(
    activations: Float[Tensor, "samples *dims"],
    n_concepts: int,
    seed: int = 0,
    init: Literal["nndsvda", "nndsvd", "random"] = "nndsvda",
    iterations: int = 1000,
    tolerance: float = 1e-4,
) -> NMFConcepts:
    r"""Factorise non-negative activations, :math:`\min_{E,H\ge0}\|Z-EH\|_F^2`; no readout yet.

    Coordinate descent of scikit-learn. CRAFT factorises activations of random crops of one class;
    here Z of all training images is factorised, like for the other methods.

    Args:
        activations: Z >= 0, (M, S_z).
        n_concepts: n, at most min(M, S_z).
        seed: of the start. "nndsvda", the default of scikit-learn, hardly depends on it; "random"
            does, and shows how stable the concepts are.
        init: start of the factorisation.
        iterations: most iterations; a factorisation that needs more gives a warning.
        tolerance: change of the projected gradient, relative to the first, that ends it.

    Raises:
        DataError: negative activations, or more concepts than samples or dimensions.
        NonFiniteError: NaN or infinity.
        XNNError: scikit-learn is not installed.

    Example:
        >>> concepts = fit_nmf(train.z, n_concepts=25)
        >>> concepts.encode(test.z)      # (M, 25)
    """
    check_activations(activations, n_concepts)
    if bool((activations < 0).any()):
        share = float(exact(activations < 0).mean())
        raise DataError(
            f"NMF needs activations >= 0, but {share:.1%} are negative (least "
            f"{float(activations.min()):.3g}); attach to a layer after its ReLU, or use PCA"
        )
    factors = import_sklearn("decomposition").NMF(
        n_concepts, init=init, random_state=seed, max_iter=iterations, tol=tolerance
    )
    _fit_with_own_warning(factors, activations)
    found = torch.from_numpy(factors.components_).to(activations)
    embedding = NMFConcepts(activations.shape[1], n_concepts).to(activations.device)
    embedding.projection.weight.copy_(nn.functional.normalize(found, dim=1))
    return embedding


def _fit_with_own_warning(factors: Any, activations: Float[Tensor, "samples dims"]) -> None:
    failure = import_sklearn("exceptions").ConvergenceWarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", failure)
        factors.fit(activations.cpu().numpy())
    if factors.n_iter_ >= factors.max_iter:
        warnings.warn(
            f"NMF with {factors.n_components} concepts did not converge in {factors.max_iter} "
            "iterations; give it more",
            XNNWarning,
            stacklevel=3,
        )


def nonnegative_codes(
    gram: Float[Tensor, "features features"], products: Float[Tensor, "samples features"]
) -> Float[Tensor, "samples features"]:
    r"""Non-negative least squares for many samples, exact up to rounding.

    .. math:: \min_{E\ge0}\tfrac12E^\top GE-p^\top E,\qquad G=HH^\top,\ p=Hz

    Lawson and Hanson's active set method of SciPy, sample by sample, on a Cholesky factor of G:
    exact, where coordinate descent (scikit-learn's `transform`) is not and takes ten times as long.

    Args:
        gram: G, (n, n), float64. A concept with diagonal 0 is dead and gets code 0.
        products: p, (M, n), float64.

    Returns:
        E, (M, n), float64.

    Raises:
        NonFiniteError: NaN or infinity.
    """
    from scipy.optimize import nnls

    check_finite("the activations or the dictionary contain NaN or infinite values", gram, products)
    alive = gram.diagonal() > 0
    size = torch.where(alive, gram.diagonal().sqrt(), 1.0)
    scaled = gram / torch.outer(size, size)
    scaled = scaled.fill_diagonal_(1.0 + RIDGE)
    factor = torch.linalg.cholesky(scaled)
    sides = torch.linalg.solve_triangular(factor, (products / size).mT, upper=False).mT
    matrix = factor.mT.cpu().numpy()
    codes = torch.zeros_like(products)
    for row, side in enumerate(sides.cpu().numpy()):
        codes[row] = torch.from_numpy(nnls(matrix, side)[0])
    return torch.where(alive, codes / size, 0.0)
