"""Assumptions of a power analysis of answers; light, as the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass

from torchxnn.errors import DataError


@dataclass(frozen=True)
class AnswerPowerOptions:
    """Assumptions about right answers in percent, and what is asked for.

    Attributes:
        effect: share right with XNN minus with 1-Heatmap, in percentage points.
        baseline: share right with 1-Heatmap.
        sd_between: standard deviation of participants, in log odds.
        sd_items: standard deviation of pictures, in log odds.
        answers: of each participant that count.
        stages: that participants are divided among.
        alpha: of the primary test, two-sided.
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
    sd_between: float = 0.7
    sd_items: float = 0.7
    answers: int = 30
    stages: int = 3
    alpha: float = 0.05
    power: float = 0.8
    largest: int = 600
    lost: float = 0.1
    runs: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "effect must be above 0": self.effect > 0,
            "baseline must be above 0": self.baseline > 0,
            "baseline and effect together must be below 100": self.baseline + self.effect < 100,
            "sd_between must be 0 or more": self.sd_between >= 0,
            "sd_items must be 0 or more": self.sd_items >= 0,
            "answers must be 1 or more": self.answers >= 1,
            "stages must be 2 or more": self.stages >= 2,
            "alpha must be between 0 and 1": 0 < self.alpha < 1,
            "power must be between 0 and 1": 0 < self.power < 1,
            "largest must be 12 or more": self.largest >= 12,
            "lost must be at least 0 and below 1": 0 <= self.lost < 1,
            "runs must be 100 or more": self.runs >= 100,
        }
        for rule, holds in checks.items():
            if not holds:
                raise DataError(f"{rule}, got {getattr(self, rule.split()[0])}")
