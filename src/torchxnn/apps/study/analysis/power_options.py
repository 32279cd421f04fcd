"""Assumptions of a power analysis; light, as the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchxnn.errors import DataError


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
        checks = {
            "effect must be above 0": self.effect > 0,
            "baseline must be between 0 and 100": 0 < self.baseline < 100,
            "sd_between must be 0 or more": self.sd_between >= 0,
            "sd_within must be above 0": self.sd_within > 0,
            "data_sets must be 1 or more": self.data_sets >= 1,
            "images must be 2 or more": self.images >= 2,
            "groups must be 1 or more": self.groups >= 1,
            "alpha must be between 0 and 1": 0 < self.alpha < 1,
            "power must be between 0 and 1": 0 < self.power < 1,
            "largest must be 2 or more": self.largest >= 2,
            "lost must be at least 0 and below 1": 0 <= self.lost < 1,
            "runs must be 100 or more": self.runs >= 100,
        }
        for rule, holds in checks.items():
            if not holds:
                raise DataError(f"{rule}, got {getattr(self, rule.split()[0])}")
