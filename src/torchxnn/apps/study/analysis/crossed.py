"""The mixed model of purity with participants and batches of pictures as crossed random factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

from torchxnn.apps.study.analysis.design_matrix import (
    BOTH,
    DATA_SET,
    ORDER,
    STAGE,
    Design,
    build_design,
)
from torchxnn.apps.study.analysis.models import (
    Coefficients,
    Estimate,
    LinearModel,
    TermTest,
    Unavailable,
    fit_linear_model,
)
from torchxnn.apps.study.analysis.options import AnalysisOptions

CROSSED = (
    "linear mixed model with random intercepts of participants, of batches of pictures, and of "
    "batches in each stage (REML)"
)

_PARTICIPANTS = "participants"
_BATCHES = "batches of pictures"
_SUITS = "batches in each stage"
FACTORS = (_PARTICIPANTS, _BATCHES, _SUITS)
"""What is random, in the order of the variances."""

_START = (0.5, 0.2, 0.2)  # variances / residual variance
_MOST = 1e4
_SINGULAR = 1e-6
_EXACT_FIT = 1e-10  # residual / total sum of squares


@dataclass(frozen=True, eq=False)
class Fit:
    """Estimates of a linear model with crossed random intercepts.

    Attributes:
        values: of the coefficients.
        covariance: of them.
        variances: of the random factors, in the order given.
        residual: variance.
        criterion: -2 log of the restricted likelihood.
    """

    values: np.ndarray
    covariance: np.ndarray
    variances: np.ndarray
    residual: float
    criterion: float


class Restricted:
    r"""The restricted likelihood of y = Xb + Zu + e as a function of variance ratios.

    .. math:: -2\log L=\log|\Lambda Z^\top Z\Lambda+I|+\log|R_X^\top R_X|
        +(n-p)\left(1+\log\frac{2\pi r^2}{n-p}\right)

    with the penalised residual sum of squares r squared, b and the residual variance profiled out.
    Source: Bates, Maechler, Bolker and Walker, Fitting linear mixed-effects models using lme4,
    2015, sections 3.4 and 3.6. Written out because `statsmodels.MixedLM` takes crossed factors as
    one dense group: 9 s a fit for 100 participants, and it stops short of variances of 0; tests
    compare the two.

    Args:
        outcome: (n,).
        matrix: X, (n, p), of full rank.
        factors: level of every row, (n,), per random factor.
    """

    def __init__(
        self, outcome: np.ndarray, matrix: np.ndarray, factors: Sequence[np.ndarray]
    ) -> None:
        dummies = [pd.get_dummies(levels).to_numpy(dtype="float64") for levels in factors]
        z = np.hstack(dummies)
        self.sizes = [one.shape[1] for one in dummies]
        self.degrees = len(outcome) - matrix.shape[1]
        self.zz, self.zx, self.zy = z.T @ z, z.T @ matrix, z.T @ outcome
        self.xx, self.xy = matrix.T @ matrix, matrix.T @ outcome
        self.yy = float(outcome @ outcome)

    def fit(self, ratios: np.ndarray) -> Fit:
        """Estimates at variances that are these multiples of the residual variance."""
        scale = np.repeat(np.sqrt(ratios), self.sizes)
        inner = scale[:, None] * self.zz * scale + np.eye(len(scale))
        lower = cholesky(inner, lower=True, check_finite=False)
        right = np.column_stack([scale[:, None] * self.zx, scale * self.zy])
        right = solve_triangular(lower, right, lower=True, check_finite=False)
        rzx, cu = right[:, :-1], right[:, -1]
        root = cholesky(self.xx - rzx.T @ rzx, lower=True, check_finite=False)
        values = cho_solve((root, True), self.xy - rzx.T @ cu)
        squares = self.yy - float(cu @ cu) - float(values @ (self.xy - rzx.T @ cu))
        variance = squares / self.degrees
        criterion = 2 * float(np.log(np.diag(lower)).sum() + np.log(np.diag(root)).sum())
        criterion += self.degrees * (1 + float(np.log(2 * np.pi * variance)))
        covariance = variance * cho_solve((root, True), np.eye(len(root)))
        return Fit(values, covariance, ratios * variance, variance, criterion)

    def best(self) -> Fit | None:
        """The estimates that maximise it, with variances of 0 where it is highest there; or None.

        None stands for an optimiser that does not converge.
        """
        bounds = [(0.0, _MOST)] * len(self.sizes)
        start = np.array(_START[: len(self.sizes)])
        try:
            found = minimize(
                lambda ratios: self.fit(np.asarray(ratios)).criterion,
                start,
                method="L-BFGS-B",
                bounds=bounds,
            )
        except np.linalg.LinAlgError:
            return None
        ratios = np.where(found.x < _SINGULAR, 0.0, found.x)
        return self.fit(ratios) if found.success and ratios.max() < _MOST else None


def fit_purity_model(
    scores: pd.DataFrame, stages: Sequence[str], data_sets: Sequence[str], options: AnalysisOptions
) -> LinearModel | Unavailable:
    """Fit purity ~ stage x data set + order with participants and batches as crossed factors.

    A batch has a random intercept (it is hard or easy) and one in each stage (it suits a stage by
    chance). Terms and differences of stages are tested with the degrees of freedom of the stratum
    that they vary in: batches in each stage for stages, batches for data sets, trials for order; so
    a claim about stages needs several batches, whatever the number of participants. Source:
    Pinheiro and Bates, Mixed-Effects Models in S and S-PLUS, 2000, section 2.4. Where the batches
    are too few, or the fit does not converge, `fit_linear_model` takes its place, and `reason` says
    so; a variance of 0 is named there, too.

    Args:
        scores: trials of one arm, see `score_trials`.
        stages: those to be compared, in the wanted order; trials of others are left out.
        data_sets: keys, in the wanted order.
        options: level of the intervals.
    """
    known = scores["purity"].notna() & scores["stage"].isin(list(stages))
    trials = scores[known].reset_index(drop=True)
    crossed = _fit_crossed(trials, stages, data_sets, options)
    if isinstance(crossed, LinearModel):
        return crossed
    plain = fit_linear_model(trials, stages, data_sets, options)
    if isinstance(plain, Unavailable):
        return plain
    reasons = [f"pictures are no random factor, as {crossed.reason}", plain.reason]
    return replace(plain, reason="; ".join(reason for reason in reasons if reason))


def _fit_crossed(
    trials: pd.DataFrame, stages: Sequence[str], data_sets: Sequence[str], options: AnalysisOptions
) -> LinearModel | Unavailable:
    outcome = trials["purity"].to_numpy(dtype="float64")
    if trials["participant"].nunique() < 2 or np.ptp(outcome) < _EXACT_FIT:
        return Unavailable("there is no variation")
    design, factors = build_design(trials, stages, data_sets), _levels(trials)
    degrees, matrix = _strata(trials, design, factors), design.matrix.to_numpy()
    if not design.terms or min(degrees.values()) < 1:
        return Unavailable("too few batches were seen in several stages")
    found = Restricted(outcome, matrix, factors).best()
    if found is None:
        return Unavailable("the model with batches did not converge")
    if found.residual < _EXACT_FIT * outcome.var():
        return Unavailable("participants and batches explain every trial exactly")
    base = Coefficients(design, found.values, found.covariance, options.level)
    terms, coefficients = _by_stratum(base, degrees)
    zero = [name for name, v in zip(FACTORS, found.variances, strict=True) if v == 0]
    people, batches, suits = (float(v) ** 0.5 for v in found.variances)
    return LinearModel(
        estimator=CROSSED,
        reason=f"the variance of {' and of '.join(zero)} is estimated as 0" if zero else "",
        participants=trials["participant"].nunique(),
        trials=len(trials),
        df=degrees.get(STAGE, degrees[ORDER]),
        terms=terms,
        coefficients=coefficients,
        contrasts=replace(base, df=degrees.get(STAGE)).contrasts(),
        participant_sd=people,
        residual_sd=found.residual**0.5,
        dropped=design.dropped,
        messages=(),
        batch_sd=batches,
        suits_sd=suits,
    )


def _levels(trials: pd.DataFrame) -> list[np.ndarray]:
    """The level of every trial in each of `FACTORS`."""
    batch = trials["data_set"].astype(str) + "/" + trials["set"].astype(str)
    suits = batch + "/" + trials["stage"].astype(str)
    return [trials["participant"].to_numpy(), batch.to_numpy(), suits.to_numpy()]


def _strata(trials: pd.DataFrame, design: Design, factors: list[np.ndarray]) -> dict[str, int]:
    """Degrees of freedom by term: of the random factor within which the term varies."""
    _, batch, suits = factors
    cells = pd.DataFrame({"batch": batch, "of": trials["data_set"] + "/" + trials["stage"]})
    cells = cells.assign(suits=suits).drop_duplicates("suits")
    spread = pd.get_dummies(cells[["batch", "of"]]).to_numpy(dtype="float64")
    every = [pd.get_dummies(levels).to_numpy(dtype="float64") for levels in factors]
    within = np.column_stack([*every, design.matrix.to_numpy()])
    rest = len(trials) - int(np.linalg.matrix_rank(within))
    of_cells = len(cells) - int(np.linalg.matrix_rank(spread))
    of_batches = len(set(batch)) - trials["data_set"].nunique()
    found = {STAGE: of_cells, BOTH: of_cells, DATA_SET: of_batches}
    terms = {term: min(found.get(term, rest), rest) for term in design.terms}
    return {**terms, ORDER: rest}


def _by_stratum(
    base: Coefficients, degrees: dict[str, int]
) -> tuple[tuple[TermTest, ...], tuple[Estimate, ...]]:
    """Tests of the terms, and the coefficients, each with the degrees of freedom of its term."""
    terms, names = base.design.terms, list(base.design.matrix.columns)
    tests = tuple(replace(base, df=degrees[term]).test(term) for term in terms)
    owner = {column: term for term, columns in terms.items() for column in columns}
    known = [degrees[owner.get(name, ORDER)] for name in names]
    return tests, tuple(replace(base, df=df).all()[at] for at, df in enumerate(known))
