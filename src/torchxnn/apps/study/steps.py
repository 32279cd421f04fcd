"""The pages that a participant passes through, one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torchxnn.apps.study.design import Trial, draw_trials
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import PRACTICE, Stage

ABOUT, INSTRUCTIONS, RATINGS, DONE = "about-you", "instructions", "ratings", "done"

LATE, UNFINISHED = "late", "unfinished"
"""Pages, no steps: for those whose place was given away, and for those whom the recruiter takes for
finished before they are."""


SECONDS_PER_IMAGE = 12.0
"""Assumed for looking at an image and its heatmaps and putting it into a group."""

OTHER_MINUTES = 5.0
"""Assumed for consent, instructions, practice and questions."""


def stage_step(position: int) -> str:
    """The page of a batch."""
    return f"stage/{position}"


def confidence_step(position: int) -> str:
    """The page after a batch."""
    return f"stage/{position}/confidence"


def words_step(position: int) -> str:
    """The page after a batch where people say in their own words what the network looks at."""
    return f"stage/{position}/words"


def trials_of(plan: StudyPlan, arm: str, place: int) -> tuple[Trial, ...]:
    """What a participant sees, see `draw_trials`."""
    keys = [data.key for data in plan.data_sets]
    return draw_trials(plan.settings, plan.settings.arm(arm), keys, place)


def count_trials(plan: StudyPlan, arm: str) -> int:
    """Batches that count, in an arm."""
    settings = plan.settings
    stages = settings.repeats if settings.between else len(settings.arm(arm).all_stages)
    return stages * len(plan.data_sets)


def stages_of(plan: StudyPlan, arm: str, place: int) -> set[Stage]:
    """Stages that a participant meets."""
    return {trial.stage for trial in trials_of(plan, arm, place)}


def minutes_of(plan: StudyPlan, arm: str) -> int:
    """How long an arm takes, as its pages say: what the settings say, or an estimate.

    The estimate is `SECONDS_PER_IMAGE` for each image and `OTHER_MINUTES` for all else, in whole
    fives.
    """
    images = count_trials(plan, arm) * plan.settings.images_per_set
    if plan.settings.task == "forward_simulation":
        images *= 2  # those to learn from, too
    estimate = OTHER_MINUTES + images * SECONDS_PER_IMAGE / 60
    return plan.settings.minutes or 5 * math.ceil(estimate / 5)


def steps_of(plan: StudyPlan, arm: str) -> list[str]:
    """Names of all pages in order; each is the path of the page."""
    pages = [ABOUT] if plan.settings.demographics else []
    pages += [INSTRUCTIONS, stage_step(PRACTICE)]
    for position in range(1, count_trials(plan, arm) + 1):
        words = [words_step(position)] if plan.settings.task == "odd_cue" else []
        pages += [stage_step(position), *words, confidence_step(position)]
    return [*pages, RATINGS, DONE]


def next_step(steps: Sequence[str], step: str) -> str:
    """The page after a page; the last one stays."""
    return steps[min(list(steps).index(step) + 1, len(steps) - 1)]


def attention_position(plan: StudyPlan, arm: str) -> int | None:
    """The batch after which attention is checked: the middle one; None for nowhere."""
    return (count_trials(plan, arm) + 1) // 2 if plan.settings.attention_check else None
