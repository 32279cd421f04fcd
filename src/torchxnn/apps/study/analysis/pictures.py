"""Whether a difference of stages carries over to other pictures, not to other people alone.

Tests over participants take the batches of pictures as given: a stage that happens to suit the few
batches that were drawn is significant however many people come, and need not suit other pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from torchxnn.apps.study.analysis.paired import Question

FEWEST = 2
"""Participants, and batches, that a spread needs."""


@dataclass(frozen=True)
class CarryOver(Question):
    """A difference of two stages with participants and batches of pictures both drawn.

    Attributes:
        participants: with both stages.
        batches: seen by them in both stages.
        f_participants: F1, squared t of the participants' differences; None if it does not exist.
        p_participants: of F1: carries over to other participants who see these pictures.
        f_batches: F2, squared t of the batches' differences.
        p_batches: of F2: carries over to other batches seen by these participants.
        f_both: min F', F1 F2 / (F1 + F2).
        df_both: its second degrees of freedom; the first are 1.
        p_both: of min F': carries over to other participants who see other pictures.
        difference: mean of the participants', first - second.
        low: of an interval of it that holds for other participants and other pictures.
        high: of the interval.
    """

    participants: int
    batches: int
    f_participants: float | None = None
    p_participants: float | None = None
    f_batches: float | None = None
    p_batches: float | None = None
    f_both: float | None = None
    df_both: float | None = None
    p_both: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def p(self) -> float | None:
        """Before the correction: of min F'."""
        return self.p_both


def carry_over(trials: pd.DataFrame, question: Question, level: float = 0.95) -> CarryOver:
    r"""Test a difference of purity with participants and batches as random factors (min F').

    .. math:: F'_{min}=\frac{F_1F_2}{F_1+F_2},\quad
        df=\frac{(F_1+F_2)^2}{F_1^2/(n_2-1)+F_2^2/(n_1-1)}

    with F1 over n1 participants and F2 over n2 batches; a lower bound of the quasi-F ratio that has
    both as random factors. Source: Clark, The language-as-fixed-effect fallacy, 1973. The interval
    is that of t with Satterthwaite's degrees of freedom, where the variance of the mean is that
    over participants plus that over batches.

    Args:
        trials: of one arm, see `score_trials`; participants who lack a stage are left out.
        question: data set and stages.
        level: of the interval.
    """
    first, second = question.first, question.second
    at = trials["data_set"] == question.data_set
    rows = trials[at & trials["stage"].isin([first, second])]
    rows = rows[rows["purity"].notna()].astype({"purity": "float64"})
    complete = rows.groupby("participant")["stage"].transform("nunique") == 2
    rows = rows[complete]
    people = _differences(rows, "participant", first, second)
    batches = _differences(rows, "set", first, second)
    found = CarryOver(**vars(question), participants=len(people), batches=len(batches))
    one, two = _squared_t(people), _squared_t(batches)
    if one is None or two is None:
        return found
    n1, n2 = len(people) - 1, len(batches) - 1
    total = one + two
    least = one * two / total if total else 0.0
    df = total**2 / (one**2 / n2 + two**2 / n1) if total else float(min(n1, n2))
    mean, half = float(people.mean()), _half_width(people, batches, level)
    return replace(
        found,
        f_participants=one,
        p_participants=float(stats.f.sf(one, 1, n1)),
        f_batches=two,
        p_batches=float(stats.f.sf(two, 1, n2)),
        f_both=least,
        df_both=df,
        p_both=float(stats.f.sf(least, 1, df)),
        difference=mean,
        low=mean - half,
        high=mean + half,
    )


def _half_width(people: np.ndarray, batches: np.ndarray, level: float) -> float:
    """Half of the interval of a mean difference over both."""
    both = (people, batches)
    errors = [float(values.var(ddof=1)) / len(values) for values in both]
    total = sum(errors)
    df = total**2 / sum(e**2 / (len(v) - 1) for e, v in zip(errors, both, strict=True))
    return float(stats.t.ppf((1 + level) / 2, df)) * total**0.5


def _differences(rows: pd.DataFrame, unit: str, first: str, second: str) -> np.ndarray:
    """Mean of the first stage minus that of the second, of every unit that has both."""
    table = rows.pivot_table(index=unit, columns="stage", values="purity", aggfunc="mean")
    table = table.reindex(columns=[first, second]).dropna()
    return (table[first] - table[second]).to_numpy(dtype="float64")


def _squared_t(differences: np.ndarray) -> float | None:
    """F of a mean difference; None where there is no spread to test it by."""
    if len(differences) < FEWEST:
        return None
    error = differences.var(ddof=1) / len(differences)
    return float(differences.mean() ** 2 / error) if error > 1e-20 else None
