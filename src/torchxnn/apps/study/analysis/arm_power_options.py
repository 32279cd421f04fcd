"""Assumptions of a power analysis of arms; light, as the command line reads it for its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchxnn.apps.study.analysis.power_asked import check_asked, rules_of_batches


@dataclass(frozen=True)
class ArmPowerOptions:
    """Assumptions about purity with XNN in several arms, in percentage points, and what is wanted.

    Attributes:
        purity: mean purity with XNN in each arm, the same on every data set, before it is cut off
            at its bounds; each participant is in one of the arms, as many in each.
        arms: their names; none numbers them.
        sd_between: standard deviation of participants' means.
        sd_within: standard deviation of one participant's batches.
        data_sets: number, each of them tested.
        images: pictures in a batch.
        groups: groups, as many as classes.
        others: further tests in the same family, which are taken to find nothing.
        alpha: of the family, two-sided, after Holm.
        power: wanted.
        need: which pairs of arms that differ in mean purity must be found on every data set, in the
            right direction: all, or any.
        largest: number of participants that is not exceeded, in all arms together.
        lost: share of participants who will be excluded.
        runs: simulated studies per number of participants.
        seed: of the simulation.

    Raises:
        DataError: a value that makes no sense.
    """

    purity: tuple[float, ...] = (76.0, 69.0, 62.0)
    arms: tuple[str, ...] = ()
    sd_between: float = 6.0
    sd_within: float = 13.0
    data_sets: int = 2
    images: int = 10
    groups: int = 4
    others: int = 0
    alpha: float = 0.05
    power: float = 0.8
    need: Literal["all", "any"] = "all"
    largest: int = 1500
    lost: float = 0.1
    runs: int = 1000
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Of the arms."""
        return self.arms or tuple(f"arm {n}" for n in range(1, len(self.purity) + 1))

    def __post_init__(self) -> None:
        rules = {
            "purity must be of 2 arms or more": len(self.purity) >= 2,
            "arms must be as many names as means": len(self.arms) in (0, len(self.purity)),
            "arms must have different names": len(set(self.arms)) == len(self.arms),
            "purity must be above 0 and below 100": all(0 < one < 100 for one in self.purity),
            "purity must differ between two arms": len(set(self.purity)) > 1,
            **rules_of_batches(self),
            "others must be 0 or more": self.others >= 0,
        }
        check_asked(self, rules, fewest=12)
