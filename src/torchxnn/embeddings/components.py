r"""Independent components of a class: what varies independently in all logits, among its images.

A network that tells classes apart uses what several of them share: when a part is hidden, the
logits of all classes that have it fall together. So among the images of one class the logits of
*all* classes vary in ways that belong to different causes, and independent component analysis takes
them apart; one logit alone could not say which of its causes is missing. No label of a part is
seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.embeddings.concepts import check_activations
from torchxnn.embeddings.exact import back, exact
from torchxnn.embeddings.ica import RIDGE, check_ways, unmix_many, varies
from torchxnn.embeddings.linear import check_weights, fit_linear, lstsq
from torchxnn.embeddings.matching import feature_correlation, match_features
from torchxnn.errors import DataError, check_finite

STARTS = 20
"""Starts of FastICA that the consensus is made from."""

STEPS = 200
"""Most steps of one start; the components of one that needs more are hardly independent."""

BOOTSTRAPS = 20
"""Bootstrap samples of the positives on which components are looked for again."""

SAME = 0.8
"""Correlation on the positives from which two components count as the same."""

Readout = tuple[Float[Tensor, "outputs dims"], Float[Tensor, " outputs"]]
"""A linear model of all logits: weight and intercept."""


@dataclass(frozen=True, eq=False)
class Components:
    """Contributions to one logit, linear in Z, that vary independently among its positives.

    They add up to a linear model of the logit.

    Attributes:
        weight: (n, S_z), largest spread among the positives first.
        bias: (n,).
        found_again: share of the bootstrap samples on which a component is found that correlates
            with this one by `SAME` or more, (n,).
    """

    weight: Float[Tensor, "components dims"]
    bias: Float[Tensor, " components"]
    found_again: Float[Tensor, " components"]

    def contributions(
        self, activations: Float[Tensor, "samples dims"]
    ) -> Float[Tensor, "samples components"]:
        """What each component adds to the logit of each image, (M, n)."""
        return activations @ self.weight.mT + self.bias


@torch.no_grad()
def read_logits(
    activations: Float[Tensor, "samples *dims"], logits: Float[Tensor, "rows outputs"]
) -> Readout:
    """Ridge regression of all logits on Z, the same for every class that is explained.

    Raises:
        DataError: maps, or numbers of samples that do not match.
        NonFiniteError: NaN or infinity.
    """
    check_activations(activations, 1)
    check_finite("the logits contain NaN or infinite values", logits)
    if len(activations) != len(logits):
        raise DataError(f"{len(activations)} samples of Z, but {len(logits)} of logits")
    return fit_linear(activations, logits, check_weights(None, activations), RIDGE)


@torch.no_grad()
def find_components(
    activations: Float[Tensor, "samples dims"],
    readout: Readout,
    target: int,
    positives: Bool[Tensor, " rows"],
    n_components: int,
    seed: int = 0,
) -> Components:
    r"""Split a linear model of one logit into what varies independently among its positives.

    With the linear model :math:`\hat y=Uz+b` of all K logits, the positives' :math:`Uz` are written
    as :math:`\mu+As` with independent s of variance 1, by FastICA (Hyvarinen 1999, Fast and robust
    fixed-point algorithms for independent component analysis); see `consensus`. Least squares among
    the positives give what a component contributes to the logit, :math:`g_l`. What they leave of
    the linear model is shared out evenly, so that on every image

    .. math:: c_l=g_ls_l+\frac1n\Big(\hat y_t-\sum_mg_ms_m\Big),\qquad\sum_lc_l=\hat y_t

    With fewer than 2 n logits there are too few that could tell causes apart.

    Args:
        activations: Z of the training set, (M, S_z).
        readout: from `read_logits`.
        target: t, row of the readout.
        positives: (M,), the images of the class.
        n_components: n.
        seed: of the starts and of the bootstrap samples.

    Raises:
        DataError: maps, fewer than 2 n logits, or positives that do not vary in n ways.
        NonFiniteError: NaN or infinity.

    Example:
        >>> readout = read_logits(train.z, train.logits)
        >>> found = find_components(train.z, readout, 7, train.labels == 7, n_components=5)
        >>> found.contributions(test.z).sum(1)  # a linear model of logit 7
    """
    check_activations(activations, n_components)
    weight, bias = (exact(part) for part in readout)
    if len(weight) < 2 * n_components:
        raise DataError(
            f"{len(weight)} logit{'s are' if len(weight) > 1 else ' is'} too few to tell "
            f"{n_components} causes apart; at least {2 * n_components} are needed"
        )
    seen = exact(activations[positives]) @ weight.mT
    mean = seen.mean(0)
    rows = seen - mean
    check_ways(rows, n_components, "logits")
    generator = torch.Generator().manual_seed(seed)
    unmixing = consensus(rows, n_components, generator)
    sources = rows @ unmixing.mT
    gains = lstsq(sources, rows[:, [target]])[:, 0]
    order = (sources * gains).std(0).argsort(descending=True, stable=True)
    unmixing, gains = unmixing[order], gains[order]
    parts = gains.unsqueeze(1) * (unmixing @ weight)
    offsets = -gains * (unmixing @ mean)
    return Components(
        back(parts + (weight[target] - parts.sum(0)) / n_components, activations),
        back(offsets + (bias[target] - offsets.sum()) / n_components, activations),
        back(recurrence(rows, unmixing, generator), activations),
    )


def consensus(
    rows: Float[Tensor, "positives ways"], n_components: int, generator: torch.Generator
) -> Float[Tensor, "components ways"]:
    """What several starts of FastICA agree on: sources (n) of variance 1, linear in the rows.

    Of the start that agrees best with the others, every component is averaged with its matches in
    them. A start that ended elsewhere is outvoted (as in ICASSO: Himberg, Hyvarinen 2003).

    Args:
        rows: centred, (P, K).
        n_components: n.
        generator: draws the starts.
    """
    seeds = [_seed(generator) for _ in range(STARTS)]
    starts, _ = unmix_many(rows.unsqueeze(0), n_components, seeds, STEPS)
    sources = rows @ starts.flatten(0, 1).mT
    correlations = feature_correlation(sources, sources)  # all at once: a match is of one block
    blocks = [block.split(n_components, 1) for block in correlations.split(n_components)]
    agreement = [0.0] * STARTS
    for first, second in combinations(range(STARTS), 2):
        shared = float(_match(blocks[first][second])[1].abs().mean())
        agreement[first] += shared
        agreement[second] += shared
    best = max(range(STARTS), key=agreement.__getitem__)
    total = torch.zeros_like(starts[0])
    for start, block in zip(starts, blocks[best], strict=True):
        places, signed = _match(block)
        total += signed.sign().to(total).unsqueeze(1) * start[places]
    spread = (rows @ total.mT).std(0, correction=0)
    return total / spread.clamp(min=torch.finfo(spread.dtype).tiny).unsqueeze(1)


def recurrence(
    rows: Float[Tensor, "positives ways"],
    unmixing: Float[Tensor, "components ways"],
    generator: torch.Generator,
) -> Float[Tensor, " components"]:
    """Share of bootstrap samples of the rows on which each component is found again, (n,).

    A sample that varies in fewer than n ways finds none.

    Args:
        rows: centred, (P, K).
        unmixing: from `consensus`.
        generator: draws the samples, and one start of FastICA for each.
    """
    count, samples, seeds = len(unmixing), [], []
    for _ in range(BOOTSTRAPS):
        drawn = rows[torch.randint(len(rows), (len(rows),), generator=generator)]
        drawn = drawn - drawn.mean(0)
        if varies(drawn, count):
            samples.append(drawn)
            seeds.append(_seed(generator))
    again = torch.zeros(count, dtype=rows.dtype)
    if samples:
        for other in unmix_many(torch.stack(samples), count, seeds, STEPS)[0]:
            again += (match(rows @ unmixing.mT, rows @ other.mT)[1].abs() >= SAME).cpu()
    return again / BOOTSTRAPS


def match(
    first: Float[Tensor, "rows columns"], second: Float[Tensor, "rows columns"]
) -> tuple[Int64[Tensor, " columns"], Float[Tensor, " columns"]]:
    """Match columns one for one by their correlations, whose signs are arbitrary in components.

    Returns:
        For every column of the first the place of its match in the second, and their signed
        correlation.
    """
    places, correlations = _match(feature_correlation(first, second))
    return places, correlations.to(first)


def _match(
    correlations: Float[Tensor, "columns columns"],
) -> tuple[Int64[Tensor, " columns"], Float[Tensor, " columns"]]:
    """`match` by correlations that are known."""
    places = match_features(correlations.abs())
    return torch.tensor(places), correlations[range(len(places)), places]


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**31, (), generator=generator))
