"""Stages that were seen by different people, compared by answers that are right or wrong."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
import torch
from scipy import stats

from torchxnn.apps.study.analysis.answers.scores import by_person
from torchxnn.apps.study.analysis.models import Estimate, Unavailable
from torchxnn.apps.study.analysis.options import NO_VISUALISATION, AnalysisOptions
from torchxnn.apps.study.analysis.paired import Question, UnpairedComparison, compare_unpaired
from torchxnn.apps.study.analysis.resampling import BootstrapInterval, participants_interval
from torchxnn.metrics.intervals import bootstrap_counts, percentile_interval

FEWEST = 10
"""Participants from which on a logistic model is fitted: its errors are for many."""


@dataclass(frozen=True)
class Contrast:
    """Two stages and everything that is said of their difference.

    Attributes:
        people: test over participants, differences are first - second.
        both: interval of the same difference with participants and pictures both drawn.
    """

    people: UnpairedComparison
    both: BootstrapInterval


@dataclass(frozen=True)
class OddsModel:
    """Logistic model of the answers: right ~ stage + data set.

    Attributes:
        contrasts: log odds ratios of pairs of stages.
        answers: number.
        participants: number.
    """

    contrasts: tuple[Estimate, ...]
    answers: int
    participants: int


def compare_stages(
    rows: pd.DataFrame, measure: str, pair: tuple[str, str], family: str, options: AnalysisOptions
) -> Contrast:
    """Compare a measure of `score_answers` between two stages, over participants and pictures."""
    people = compare_people(rows, measure, pair, family, options)
    return Contrast(people, crossed_interval(rows, measure, pair, options))


def compare_people(
    rows: pd.DataFrame, measure: str, pair: tuple[str, str], family: str, options: AnalysisOptions
) -> UnpairedComparison:
    """Compare a measure between two stages over participants alone."""
    question = Question(measure, "", *pair, family)
    first, second = (by_person(rows, measure, stage).to_numpy() for stage in pair)
    return compare_unpaired(first, second, options, question)


def crossed_interval(
    rows: pd.DataFrame, measure: str, pair: tuple[str, str], options: AnalysisOptions
) -> BootstrapInterval:
    """Interval of a difference of two stages that resamples participants and items.

    Participants are drawn within their stage, items for both stages alike; an answer counts as
    often as its participant times its item. The interval is too wide rather than too narrow.
    Source: Owen, The pigeonhole bootstrap, 2007.
    """
    known = rows[rows[measure].notna()]
    items = sorted(known["item"].unique())
    people = [sorted(known.loc[known["stage"] == s, "participant"].unique()) for s in pair]
    if len(items) < 2 or min(map(len, people)) < 2:
        return BootstrapInterval(None, None, "none", "fewer than 2 participants or items")
    drawn = bootstrap_counts(len(items), options.resamples, options.seed).numpy()
    means = []
    for number, (stage, own) in enumerate(zip(pair, people, strict=True), start=1):
        part = known[known["stage"] == stage]
        grid = part.groupby(["participant", "item"])[measure].agg(["sum", "size"])
        index = pd.MultiIndex.from_product([own, items])
        grid = grid.reindex(index, fill_value=0).astype(float)
        total, count = (grid[name].to_numpy().reshape(len(own), -1) for name in ("sum", "size"))
        who = bootstrap_counts(len(own), options.resamples, options.seed + number).numpy()
        with np.errstate(invalid="ignore"):
            means.append(((who @ total) * drawn).sum(1) / ((who @ count) * drawn).sum(1))
    found = percentile_interval(torch.from_numpy(means[0] - means[1]), options.level)
    if not np.isfinite(found.low) or found.high - found.low < 1e-12:
        return BootstrapInterval(None, None, "none", "resampling shows no spread", found.undefined)
    return BootstrapInterval(found.low, found.high, "percentile", undefined=found.undefined)


def utility(
    rows: pd.DataFrame, stage: str, options: AnalysisOptions
) -> tuple[float, BootstrapInterval] | None:
    """Mean share of right answers with a stage, divided by that without an explanation.

    Source: Colin et al., What I cannot predict, I do not understand, 2022: above 1 an explanation
    helps. None where it does not exist.
    """
    first, second = (
        by_person(rows, "right", each).to_numpy() for each in (stage, NO_VISUALISATION)
    )
    if len(first) == 0 or len(second) == 0 or second.mean() == 0:
        return None

    def ratio(one: np.ndarray, other: np.ndarray, axis: int = -1) -> Any:
        return one.mean(axis=axis) / other.mean(axis=axis)

    return float(ratio(first, second)), participants_interval([first, second], ratio, options)


def fit_odds_model(
    rows: pd.DataFrame,
    stages: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    options: AnalysisOptions,
) -> OddsModel | Unavailable:
    """Logistic model whose errors allow for clusters of participants (GEE, exchangeable).

    The covariance is bias-reduced (Mancl and DeRouen 2001) for studies of few participants.
    """
    levels = [stage for stage in stages if (rows["stage"] == stage).any()]
    people = rows["participant"].nunique()
    if len(levels) < 2 or people < FEWEST:
        return Unavailable(f"it needs two stages and {FEWEST} participants")
    shares = rows.groupby("stage")["right"].mean()
    same = [stage for stage in levels if shares[stage] in (0.0, 1.0)]
    if same:
        return Unavailable(f"all answers with {same[0]} are alike, so that odds do not exist")
    keys = sorted(rows["data_set"].unique())
    matrix = pd.DataFrame(
        {
            "intercept": 1.0,
            **{stage: (rows["stage"] == stage).astype(float) for stage in levels[1:]},
            **{f"{key}.": (rows["data_set"] == key).astype(float) for key in keys[1:]},
        }
    )
    model = sm.GEE(
        rows["right"],
        matrix,
        groups=rows["participant"].astype(int),
        family=sm.families.Binomial(),
        cov_struct=sm.cov_struct.Exchangeable(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = model.fit(cov_type="bias_reduced")
    values, covariance = np.asarray(fit.params), np.asarray(fit.cov_params())
    if not (np.isfinite(values).all() and np.isfinite(covariance).all()):
        return Unavailable("its fit does not converge")
    names = list(matrix.columns)
    found = []
    for first, second in pairs:
        if {first, second} <= set(levels):
            weights = np.array([float(n == first) - float(n == second) for n in names])
            found.append(_estimate(first, second, weights, values, covariance, options))
    return OddsModel(tuple(found), len(rows), people)


def _estimate(
    first: str,
    second: str,
    weights: np.ndarray,
    values: np.ndarray,
    covariance: np.ndarray,
    options: AnalysisOptions,
) -> Estimate:
    value = float(weights @ values)
    error = float(np.sqrt(weights @ covariance @ weights))
    reach = float(stats.norm.ppf(0.5 + options.level / 2)) * error
    p = float(2 * stats.norm.sf(abs(value) / error)) if error > 0 else 1.0
    return Estimate(f"{first} - {second}", "", value, error, value - reach, value + reach, p)
