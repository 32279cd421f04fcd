"""What an analysis does: the same for every command.

`preregister` prints these settings before data come in, and `analyse` obeys them afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import Arm, MachineRules
from torchxnn.errors import DataError

NO_VISUALISATION, ONE_HEATMAP, XNN_STAGE = "NoVis", "1-Heatmap", "XNN"
STAGES = (NO_VISUALISATION, ONE_HEATMAP, XNN_STAGE)
ASSISTED = (ONE_HEATMAP, XNN_STAGE)
PARTICIPANT, PILOT, SYNTHETIC = "participant", "pilot", "synthetic"

# (first, second): differences are first - second, so that positive favours the first
PRIMARY_PAIR = (XNN_STAGE, ONE_HEATMAP)
SECONDARY_PAIRS = ((XNN_STAGE, NO_VISUALISATION), (ONE_HEATMAP, NO_VISUALISATION))
PAIRS = (PRIMARY_PAIR, *SECONDARY_PAIRS)

METHOD_NAMES = {"excitation_backprop": "ExcitationBP", "deep_lift": "DeepLIFT"}


@dataclass(frozen=True)
class ExclusionRules:
    """Who is left out, decided before anybody looks at a result.

    People who withdrew are always left out.

    Attributes:
        attention: leave out who failed an attention check; a check that was not shown excludes
            nobody.
        minimum_seconds: leave out who spent less active time (page visible) on any analysed trial;
            0 turns the rule off; not asked of simulated participants.
        unfinished: leave out who did not finish; without it their submitted trials count wherever
            a pair is complete.
        machine: leave out who acts like a program; not asked of simulated participants.
        pauses: whether pauses between acts count for `machine`: only where pictures are grouped,
            as in the other tasks honest people answer in steady, quick clicks.

    Raises:
        DataError: a negative time.
    """

    attention: bool = True
    minimum_seconds: float = 15.0
    unfinished: bool = True
    machine: MachineRules = field(default_factory=MachineRules)
    pauses: bool = True

    def __post_init__(self) -> None:
        if not self.minimum_seconds >= 0:
            raise DataError(f"minimum_seconds must be 0 or more, got {self.minimum_seconds}")


@dataclass(frozen=True)
class AnalysisOptions:
    """Settings of an analysis.

    Attributes:
        exclusions: who is left out.
        include_pilots: analyse pilots too; the report then says so on every page.
        include_synthetic: analyse simulated participants too; the report then says so on every
            page.
        alpha: significance level of a family of tests, two-sided, in (0, 1).
        level: of all intervals, in (0, 1).
        resamples: of the bootstrap.
        seed: of the bootstrap and of the jitter in figures.

    Raises:
        DataError: a level outside (0, 1), or fewer than 100 resamples.
    """

    exclusions: ExclusionRules = field(default_factory=ExclusionRules)
    include_pilots: bool = False
    include_synthetic: bool = False
    alpha: float = 0.05
    level: float = 0.95
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.level < 1):
            raise DataError(
                f"alpha and level must be between 0 and 1, got {self.alpha} and {self.level}"
            )
        if self.resamples < 100:
            raise DataError(f"a bootstrap needs at least 100 resamples, got {self.resamples}")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of participants that are analysed."""
        pilots = (PILOT,) if self.include_pilots else ()
        return (PARTICIPANT, *pilots, *((SYNTHETIC,) if self.include_synthetic else ()))


def options_of(plan: StudyPlan) -> AnalysisOptions:
    """The analysis as planned: the study's exclusion rules, all else by default."""
    rules = plan.settings.exclusions
    return AnalysisOptions(
        ExclusionRules(
            rules.attention,
            rules.minimum_seconds,
            machine=rules.machine,
            pauses=not plan.settings.between,
        )
    )


def stage_name(stage: str, method: str) -> str:
    """A stage's name for people, such as "1-Heatmap (DeepLIFT)"."""
    if stage != ONE_HEATMAP:
        return stage
    return f"{stage} ({METHOD_NAMES.get(method, method)})"


def stage_in(arm: Arm, stage: str) -> str:
    """A stage's name, with what an arm shows if that is not the paper's: "XNN, numbers only"."""
    name, shown = stage_name(stage, arm.method), arm.shown(stage)
    return f"{name}, {shown} only" if stage == XNN_STAGE and shown != "both" else name


def floats(values: pd.Series) -> pd.Series:
    """Numbers as float64 with NaN for missing ones, whatever type an export has."""
    numbers = pd.to_numeric(values).to_numpy(dtype="float64", na_value=float("nan"))
    return pd.Series(numbers, index=values.index, name=values.name)
