"""Comparisons of stages: Wilcoxon's and Mann and Whitney's tests with effect sizes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import comb
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float
from scipy.stats import PermutationMethod, binomtest, mannwhitneyu, rankdata, wilcoxon

from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.analysis.resampling import BootstrapInterval, participants_interval
from torchxnn.errors import DataError
from torchxnn.metrics.intervals import holm_adjust

DECIMALS = 9
"""Differences are rounded so far, or .8 - .7 and .7 - .6 would not be tied."""

EXACT_PAIRS = 300
EXACT_SPLITS = 20_000


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test of differences.

    Attributes:
        statistic: sum of the ranks of positive differences, midranks of ties.
        p: two-sided.
        zeros: differences of 0, which are left out.
        nonzero: the others.
        method: "exact" or "normal approximation"; "no difference" if all are 0.
    """

    statistic: float
    p: float
    zeros: int
    nonzero: int
    method: str

    @property
    def favours_first(self) -> bool:
        """Whether positive differences have the larger ranks."""
        return self.statistic > self.nonzero * (self.nonzero + 1) / 4


@dataclass(frozen=True)
class Question:
    """What is compared between two conditions.

    Attributes:
        measure: such as "purity".
        data_set: key; empty if there is none.
        first: condition, a stage or an arm and stage; differences are first - second.
        second: the other condition.
        family: tests that are corrected together, see `holm`; empty for none.
        p_holm: p after Holm's correction over the family; None before it.
    """

    measure: str
    data_set: str
    first: str
    second: str
    family: str
    p_holm: float | None = field(default=None, kw_only=True)

    @property
    def p(self) -> float | None:
        """Before the correction; None for no test."""
        return None


@dataclass(frozen=True)
class PairedComparison(Question):
    """Two conditions of the same participants.

    Attributes:
        n: participants with both.
        mean_difference: in the measure's units; None without participants.
        mean_interval: of it.
        median_difference: in the same units; None without participants.
        test: None without participants.
        rank_biserial: matched, in [-1, 1]; positive if the first is higher. 0 if nothing differs.
        rank_biserial_interval: of it.
        cohens_dz: mean difference / its standard deviation; None if that is 0 or n < 2.
        cohens_dz_interval: of it.
        sign_test_p: exact, two-sided, without differences of 0.
    """

    n: int
    mean_difference: float | None = None
    mean_interval: BootstrapInterval | None = None
    median_difference: float | None = None
    test: SignedRank | None = None
    rank_biserial: float | None = None
    rank_biserial_interval: BootstrapInterval | None = None
    cohens_dz: float | None = None
    cohens_dz_interval: BootstrapInterval | None = None
    sign_test_p: float | None = None

    @property
    def p(self) -> float | None:
        """Before the correction; None without participants."""
        return None if self.test is None else self.test.p


@dataclass(frozen=True)
class UnpairedComparison(Question):
    """A condition in two groups of participants.

    Attributes:
        n_first: participants of the first group.
        n_second: participants of the second group.
        mean_difference: in the measure's units; None without participants.
        mean_interval: of it.
        statistic: U of the first group; None without participants.
        p: two-sided.
        method: of p.
        cliffs_delta: P(first > second) - P(first < second), in [-1, 1].
        cliffs_delta_interval: of it.
    """

    n_first: int
    n_second: int
    mean_difference: float | None = None
    mean_interval: BootstrapInterval | None = None
    statistic: float | None = None
    p: float | None = None
    method: str = ""
    cliffs_delta: float | None = None
    cliffs_delta_interval: BootstrapInterval | None = None


Comparison = TypeVar("Comparison", bound=Question)


def signed_rank(differences: Float[np.ndarray, " pairs"]) -> SignedRank:
    """Wilcoxon's signed-rank test, two-sided, exact with ties too.

    Source: Wilcoxon, Individual comparisons by ranking methods, 1945: differences of 0 are left
    out. Given the (mid)ranks, every sign is + or - with probability 1/2; the sum of the positive
    ranks then has a distribution that is found rank by rank. Above 300 pairs p is the normal
    approximation of `scipy.stats.wilcoxon`.

    Raises:
        DataError: a difference is not finite.
    """
    if not np.isfinite(differences).all():
        raise DataError("a signed-rank test needs finite differences; leave out incomplete pairs")
    rounded = np.round(differences, DECIMALS)
    nonzero = rounded[rounded != 0]
    zeros = len(rounded) - len(nonzero)
    if len(nonzero) == 0:
        return SignedRank(0.0, 1.0, zeros, 0, "no difference")
    doubled = np.round(2 * rankdata(np.abs(nonzero))).astype(np.int64)
    positive = int(doubled[nonzero > 0].sum())
    if len(nonzero) > EXACT_PAIRS:
        p = float(wilcoxon(nonzero, method="asymptotic").pvalue)
        return SignedRank(positive / 2, p, zeros, len(nonzero), "normal approximation")
    null = _null_distribution(doubled)
    p = min(1.0, 2 * min(float(null[: positive + 1].sum()), float(null[positive:].sum())))
    return SignedRank(positive / 2, p, zeros, len(nonzero), "exact")


def _null_distribution(ranks: np.ndarray) -> np.ndarray:
    """Probability of each sum of integer ranks that count with probability 1/2 each."""
    probability = np.zeros(int(ranks.sum()) + 1)
    probability[0], reached = 1.0, 0
    for rank in ranks.tolist():
        half = probability[: reached + 1] / 2
        probability[: reached + 1] = half
        reached += rank
        probability[rank : reached + 1] += half
    return probability


