"""The linear mixed model purity ~ stage x data set + order with a random participant."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLMParams

from torchxnn.apps.study.analysis.design_matrix import STAGE, Design, build_design
from torchxnn.apps.study.analysis.options import PRIMARY_PAIR, AnalysisOptions
from torchxnn.metrics.intervals import holm_adjust

MIXED = "linear mixed model with a random intercept per participant (REML)"
ORDINARY = "ordinary least squares"
FIXED = "ordinary least squares with a fixed intercept per participant"

_SINGULAR = 1e-6  # variance between participants / residual variance
_EXACT_FIT = 1e-20  # residual / total sum of squares
_OPTIMISERS = ("bfgs", "lbfgs", "cg", "powell")


@dataclass(frozen=True)
class Unavailable:
    """A result that the data do not allow.

    Attributes:
        reason: why, for people.
    """

    reason: str


@dataclass(frozen=True)
class Estimate:
    """A coefficient or a contrast.

    Attributes:
        name: of the coefficient, or "first - second".
        data_set: key; empty if it concerns all.
        value: in the model's units.
        standard_error: of it.
        low: of the interval.
        high: of the interval.
        p: two-sided, that the true value is 0.
        p_holm: corrected over the contrasts; None for coefficients.
    """

    name: str
    data_set: str
    value: float
    standard_error: float
    low: float
    high: float
    p: float
    p_holm: float | None = None


@dataclass(frozen=True)
class TermTest:
    """Wald test that all coefficients of a term are 0.

    Attributes:
        term: name.
        statistic: F, or chi squared / df for an ordinal model.
        df: number of coefficients.
        df_residual: of F; None for chi squared.
        p: of the test.
    """

    term: str
    statistic: float
    df: int
    df_residual: int | None
    p: float


@dataclass(frozen=True)
class LinearModel:
    """A fitted model of purity, in shares (0 to 1).

    Attributes:
        estimator: `MIXED`, or what took its place.
        reason: why something took its place; else empty.
        participants: number.
        trials: number.
        df: residual degrees of freedom of t and F.
        terms: Wald F tests, type III.
        coefficients: sum-to-zero coded.
        contrasts: expected difference of XNN and 1-Heatmap per data set, at equal order. NoVis has
            none: it always comes first, so that equal order would be an extrapolation.
        participant_sd: between participants; None without a random participant.
        residual_sd: within participants.
        dropped: terms that the data cannot tell.
        messages: what the optimiser said, each once.
        batch_sd: between batches of pictures; None where pictures are taken as given.
        suits_sd: between stages within batches, as a batch may suit a stage; None likewise.
    """

    estimator: str
    reason: str
    participants: int
    trials: int
    df: int
    terms: tuple[TermTest, ...]
    coefficients: tuple[Estimate, ...]
    contrasts: tuple[Estimate, ...]
    participant_sd: float | None
    residual_sd: float
    dropped: tuple[str, ...]
    messages: tuple[str, ...]
    batch_sd: float | None = None
    suits_sd: float | None = None


@dataclass(frozen=True, eq=False)
class Coefficients:
    """Estimated coefficients of a design, and what they say of terms and stages.

    Attributes:
        design: has a column per coefficient.
        values: the estimates.
        covariance: of the estimates.
        level: of the intervals.
        df: of t and F; None takes the normal law and chi squared, for large samples.
    """

    design: Design
    values: np.ndarray
    covariance: np.ndarray
    level: float
    df: int | None = None

    def terms(self) -> tuple[TermTest, ...]:
        """Wald test of every term of the design: F, or chi squared without `df`."""
        return tuple(self.test(term) for term in self.design.terms)

    def test(self, term: str) -> TermTest:
        """Wald test of one term."""
        rows = self.design.selector(term)
        effect, count = rows @ self.values, len(rows)
        spread = rows @ self.covariance @ rows.T
        statistic = float(effect @ np.linalg.solve(spread, effect)) / count
        if self.df is None:
            p = float(stats.chi2.sf(statistic * count, count))
        else:
            p = float(stats.f.sf(statistic, count, self.df))
        return TermTest(term, statistic, count, self.df, p)

    def all(self) -> tuple[Estimate, ...]:
        """Every coefficient by itself."""
        names = self.design.matrix.columns
        rows = np.eye(len(self.values))
        return tuple(self._weigh(name, "", row) for name, row in zip(names, rows, strict=True))

    def contrasts(self) -> tuple[Estimate, ...]:
        """XNN minus 1-Heatmap per data set, corrected after Holm over the data sets."""
        if STAGE not in self.design.terms:
            return ()
        first, second = PRIMARY_PAIR
        found = [
            self._weigh(
                f"{first} - {second}", data_set, self.design.contrast(data_set, first, second)
            )
            for data_set in self.design.data_sets
            if {(data_set, first), (data_set, second)} <= self.design.cells
        ]
        corrected = holm_adjust([one.p for one in found])
        return tuple(replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True))

    def _weigh(self, name: str, data_set: str, weights: np.ndarray) -> Estimate:
        """A weighted sum of coefficients: t with `df`, or normal without."""
        value = float(weights @ self.values)
        error = float(np.sqrt(weights @ self.covariance @ weights))
        law = stats.norm() if self.df is None else stats.t(self.df)
        half = float(law.ppf((1 + self.level) / 2)) * error
        p = float(2 * law.sf(abs(value) / error))
        return Estimate(name, data_set, value, error, value - half, value + half, p)


def first_coefficients(found: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first coefficients of a fit by statsmodels, and their covariance."""
    return np.asarray(found.params)[:count], np.asarray(found.cov_params())[:count, :count]


