"""Bootstrap intervals over participants."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import bootstrap

from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.metrics.intervals import percentile_interval

_ROUNDING = 1e-12
_BATCH = 250  # resamples at once: all pairs of two large groups would not fit in memory


@dataclass(frozen=True)
class BootstrapInterval:
    """An interval of one figure, or why there is none.

    Attributes:
        low: its lower end; None where there is no interval.
        high: its upper end; None where there is no interval.
        method: "BCa", or "percentile" where the figure has no BCa interval.
        reason: why there is no interval, or no BCa interval; else empty.
        undefined: resamples left out because the figure does not exist there.
    """

    low: float | None
    high: float | None
    method: Literal["BCa", "percentile", "none"]
    reason: str = ""
    undefined: int = 0


def participants_interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., Any], options: AnalysisOptions
) -> BootstrapInterval:
    """Resample the participants of each sample, bias-corrected and accelerated.

    Source: Efron, Better bootstrap confidence intervals, 1987 (`scipy.stats.bootstrap`). The
    percentile interval of the same resamples takes its place where the correction does not exist.

    Args:
        samples: a 1-dimensional array per group of participants, resampled independently.
        statistic: of the samples and `axis`, as `scipy.stats.bootstrap` calls it; NaN where it does
            not exist.
        options: level, number of resamples and seed.

    Example:
        >>> interval = participants_interval([np.array([0.1, 0.4])], np.mean, AnalysisOptions())
    """
    if min(len(sample) for sample in samples) < 2:
        return BootstrapInterval(None, None, "none", "fewer than 2 participants")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # degenerate resamples are told below
        found = bootstrap(
            tuple(samples),
            statistic,
            n_resamples=options.resamples,
            confidence_level=options.level,
            vectorized=True,
            batch=_BATCH,
            method="BCa",
            rng=np.random.default_rng(options.seed),
        )
    figures = np.where(
        np.isfinite(found.bootstrap_distribution), found.bootstrap_distribution, np.nan
    )
    defined = figures[~np.isnan(figures)]
    undefined = len(figures) - len(defined)
    if len(defined) == 0 or np.ptp(defined) < _ROUNDING:
        return BootstrapInterval(None, None, "none", "resampling shows no spread", undefined)
    low, high = (float(bound) for bound in found.confidence_interval)
    if undefined == 0 and np.isfinite(low) and np.isfinite(high):
        return BootstrapInterval(low, high, "BCa")
    plain = percentile_interval(torch.from_numpy(figures), options.level)
    reason = "the figure does not exist in every resample" if undefined else "no BCa interval"
    return BootstrapInterval(plain.low, plain.high, "percentile", reason, undefined)
