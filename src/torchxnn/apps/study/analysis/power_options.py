"""Assumptions of a power analysis; light, as the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchxnn.apps.study.analysis.power_asked import check_asked, rules_of_batches


@dataclass(frozen=True)
class PowerOptions:
    """Assumptions about purity, in percentage points, and what is asked for.

    Attributes:
        effect: mean purity with XNN minus with 1-Heatmap, the same on every data set, before
            purity is cut off at its bounds.
        baseline: mean purity with 1-Heatmap.
        sd_between: standard deviation of participants' means.
        sd_within: standard deviation of one participant's batches in one stage.
        data_sets: number, each of them tested.
        images: pictures in a batch.
        groups: groups, as many as classes.
        alpha: of the family, two-sided, after Holm.
        power: wanted.
        need: which tests must be significant in favour of XNN: all data sets, or any.
        largest: number of participants that is not exceeded.
        lost: share of participants who will be excluded.
        runs: simulated studies per number of participants.
        seed: of the simulation.

    Raises:
        DataError: a value that makes no sense.
    """

    effect: float = 10.0
    baseline: float = 62.0
    sd_between: float = 6.0
    sd_within: float = 13.0
    data_sets: int = 2
    images: int = 10
    groups: int = 4
    alpha: float = 0.05
    power: float = 0.8
    need: Literal["all", "any"] = "all"
    largest: int = 300
    lost: float = 0.1
    runs: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "effect must be above 0": self.effect > 0,
            "baseline must be between 0 and 100": 0 < self.baseline < 100,
            **rules_of_batches(self),
        }
        check_asked(self, rules, fewest=2)