def is_usable(covariance: np.ndarray) -> bool:
    """Whether a fit gave a covariance to test by."""
    return bool(np.isfinite(covariance).all() and (np.diag(covariance) > 0).all())


def fit_linear_model(
    scores: pd.DataFrame, stages: Sequence[str], data_sets: Sequence[str], options: AnalysisOptions
) -> LinearModel | Unavailable:
    r"""Fit purity ~ stage x data set + order + (1 | participant) by REML, with Wald tests.

    .. math:: F=\frac1q(Lb)^\top(LVL^\top)^{-1}(Lb)

    with the estimates b and their covariance V has q and N - rank(X, participants) degrees of
    freedom; as every term varies within participants this is exact for a balanced design. Source:
    Pinheiro and Bates, Mixed-Effects Models in S and S-PLUS, 2000, section 2.4; fit:
    `statsmodels.MixedLM`. A fit that does not converge is replaced by fixed intercepts of
    participants, a variance between participants of 0 by ordinary least squares, which is the same
    model; `reason` says so.

    Args:
        scores: trials of one arm, see `score_trials`.
        stages: in the wanted order; the last one with trials is the coding's -1.
        data_sets: keys, in the wanted order.
        options: level of the intervals.
    """
    trials = scores[scores["purity"].notna()].reset_index(drop=True)
    people = trials["participant"].nunique()
    if people < 2:
        return Unavailable(f"a mixed model needs at least 2 participants, got {people}")
    design = build_design(trials, stages, data_sets)
    outcome = trials["purity"].to_numpy(dtype="float64")
    dummies = pd.get_dummies(trials["participant"]).to_numpy(dtype="float64")
    within = np.column_stack([dummies, design.matrix.to_numpy()])
    df = len(trials) - int(np.linalg.matrix_rank(within))
    total = float(((outcome - outcome.mean()) ** 2).sum())
    if not design.terms:
        return Unavailable("there is nothing to compare: one stage, one data set, one position")
    if total < _EXACT_FIT:
        return Unavailable("every trial has the same purity, so there is nothing to explain")
    if df < 1:
        return Unavailable(
            f"{len(trials)} trials of {people} participants are too few for the model's "
            f"{design.matrix.shape[1]} coefficients"
        )
    residual = outcome - within @ np.linalg.lstsq(within, outcome, rcond=None)[0]
    if float((residual**2).sum()) < _EXACT_FIT**0.5 * total:
        return Unavailable("the model fits every trial exactly, so no variation is left to test by")
    return _fit(trials["participant"].to_numpy(), outcome, within, design, df, options.level)


def _fit(
    people: np.ndarray,
    outcome: np.ndarray,
    within: np.ndarray,
    design: Design,
    df: int,
    level: float,
) -> LinearModel:
    """The mixed model, or what takes its place."""
    matrix, estimator, between = design.matrix.to_numpy(), MIXED, None
    count = matrix.shape[1]
    unit = float(outcome.std())  # the optimiser's tolerances are meant for numbers about 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found, reason = _fit_mixed(outcome / unit, matrix, people)
    if found is None:  # centred participants as fixed effects leave the intercept the mean
        estimator, unit = FIXED, 1.0
        others = within[:, : within.shape[1] - count]
        centred = (others - others.mean(0))[:, :-1]
        found = sm.OLS(outcome, np.column_stack([matrix, centred])).fit()
    else:
        variance = float(np.asarray(found.cov_re)[0, 0])
        between = variance**0.5 * unit
        if variance < _SINGULAR * float(found.scale) or _better_at_zero(found):
            estimator, unit, between = ORDINARY, 1.0, 0.0
            reason = (
                "the variance between participants is estimated as 0, where the mixed model is the "
                "same"
            )
            found = sm.OLS(outcome, matrix).fit()
    values, covariance = first_coefficients(found, count)
    fit = Coefficients(design, values * unit, covariance * unit**2, level, df)
    return LinearModel(
        estimator=estimator,
        reason=reason,
        participants=len(set(people)),
        trials=len(outcome),
        df=df,
        terms=fit.terms(),
        coefficients=fit.all(),
        contrasts=fit.contrasts(),
        participant_sd=between,
        residual_sd=float(found.scale) ** 0.5 * unit,
        dropped=design.dropped,
        messages=tuple(dict.fromkeys(" ".join(str(w.message).split()) for w in caught)),
    )


def _better_at_zero(found: Any) -> bool:
    """Whether REML is higher without variance between participants than where the fit stopped.

    Optimisers stop a little before this boundary, at estimates that belong to no model.
    """
    zero = MixedLMParams.from_components(found.fe_params, cov_re=np.array([[_SINGULAR]]))
    return bool(found.model.loglike(zero) >= found.model.loglike(found.params_object))


def _fit_mixed(outcome: np.ndarray, matrix: np.ndarray, people: np.ndarray) -> tuple[Any, str]:
    """The REML fit of the standardised outcome, or None and why there is none."""
    try:
        found = sm.MixedLM(outcome, matrix, groups=people).fit(reml=True, method=list(_OPTIMISERS))
    except (np.linalg.LinAlgError, ValueError, FloatingPointError) as error:
        return None, f"the mixed model could not be fitted ({error})"
    if not found.converged:
        return None, f"the mixed model did not converge with {', '.join(_OPTIMISERS)}"
    if not is_usable(first_coefficients(found, matrix.shape[1])[1]):
        return None, "the mixed model gave no covariance of its estimates"
    return found, ""
