"""How sure a figure is: bootstrap intervals over items, and a paired test over classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchxnn.errors import DataError, NonFiniteError

LEVEL = 0.95
RESAMPLES = 1000

Alternative = Literal["two-sided", "less", "greater"]


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval of one figure.

    Attributes:
        low: lower end; NaN where there is no interval: fewer than 2 items, or no resample has the
            figure.
        high: upper end; NaN where `low` is.
        level: share of the resampled figures inside, in (0, 1).
        resamples: resampled figures it was read from.
        undefined: resamples left out because the figure does not exist there.
    """

    low: float
    high: float
    level: float
    resamples: int
    undefined: int


@dataclass(frozen=True)
class PairedTest:
    """A Wilcoxon signed-rank test of paired figures.

    Attributes:
        p: probability of so large a statistic if differences are symmetric about 0; lower is
            stronger evidence of a difference. 1 if no pair differs.
        statistic: sum of ranks, as `scipy.stats.wilcoxon` defines it for the alternative.
        median_difference: median of first - second over all pairs; its sign says which is lower.
        pairs: number of pairs.
        zeros: pairs without a difference; they say nothing about the direction and are left out.
        alternative: "less" asks whether the first figures are lower than the second.
    """

    p: float
    statistic: float
    median_difference: float
    pairs: int
    zeros: int
    alternative: Alternative


def bootstrap_counts(
    items: int, resamples: int = RESAMPLES, seed: int = 0
) -> Float[Tensor, "resamples items"]:
    """How often each item is drawn in each of B resamples; rows sum to the number of items.

    A mean over a resample, drawn with replacement, is then one matrix product. The same seed gives
    the same resamples.

    Returns:
        (B, items), float64.

    Raises:
        DataError: no items or no resamples.
    """
    if items < 1 or resamples < 1:
        raise DataError(
            f"a bootstrap needs at least 1 item and 1 resample, got {items} and {resamples}"
        )
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(items, np.full(items, 1 / items), size=resamples)
    return torch.from_numpy(counts.astype(np.float64))


def percentile_interval(
    resampled: Float[Tensor, " resamples"], level: float = LEVEL, items: int | None = None
) -> Interval:
    """The central share `level` of resampled figures, linearly interpolated.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Args:
        resampled: the figure of every resample; NaN where it does not exist.
        level: in (0, 1).
        items: number of items that were resampled; a single one has no interval.

    Raises:
        DataError: `level` is not in (0, 1).
    """
    if not 0 < level < 1:
        raise DataError(f"the level of an interval must be between 0 and 1, got {level}")
    defined = resampled.double()[~resampled.isnan()]
    low = high = math.nan
    if len(defined) > 0 and (items is None or items > 1):
        # numpy, because quantile of torch refuses more than 16 million values
        low, high = np.quantile(defined.numpy(), [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(low, high, level, len(defined), len(resampled) - len(defined))


def bootstrap_mean(
    values: Float[Tensor, " items"], level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of the mean of independent values.

    Args:
        values: one per item, such as the error of every image or the figure of every class.
        level: in (0, 1).
        resamples: B.
        seed: the same seed gives the same interval.

    Raises:
        DataError: no values, or `level` is not in (0, 1).
        NonFiniteError: a value is NaN or infinite.

    Example:
        >>> interval = bootstrap_mean(torch.tensor([0.9, 1.1, 1.3]))
    """
    _check_finite(values.tolist(), "a value to bootstrap")
    if len(values) == 0:
        raise DataError("there are no values to bootstrap")
    means = bootstrap_counts(len(values), resamples, seed) @ values.cpu().double() / len(values)
    return percentile_interval(means, level, len(values))


def bootstrap_interval(
    statistic: Callable[[Int64[Tensor, " items"]], float],
    items: int,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of any figure, such as R^2; slower than `bootstrap_mean`.

    Args:
        statistic: from the indices of the drawn items (with repetitions) to the figure; NaN where
            it does not exist.
        items: number of items.
        level: in (0, 1).
        resamples: B, calls of `statistic`.
        seed: the same resamples as everywhere else with this seed and number of items.

    Raises:
        DataError: no items or no resamples, or `level` is not in (0, 1).

    Example:
        >>> interval = bootstrap_interval(lambda drawn: float(errors[drawn].median()), len(errors))
    """
    every = torch.arange(items)
    figures = [
        float(statistic(every.repeat_interleave(row)))
        for row in bootstrap_counts(items, resamples, seed).long()
    ]
    return percentile_interval(torch.tensor(figures, dtype=torch.float64), level, items)


def paired_wilcoxon(
    first: Sequence[float], second: Sequence[float], alternative: Alternative = "two-sided"
) -> PairedTest:
    """Wilcoxon signed-rank test of the differences first - second, such as one pair a class.

    Source: Wilcoxon, Individual comparisons by ranking methods, 1945. Pairs without a difference
    are left out, as there. p is exact for at most 50 pairs without ties; with ties it is exact
    for at most 13 pairs; otherwise it is a normal approximation (`scipy.stats.wilcoxon`). Figures
    of both methods are in the same order of the classes; "less": the first tend to be lower.

    Raises:
        DataError: no pairs, or different numbers of figures.
        NonFiniteError: a figure is NaN or infinite; leave its class out of both.

    Example:
        >>> paired_wilcoxon([0.1, 0.2, 0.3], [0.2, 0.4, 0.6], "less").p
        0.125
    """
    from scipy.stats import wilcoxon

    if len(first) != len(second) or len(first) == 0:
        raise DataError(
            f"a paired test needs as many figures of each, got {len(first)} and {len(second)}"
        )
    _check_finite(first, "the first figure of pair")
    _check_finite(second, "the second figure of pair")
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    nonzero = differences[differences != 0]
    p, statistic = 1.0, 0.0
    if len(nonzero) > 0:
        test = wilcoxon(nonzero, alternative=alternative)
        p, statistic = float(test.pvalue), float(test.statistic)
    return PairedTest(
        p=p,
        statistic=statistic,
        median_difference=float(np.median(differences)),
        pairs=len(differences),
        zeros=len(differences) - len(nonzero),
        alternative=alternative,
    )


def holm_adjust(values: Sequence[float]) -> list[float]:
    r"""Holm's adjusted p of tests that belong together, in the given order.

    .. math:: \tilde p_{(i)}=\min\left(1,\max_{j\le i}(m-j+1)\,p_{(j)}\right)

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979. Written out because
    `statsmodels.stats.multitest.multipletests` collects garbage at every call, which a simulation
    of power cannot afford, and belongs to another extra; tests compare the two.
    """
    order = np.argsort(values, kind="stable")
    stepped = np.asarray(values, dtype=np.float64)[order] * np.arange(len(values), 0, -1)
    corrected = np.empty(len(values))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(stepped))
    return [float(p) for p in corrected]


def _check_finite(values: Sequence[float], name: str) -> None:
    for index, value in enumerate(values):
        if not math.isfinite(value):
            raise NonFiniteError(
                f"{name} (number {index}) is {value}; leave out what has no figure, in all methods"
            )
