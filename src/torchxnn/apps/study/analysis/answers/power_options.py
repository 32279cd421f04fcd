"""Assumptions of a power analysis of answers; light, as the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchxnn.apps.study.analysis.power_asked import check_asked


@dataclass(frozen=True)
class AnswerPowerOptions:
    """Assumptions about right answers in percent, and what is asked for.

    Attributes:
        effect: share right with the first stage minus with the second, in percentage points.
        baseline: share right with the second stage.
        compare: primary compares XNN with 1-Heatmap; secondary XNN or 1-Heatmap with NoVis, two
            tests of which each is held against alpha / 2, the first step of Holm's correction.
        measure: what is compared, the share of right answers or, with the odd cue, the pictures
            seen until the right one.
        sd_between: standard deviation of participants, in log odds.
        sd_items: standard deviation of pictures, with the odd cue of cues, in log odds.
        answers: of each participant that count.
        images: pictures that can be seen before an answer, with the odd cue.
        stages: that participants are divided among.
        alpha: of the family of tests, two-sided.
        power: wanted.
        largest: number of participants that is not exceeded, in all stages together.
        lost: share of participants who will be excluded.
        runs: simulated studies per number of participants.
        seed: of the simulation.

    Raises:
        DataError: a value that makes no sense.
    """

    effect: float = 10.0
    baseline: float = 65.0
    compare: Literal["primary", "secondary"] = "primary"
    measure: Literal["right", "seen"] = "right"
    sd_between: float = 0.7
    sd_items: float = 0.7
    answers: int = 30
    images: int = 10
    stages: int = 3
    alpha: float = 0.05
    power: float = 0.8
    largest: int = 600
    lost: float = 0.1
    runs: int = 1000
    seed: int = 0

    @property
    def tests(self) -> int:
        """In the family."""
        return 1 if self.compare == "primary" else 2

    def __post_init__(self) -> None:
        rules = {
            "effect must be above 0": self.effect > 0,
            "baseline must be above 0": self.baseline > 0,
            "baseline and effect together must be below 100": self.baseline + self.effect < 100,
            "sd_between must be 0 or more": self.sd_between >= 0,
            "sd_items must be 0 or more": self.sd_items >= 0,
            "answers must be 1 or more": self.answers >= 1,
            "images must be 1 or more": self.images >= 1,
            "stages must be 2 or more": self.stages >= 2,
        }
        check_asked(self, rules, fewest=12)
