"""Arms, whose participants are different people, compared by purity."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pandas as pd

from torchxnn.apps.study.analysis.options import ONE_HEATMAP, XNN_STAGE, AnalysisOptions, stage_in
from torchxnn.apps.study.analysis.paired import Question, UnpairedComparison, compare_unpaired
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import Arm

BETWEEN = "between arms"
"""Family of the tests between arms."""


@dataclass(frozen=True)
class ArmStages:
    """A stage of one arm and a stage of another that are compared.

    Attributes:
        arm: differences are its purity minus the other's.
        stage: of it.
        other: second arm.
        other_stage: of the second arm.
    """

    arm: Arm
    stage: str
    other: Arm
    other_stage: str

    @property
    def check(self) -> bool:
        """Whether both show the same, so that a difference says that the people are not alike."""
        return self.stage == self.other_stage and _shown(self.arm, self.stage) == _shown(
            self.other, self.stage
        )

    @property
    def names(self) -> tuple[str, str]:
        """Of both, for people."""
        return (
            f"{stage_in(self.arm, self.stage)} in {self.arm.name}",
            f"{stage_in(self.other, self.other_stage)} in {self.other.name}",
        )


def _shown(arm: Arm, stage: str) -> tuple[str, str]:
    return arm.shown(stage), arm.method if stage == ONE_HEATMAP else ""


def arm_pairs(plan: StudyPlan) -> list[ArmStages]:
    """The main arm's stages with the same of the others, and its XNN with their 1-Heatmap.

    Of the others, XNN is compared where they show different things in it.
    """
    main, others, found = plan.main, plan.arms[1:], list[ArmStages]()
    for arm in others:
        shared = [stage for stage in arm.all_stages if stage in main.all_stages]
        found += [ArmStages(main, stage, arm, stage) for stage in shared]
        if XNN_STAGE in main.all_stages and XNN_STAGE not in arm.all_stages:
            found.append(ArmStages(main, XNN_STAGE, arm, ONE_HEATMAP))
    with_xnn = [arm for arm in others if XNN_STAGE in arm.all_stages]
    return found + [
        ArmStages(one, XNN_STAGE, other, XNN_STAGE)
        for one, other in combinations(with_xnn, 2)
        if one.shows != other.shows
    ]


def compare_arms(
    scores: pd.DataFrame, plan: StudyPlan, options: AnalysisOptions
) -> list[UnpairedComparison]:
    """Compare the stages of `arm_pairs` on every data set; checks have no family."""
    found = []
    for pair, data in product(arm_pairs(plan), plan.data_sets):
        family = "" if pair.check else BETWEEN
        ours = purity_of(scores, pair.arm.name, data.key, pair.stage)
        theirs = purity_of(scores, pair.other.name, data.key, pair.other_stage)
        question = Question("purity", data.key, *pair.names, family)
        found.append(compare_unpaired(ours, theirs, options, question))
    return found


def purity_of(scores: pd.DataFrame, arm: str, data_set: str, stage: str) -> np.ndarray:
    """Purity of the trials of one stage of an arm on a data set."""
    rows = (scores["arm"] == arm) & (scores["data_set"] == data_set) & (scores["stage"] == stage)
    return scores.loc[rows, "purity"].to_numpy(dtype="float64")
