"""The design matrix that the mixed and the ordinal model share: stage x data set + order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

INTERCEPT = "intercept"
STAGE, DATA_SET, BOTH, ORDER = "stage", "data set", "stage x data set", "order"


@dataclass(frozen=True, eq=False)
class Design:
    """Columns of a model.

    Factors have sum-to-zero coding, so that the test of a main effect averages over the other
    factor (type III). Order is the position of the trial minus its mean.

    Attributes:
        matrix: a row per trial.
        terms: columns of each term; the intercept is not a term.
        stages: levels of the factor stage.
        data_sets: levels of the factor data set.
        cells: pairs of data set and stage that have trials.
        dropped: terms that the data cannot tell, with the reason.
    """

    matrix: pd.DataFrame
    terms: dict[str, tuple[str, ...]]
    stages: tuple[str, ...]
    data_sets: tuple[str, ...]
    cells: frozenset[tuple[str, str]]
    dropped: tuple[str, ...]

    def contrast(self, data_set: str, first: str, second: str) -> np.ndarray:
        """Weights of the columns in the expected difference first - second on a data set."""
        rows = pd.DataFrame({"stage": [first, second], "data_set": data_set, "position": 0.0})
        columns = _columns(rows, self.stages, self.data_sets, 0.0)
        cells = np.stack([columns[name] for name in self.matrix.columns], 1)
        return cells[0] - cells[1]

    def selector(self, term: str) -> np.ndarray:
        """Rows that pick the coefficients of a term."""
        names = list(self.matrix.columns)
        return np.eye(len(names))[[names.index(column) for column in self.terms[term]]]


def build_design(
    trials: pd.DataFrame, stages: Sequence[str], data_sets: Sequence[str], intercept: bool = True
) -> Design:
    """Columns for trials; terms that the data cannot tell from others are dropped and named.

    Trials have columns stage, data_set and position. Stages and keys of data sets are in the wanted
    order; those without trials are left out. Thresholds of an ordinal model take the place of the
    intercept.
    """
    levels = tuple(s for s in stages if (trials["stage"] == s).any())
    sets = tuple(d for d in data_sets if (trials["data_set"] == d).any())
    everything = _columns(trials, levels, sets, float(trials["position"].mean()))
    terms = {
        STAGE: tuple(n for n in everything if n.startswith("stage[") and ":" not in n),
        DATA_SET: tuple(n for n in everything if n.startswith("data_set[")),
        BOTH: tuple(n for n in everything if ":" in n),
        ORDER: (ORDER,),
    }
    chosen, kept, dropped = [INTERCEPT], dict[str, tuple[str, ...]](), list[str]()
    matrix = np.stack([everything[INTERCEPT]], 1)
    for term, columns in terms.items():
        if not columns:
            continue
        wider = np.column_stack([matrix, *(everything[name] for name in columns)])
        if np.linalg.matrix_rank(wider) < wider.shape[1]:
            dropped.append(f"{term} (these trials cannot tell it from the other terms)")
            continue
        matrix, kept[term] = wider, columns
        chosen += columns
    frame = pd.DataFrame(matrix, columns=chosen, index=trials.index)
    if not intercept:
        frame = frame.drop(columns=INTERCEPT)
    cells = frozenset(zip(trials["data_set"], trials["stage"], strict=True))
    return Design(frame, kept, levels, sets, cells, tuple(dropped))


def _columns(
    trials: pd.DataFrame, stages: Sequence[str], data_sets: Sequence[str], centre: float
) -> dict[str, np.ndarray]:
    stage = _sum_coded(trials, "stage", stages)
    data = _sum_coded(trials, "data_set", data_sets)
    both = {f"{s}:{d}": stage[s] * data[d] for s in stage for d in data}
    order = trials["position"].to_numpy(dtype="float64") - centre
    return {INTERCEPT: np.ones(len(trials)), **stage, **data, **both, ORDER: order}


def _sum_coded(trials: pd.DataFrame, factor: str, levels: Sequence[str]) -> dict[str, np.ndarray]:
    """A column per level but the last: 1 for the level, -1 for the last one, else 0."""
    hits = {level: (trials[factor] == level).to_numpy(dtype="float64") for level in levels}
    return {f"{factor}[{level}]": hits[level] - hits[levels[-1]] for level in levels[:-1]}
