"""Non-negative matrix factorisation of Z, as in CRAFT (Fel et al. 2023, arXiv 2211.10154)."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from scipy.optimize import nnls
from torch import Tensor, nn

from torchxnn.embeddings.concepts import (
    ConceptEmbedding,
    blank_linear,
    check_activations,
    import_sklearn,
)
from torchxnn.errors import DataError, NonFiniteError, XNNWarning

ROWS_AT_ONCE = 1024
ROUNDS = 100
"""Exchanges between zero and positive codes before a sample goes to the slow solver."""

RIDGE = 1e-10
"""Added to the dictionary's unit diagonal, so that codes are unique even for equal concepts."""


class NMFConcepts(ConceptEmbedding):
    r"""Codes of a non-negative dictionary, :math:`E(z)=\arg\min_{E\ge0}\|z-EH\|^2`.

    The rows of H have norm 1, so a code is in the units of Z. `encode` solves the non-negative
    least squares problem exactly. That solution is no composition of network operations, so `units`
    are the projections :math:`Hz` on the concepts: like CRAFT, a heatmap shows where the concept's
    direction is present in the image, not what the code keeps after all concepts competed for it.

    Args:
        dims: S_z.
        n_features: n, number of concepts.
        n_targets: k.
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
        dictionary = self.dictionary.double()
        products = activations.double() @ dictionary.mT
        codes = nonnegative_codes(dictionary @ dictionary.mT, products)
        return codes.to(activations.dtype)

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
        share = float((activations < 0).double().mean())
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
    r"""Non-negative least squares for many samples at once, exact up to rounding.

    .. math:: \min_{E\ge0}\tfrac12E^\top GE-p^\top E,\qquad G=HH^\top,\ p=Hz

    Block principal pivoting: guess which codes are positive, solve for them, exchange those that
    break the optimality conditions (E >= 0, GE - p >= 0, and their product 0) until none does.

    Source: Kim and Park, Fast nonnegative matrix factorization, SIAM J. Sci. Comput. 33 (2011).

    Args:
        gram: G, (n, n), float64. A concept with diagonal 0 is dead and gets code 0.
        products: p, (M, n), float64.

    Returns:
        E, (M, n), float64.

    Raises:
        NonFiniteError: NaN or infinity.
    """
    if not bool(torch.isfinite(gram).all() & torch.isfinite(products).all()):
        raise NonFiniteError("the activations or the dictionary contain NaN or infinite values")
    size = gram.diagonal().sqrt()
    size = torch.where(size > 0, size, 1.0)
    scaled = gram / torch.outer(size, size)
    scaled = scaled.fill_diagonal_(1.0 + RIDGE)
    parts = [_pivot(scaled, part / size) for part in products.split(ROWS_AT_ONCE)]
    return torch.cat(parts) / size if parts else products


def _pivot(
    gram: Float[Tensor, "features features"], products: Float[Tensor, "samples features"]
) -> Float[Tensor, "samples features"]:
    n = products.shape[1]
    rounding = 1e-12 * products.abs().amax(1, keepdim=True)
    positive = products > rounding
    codes = _solve(gram, products, positive)
    fewest = products.new_full((len(products),), n + 1)
    spare = torch.full_like(fewest, 3)
    for _ in range(ROUNDS):
        wrong = _wrong(gram, products, positive, codes, rounding)
        rows = wrong.any(1).nonzero().flatten()
        if len(rows) == 0:
            break
        count = wrong[rows].sum(1).to(fewest)
        better = count < fewest[rows]
        fewest[rows] = torch.where(better, count, fewest[rows])
        spare[rows] = torch.where(better, 3, spare[rows] - 1)
        # Exchanging all at once may cycle; exchanging only the last one cannot.
        last = wrong[rows] & (wrong[rows].flip(1).cumsum(1).flip(1) == 1)
        exchanged = torch.where((spare[rows] >= 0).unsqueeze(1), wrong[rows], last)
        positive[rows] ^= exchanged
        codes[rows] = _solve(gram, products[rows], positive[rows])
    else:
        rows = _wrong(gram, products, positive, codes, rounding).any(1).nonzero().flatten()
        codes[rows] = _one_by_one(gram, products[rows])
    return codes.clamp(min=0)


def _solve(
    gram: Float[Tensor, "features features"],
    products: Float[Tensor, "samples features"],
    positive: Bool[Tensor, "samples features"],
) -> Float[Tensor, "samples features"]:
    both = positive.unsqueeze(1) & positive.unsqueeze(2)
    matrix = torch.where(both, gram, 0.0) + torch.diag_embed((~positive).to(gram))
    return torch.linalg.solve(matrix, torch.where(positive, products, 0.0))


def _wrong(
    gram: Float[Tensor, "features features"],
    products: Float[Tensor, "samples features"],
    positive: Bool[Tensor, "samples features"],
    codes: Float[Tensor, "samples features"],
    rounding: Float[Tensor, "samples 1"],
) -> Bool[Tensor, "samples features"]:
    slope = codes @ gram - products
    return torch.where(positive, codes < -rounding, slope < -rounding)


def _one_by_one(
    gram: Float[Tensor, "features features"], products: Float[Tensor, "samples features"]
) -> Float[Tensor, "samples features"]:
    """The same by Lawson and Hanson's active set method, on a Cholesky factor of G."""
    factor = torch.linalg.cholesky(gram)
    sides = torch.linalg.solve_triangular(factor, products.mT, upper=False).mT
    matrix = factor.mT.cpu().numpy()
    solved = [torch.from_numpy(nnls(matrix, side)[0]) for side in sides.cpu().numpy()]
    return torch.stack(solved).to(products) if solved else products
