"""Ordered answers such as confidence: a proportional-odds model beside the rank tests."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.miscmodels.ordinal_model import OrderedModel

from torchxnn.apps.study.analysis.design_matrix import build_design
from torchxnn.apps.study.analysis.models import (
    Coefficients,
    Estimate,
    TermTest,
    Unavailable,
    first_coefficients,
    is_usable,
)
from torchxnn.apps.study.analysis.options import AnalysisOptions

FEWEST_PARTICIPANTS = 10
"""Cluster-robust errors are far too small with fewer clusters than this."""

_SEPARATED = 10.0  # a log odds ratio beyond this means that answers are separated


@dataclass(frozen=True)
class OrdinalModel:
    """A fitted proportional-odds model.

    Attributes:
        participants: number, the clusters.
        trials: number.
        levels: answers that were given, in their order.
        terms: Wald chi squared tests (divided by df), type III.
        contrasts: log odds ratio of a higher answer with XNN than with 1-Heatmap, per data set, at
            equal order.
        dropped: terms that the data cannot tell.
    """

    participants: int
    trials: int
    levels: tuple[int, ...]
    terms: tuple[TermTest, ...]
    contrasts: tuple[Estimate, ...]
    dropped: tuple[str, ...]


def fit_ordinal_model(
    scores: pd.DataFrame, stages: Sequence[str], data_sets: Sequence[str], options: AnalysisOptions
) -> OrdinalModel | Unavailable:
    r"""Fit logit P(answer > k) = -theta_k + stage x data set + order, robust to clusters.

    Source: McCullagh, Regression models for ordinal data, 1980 (`statsmodels` OrderedModel). It has
    no random participant: it describes the population of answers, and a sandwich covariance
    clustered by participant accounts for the dependence of a participant's answers. Tests are
    normal and chi squared, for large samples. Arguments are those of `fit_linear_model`.
    """
    trials = scores[scores["confidence"].notna()].reset_index(drop=True)
    people = trials["participant"].nunique()
    levels = tuple(sorted({int(value) for value in trials["confidence"]}))
    if people < FEWEST_PARTICIPANTS:
        return Unavailable(
            f"errors that are robust to clusters need at least {FEWEST_PARTICIPANTS} participants, "
            f"got {people}"
        )
    if len(levels) < 2:
        return Unavailable("every answer is the same")
    design = build_design(trials, stages, data_sets, intercept=False)
    if not design.terms:
        return Unavailable("there is nothing to compare: one stage, one data set, one position")
    answers = pd.Series(pd.Categorical(trials["confidence"].astype(int), levels, ordered=True))
    found, failure = _fit(answers, design.matrix, trials["participant"].to_numpy())
    if found is None:
        return Unavailable(failure)
    values, covariance = first_coefficients(found, design.matrix.shape[1])
    if not is_usable(covariance):
        return Unavailable("the fit gave no covariance of its estimates")
    if np.abs(values).max() > _SEPARATED:
        return Unavailable(
            "a stage or a data set separates the answers completely, so that odds ratios are "
            "infinite"
        )
    fit = Coefficients(design, values, covariance, options.level)
    return OrdinalModel(
        participants=people,
        trials=len(trials),
        levels=levels,
        terms=fit.terms(),
        contrasts=fit.contrasts(),
        dropped=design.dropped,
    )


def _fit(answers: pd.Series, matrix: pd.DataFrame, people: np.ndarray) -> tuple[Any, str]:
    """The fit, or None and why there is none."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # convergence is looked at below
            found = OrderedModel(answers, matrix, distr="logit").fit(
                method="bfgs",
                maxiter=500,
                disp=False,
                cov_type="cluster",
                cov_kwds={"groups": people},
            )
    except (np.linalg.LinAlgError, ValueError, FloatingPointError) as error:
        return None, f"the proportional-odds model could not be fitted ({error})"
    if not found.mle_retvals["converged"]:
        return None, "the proportional-odds model did not converge"
    return found, ""
