"""Independent components of what the dimensions of Z contribute to a logit, among its positives."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.embeddings.apply import anchor
from torchxnn.embeddings.concepts import check_activations, import_sklearn
from torchxnn.embeddings.directions import DirectionConcepts, as_directions
from torchxnn.embeddings.linear import CONSTANT, check_weights, fit_linear
from torchxnn.errors import DataError, XNNWarning

RIDGE = 0.03
"""Penalty of the linear model of the logit, as a share of the mean variance of Z."""

STEPS = 2000
"""Most steps of FastICA."""


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
    z = activations.double()
    weight, bias = fit_linear(z, logits.unsqueeze(1).double(), check_weights(weights, z), RIDGE)
    contributions = z[positives] * weight[0]
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
        (rows * weight[0]).to(activations), -(rows @ mean).to(activations), activations
    )
    embedding.readout.weight.fill_(1.0)
    embedding.readout.bias.copy_(bias + mean.sum())
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


def check_ways(centred: Float[Tensor, "positives ways"], n_concepts: int, what: str) -> None:
    """Refuse positives that vary in fewer than n ways; `what` of them the rows (P, K) are.

    Raises:
        DataError: how many ways there are.
    """
    kinds = ways_to_vary(centred)
    if kinds < n_concepts:
        raise DataError(
            f"the {what} of {len(centred)} positives vary in {kinds} ways, and {n_concepts} "
            "independent components were asked for; take fewer or more positives"
        )


def ways_to_vary(centred: Float[Tensor, "positives ways"]) -> int:
    """Rank of centred rows (P, K), 0 for none."""
    return int(torch.linalg.matrix_rank(centred, rtol=CONSTANT)) if len(centred) else 0