def rank_biserial(differences: np.ndarray, axis: int = -1) -> Any:
    r"""Matched rank-biserial correlation of differences, in [-1, 1].

    .. math:: r=\frac{T_+-T_-}{T_++T_-}

    with the sums of the ranks of positive and negative differences; those of 0 are left out. 0 if
    all are 0. Source: Kerby, The simple difference formula, 2014.
    """
    rounded = np.round(differences, DECIMALS)
    ranks = rankdata(np.abs(rounded), axis=axis)
    zeros = (rounded == 0).sum(axis=axis, keepdims=True)
    # differences of 0 have the lowest ranks, so without them every other rank is so much lower
    ranks = np.where(rounded == 0, 0.0, ranks - zeros)
    total = ranks.sum(axis=axis)
    signed = (np.sign(rounded) * ranks).sum(axis=axis)
    return np.divide(signed, total, out=np.zeros_like(signed), where=total > 0)


def cohens_dz(differences: np.ndarray, axis: int = -1) -> Any:
    r"""Paired Cohen's :math:`d_z=\bar d/s_d` with the sample standard deviation; NaN if it is 0.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences, 1988, section 2.3.5.
    """
    rounded = np.round(differences, DECIMALS)
    spread = rounded.std(axis=axis, ddof=1)
    # the deviation of equal numbers is not exactly 0
    same = np.ptp(rounded, axis=axis) == 0
    return np.where(same, np.nan, rounded.mean(axis=axis) / np.where(same, 1.0, spread))


def cliffs_delta(first: np.ndarray, second: np.ndarray, axis: int = -1) -> Any:
    """P(first > second) - P(first < second), in [-1, 1]; positive if the first is higher.

    Source: Cliff, Dominance statistics, 1993.
    """
    left = np.expand_dims(np.moveaxis(first, axis, -1), -1)
    right = np.expand_dims(np.moveaxis(second, axis, -1), -2)
    return np.sign(np.round(left - right, DECIMALS)).mean(axis=(-2, -1))


def compare_paired(
    first: Float[np.ndarray, " participants"],
    second: Float[np.ndarray, " participants"],
    options: AnalysisOptions,
    question: Question,
) -> PairedComparison:
    """Test and effect sizes of two conditions of the same participants; NaN is missing."""
    differences = np.round(first - second, DECIMALS)
    differences = differences[~np.isnan(differences)]
    n = len(differences)
    empty = PairedComparison(**vars(question), n=n)
    if n == 0:
        return empty
    spread = n > 1 and np.ptp(differences) > 0
    signs = differences[differences != 0] > 0
    return replace(
        empty,
        mean_difference=float(differences.mean()),
        mean_interval=participants_interval([differences], np.mean, options),
        median_difference=float(np.median(differences)),
        test=signed_rank(differences),
        rank_biserial=float(rank_biserial(differences)),
        rank_biserial_interval=participants_interval([differences], rank_biserial, options),
        cohens_dz=float(cohens_dz(differences)) if spread else None,
        cohens_dz_interval=participants_interval([differences], cohens_dz, options),
        sign_test_p=float(binomtest(int(signs.sum()), len(signs)).pvalue) if len(signs) else 1.0,
    )


def compare_unpaired(
    first: Float[np.ndarray, " one"],
    second: Float[np.ndarray, " other"],
    options: AnalysisOptions,
    question: Question,
) -> UnpairedComparison:
    """Mann and Whitney's test and Cliff's delta of two groups of participants.

    p is exact, over all splits into two groups, where there are at most 20,000 of them; else the
    normal approximation with corrections for ties and continuity (`scipy.stats.mannwhitneyu`). NaN
    is left out.
    """
    first, second = (np.round(v[~np.isnan(v)], DECIMALS) for v in (first, second))
    empty = UnpairedComparison(**vars(question), n_first=len(first), n_second=len(second))
    if len(first) == 0 or len(second) == 0:
        return empty
    splits = comb(len(first) + len(second), len(first))
    exact = splits <= EXACT_SPLITS
    how: Any = PermutationMethod(n_resamples=EXACT_SPLITS) if exact else "asymptotic"
    if np.ptp(np.concatenate([first, second])) == 0:
        statistic, p, name = len(first) * len(second) / 2, 1.0, "no difference"
    else:
        test = mannwhitneyu(first, second, method=how)
        statistic, p = float(test.statistic), float(test.pvalue)
        name = "exact" if exact else "normal approximation"
    return replace(
        empty,
        mean_difference=float(first.mean() - second.mean()),
        mean_interval=participants_interval(
            [first, second], lambda a, b, axis=-1: a.mean(axis=axis) - b.mean(axis=axis), options
        ),
        statistic=statistic,
        p=p,
        method=name,
        cliffs_delta=float(cliffs_delta(first, second)),
        cliffs_delta_interval=participants_interval([first, second], cliffs_delta, options),
    )


def holm(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Correct the p of each family after Holm; tests without data are not part of a family.

    Those without a family stay as they are, and so does the order. Source: Holm, A simple
    sequentially rejective multiple test procedure, 1979.
    """
    found = list(comparisons)
    for family in dict.fromkeys(c.family for c in found if c.family):
        members = [i for i, c in enumerate(found) if c.family == family and c.p is not None]
        if members:
            corrected = holm_adjust([found[i].p or 0.0 for i in members])
            for i, p in zip(members, corrected, strict=True):
                found[i] = replace(found[i], p_holm=p)
    return found
