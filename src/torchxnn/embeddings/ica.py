"""Independent components of what the dimensions of Z contribute to a logit, among its positives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.embeddings.apply import anchor
from torchxnn.embeddings.concepts import check_activations, import_sklearn
from torchxnn.embeddings.directions import DirectionConcepts, as_directions
from torchxnn.embeddings.exact import back, exact
from torchxnn.embeddings.linear import CONSTANT, check_weights, exact_ridge
from torchxnn.errors import DataError, XNNWarning

RIDGE = 0.03
"""Penalty of the linear model of the logit, as a share of the mean variance of Z."""

STEPS = 2000
"""Most steps of FastICA."""

WHOLE = 8
"""Whole steps of a run among many, before half steps."""

CLOSE = 2.5e-7
"""Change of direction, as one less a cosine, below which a run among many has converged."""

FEW = 64
"""Columns, or up to twice as many, that are looked at first for whether rows vary in n ways."""


@torch.no_grad()
def fit_ica(
    activations: Float[Tensor, "samples *dims"],
    logits: Float[Tensor, " rows"],
    positives: Bool[Tensor, " rows"],
    n_concepts: int,
    weights: Float[Tensor, " rows"] | None = None,
    seed: int = 0,
) -> DirectionConcepts:
    r"""Split a linear model of the logit into parts that vary independently among the positives.

    With :math:`\hat y=u^\top z+b` fitted to all samples by ridge regression, the contributions
    :math:`a=u\odot z` of the positives are written as :math:`a\approx\mu+As` with independent
    s = S(a - mu) of variance 1, by FastICA (Hyvarinen 1999, Fast and robust fixed-point algorithms
    for independent component analysis). What component l adds to the logit,

    .. math:: E_l=\Big(\sum_jA_{jl}\Big)s_l=\Big(\sum_jA_{jl}\Big)S_l(u\odot z-\mu),

    is linear in z and in the units of the logit; the readout weighs all of them by 1 and adds
    :math:`b+\sum_j\mu_j`. Components that contribute most on the positives come first. No part
    labels are seen; over all samples instead of the positives, one component takes the whole logit.

    Args:
        activations: Z, (M, S_z).
        logits: (M,), that of one class.
        positives: (M,), the images of the class.
        n_concepts: n, less than the number of positives.
        weights: (M,) sample weights of the ridge regression; None weighs all samples alike.
        seed: of the start of FastICA.

    Raises:
        DataError: too few positives, or contributions that do not vary among them in n ways.
        NonFiniteError: NaN or infinity.
        XNNError: scikit-learn is not installed.

    Example:
        >>> concepts = fit_ica(train.z, train.logits[:, 7], train.labels == 7, n_concepts=5)
    """
    check_activations(activations, n_concepts)
    checked = check_weights(weights, activations)
    weight, bias = exact_ridge(activations, logits.unsqueeze(1), checked, RIDGE)
    contributions = exact(activations[positives]) * weight[0]
    mean = contributions.mean(0)
    centred = contributions - mean
    check_ways(centred, n_concepts, "contributions")
    unmixing, mixing, converged = unmix(centred, n_concepts, seed)
    if not converged:
        warnings.warn(
            f"independent components did not converge on {len(centred)} positives; take fewer "
            "concepts or more positives",
            XNNWarning,
            stacklevel=2,
        )
    share = mixing.sum(0)
    order = share.abs().argsort(descending=True, stable=True)
    rows = (share.unsqueeze(1) * unmixing)[order]
    embedding = as_directions(
        back(rows * weight[0], activations), back(-(rows @ mean), activations), activations
    )
    embedding.readout.weight.fill_(1.0)
    embedding.readout.bias.copy_(back(bias + mean.sum(), activations))
    anchor(embedding, activations, positives.unsqueeze(1))
    return embedding


def unmix(
    rows: Float[Tensor, "rows ways"], n_concepts: int, seed: int, steps: int = STEPS
) -> tuple[Float[Tensor, "concepts ways"], Float[Tensor, "ways concepts"], bool]:
    r"""One run of FastICA (scikit-learn) on centred rows a, (P, K), of so many steps at most.

    Returns:
        S (n, K) and A (K, n) of :math:`s=Sa` and :math:`a\approx As`, and whether it converged.

    Raises:
        XNNError: scikit-learn is not installed.
    """
    failure = import_sklearn("exceptions").ConvergenceWarning
    analysis = import_sklearn("decomposition").FastICA(
        n_concepts, random_state=seed, whiten="unit-variance", max_iter=steps, tol=1e-3
    )
    # whitening divides by all singular values, and leaves out those that are 0 afterwards
    zero = np.errstate(divide="ignore", invalid="ignore")
    with zero, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", failure)
        analysis.fit(rows.cpu().numpy())
    unmixing, mixing = (
        torch.from_numpy(part).to(rows) for part in (analysis.components_, analysis.mixing_)
    )
    return unmixing, mixing, not any(issubclass(each.category, failure) for each in caught)


@torch.no_grad()
def unmix_many(
    rows: Float[Tensor, "some rows ways"], n_concepts: int, seeds: Sequence[int], steps: int
) -> tuple[Float[Tensor, "runs concepts ways"], Bool[Tensor, " runs"]]:
    r"""Runs of FastICA at once, one per seed, that converge on a few dozen rows too.

    Whitening, start and step are those of `unmix`: with W of orthonormal rows and white x,

    .. math:: W^+=\Big(E[\tanh(Wx)x^\top]-\mathrm{diag}\,E[1-\tanh^2(Wx)]W\Big)_\perp

    where :math:`\perp` makes the rows orthonormal (Hyvarinen 1999, Fast and robust fixed-point
    algorithms for independent component analysis, symmetric decorrelation). On few rows these steps
    often jump about a solution for ever, and where they are when they are stopped depends on
    rounding. So after `WHOLE` steps, half of each is taken, :math:`(W+DW^+)_\perp` with signs D
    that turn the rows of :math:`W^+` towards those of W (a step size, as in Hyvarinen 1999). The
    solutions are the same. All runs together are products of small matrices.

    Args:
        rows: a of every run, (R, P, K), or of all runs alike, (1, P, K), in any unit. The caller
            sees to it that they vary in n ways (`check_ways`); white rows would not be finite.
        n_concepts: n.
        seeds: R of them.
        steps: most steps; a run that needs more is left as it is then.

    Returns:
        S (R, n, K) of :math:`s=Sa`, of variance 1, in the unit of 1 / a, and which runs
        converged, (R,). Order and signs of a run's components are arbitrary.
    """
    columns = (rows - rows.mean(1, keepdim=True)).mT
    vectors, sizes, _ = torch.linalg.svd(columns, full_matrices=False)
    vectors = torch.where(vectors[:, :1] < 0, -vectors, vectors)  # one of two signs
    whitening = (vectors[..., :n_concepts] / sizes[:, None, :n_concepts]).mT
    white = (whitening @ columns * rows.shape[1] ** 0.5).expand(len(seeds), -1, -1)
    size = (n_concepts, n_concepts)
    starts = np.stack([np.random.RandomState(seed).normal(size=size) for seed in seeds])
    found = _decorrelated(torch.from_numpy(starts).to(rows))
    left, now, own = torch.arange(len(seeds)), found.clone(), white
    for step in range(steps):
        after = _step(now, own)
        if step >= WHOLE:
            after = _decorrelated(now + (after * now).sum(2, keepdim=True).sign() * after)
        going = ((after * now).sum(2).abs() - 1).abs().amax(1) >= CLOSE
        found[left] = after
        left, now, own = left[going.cpu()], after[going], own[going]
        if not len(left):
            break
    converged = torch.ones(len(seeds), dtype=torch.bool)
    converged[left] = False
    spread = (found @ white).std(2, correction=0, keepdim=True) / rows.shape[1] ** 0.5
    return found / spread @ whitening, converged


def _step(weights: Float[Tensor, "runs concepts ways"], white: Tensor) -> Tensor:
    """One whole step of FastICA with the contrast log cosh, its rows orthonormal."""
    curved = torch.tanh(weights @ white)
    slope = (1 - curved.square()).mean(2, keepdim=True)
    return _decorrelated(curved @ white.mT / white.shape[2] - slope * weights)


def _decorrelated(weights: Float[Tensor, "runs concepts ways"]) -> Tensor:
    """The nearest matrices with orthonormal rows."""
    sizes, vectors = torch.linalg.eigh(weights @ weights.mT)
    roots = sizes.clamp(min=torch.finfo(sizes.dtype).tiny).rsqrt()
    return (vectors * roots.unsqueeze(1)) @ vectors.mT @ weights


def check_ways(centred: Float[Tensor, "positives ways"], n_concepts: int, what: str) -> None:
    """Refuse positives that vary in fewer than n ways; `what` of them the rows (P, K) are.

    Raises:
        DataError: how many ways there are.
    """
    if not varies(centred, n_concepts):
        raise DataError(
            f"the {what} of {len(centred)} positives vary in {ways_to_vary(centred)} ways, and "
            f"{n_concepts} independent components were asked for; take fewer or more positives"
        )


def varies(centred: Float[Tensor, "positives ways"], count: int) -> bool:
    """Whether centred rows (P, K) vary in so many ways: `ways_to_vary` is `count` or more.

    Singular values of some columns are no larger than those of all, and none is larger than the
    Frobenius norm. So if some columns are seen to vary enough, the rest is not decomposed.
    """
    step = centred.shape[1] // FEW
    some, largest = centred[:, :: max(1, step)], centred.norm()
    if step > 1 and count <= len(some) and count <= some.shape[1] and bool(largest.isfinite()):
        sizes = torch.linalg.svdvals(some)
        if bool(sizes[count - 1] > 2 * CONSTANT * largest):  # 2: far beyond rounding
            return True
    return ways_to_vary(centred) >= count


def ways_to_vary(centred: Float[Tensor, "positives ways"]) -> int:
    """Rank of centred rows (P, K), 0 for none."""
    return int(torch.linalg.matrix_rank(centred, rtol=CONSTANT)) if len(centred) else 0
