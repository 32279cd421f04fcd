"""How many participants a study of answers needs: power of a comparison of stages by simulation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import mannwhitneyu

from torchxnn.apps.study.analysis.answers.power_options import AnswerPowerOptions
from torchxnn.apps.study.analysis.options import ONE_HEATMAP, XNN_STAGE
from torchxnn.apps.study.analysis.power_curve import Answer, Power, most_of_each, power_of, search
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.errors import DataError

FEWEST = 4
"""Participants of a stage with which the test can be significant at all."""


@dataclass(frozen=True)
class AnswerSampleSize(Answer):
    """How many participants a comparison of stages needs that other people see; see `Answer`.

    Attributes:
        effect: mean of the first stage minus mean of the second as simulated, of the measure: share
            of right answers from 0 to 1, or pictures.
        options: assumptions.
    """

    COMMAND: ClassVar[str] = "xnn study power-answers"

    effect: float
    options: AnswerPowerOptions

    def sentence(self) -> str:
        """The answer with its assumptions."""
        made = self.options
        first, second = _names(made)
        seen = made.measure == "seen"
        found = f"fewer pictures seen ({-self.effect:.1f} in the mean)" if seen else "more answers"
        early = f" among {made.images} pictures, each as likely to show it as the last," * seen
        corrected = " / 2 as in the first step of Holm's correction of two tests" * (made.tests > 1)
        what = (
            f"{found} {'until the right cue' if seen else 'right'} with {first} than with {second} "
            f"by Mann and Whitney's test (alpha = {made.alpha:g}{corrected}, two-sided)"
        )
        assumed = (
            f"{made.baseline:g}% right with {second}, {made.effect:g} percentage points more with "
            f"{first},{early} {made.answers} answers of each participant, a standard deviation of "
            f"{made.sd_between:g} between participants and {made.sd_items:g} between "
            f"{'cues' if seen else 'pictures'} in log odds"
        )
        return self.in_words(made, f" in {made.stages} stages", what, assumed)


def _names(options: AnswerPowerOptions) -> tuple[str, str]:
    """The two stages that are compared."""
    if options.compare == "primary":
        return XNN_STAGE, ONE_HEATMAP
    return f"{XNN_STAGE} or {ONE_HEATMAP}", "NoVis"


def simulate_answers(
    options: AnswerPowerOptions, participants: int
) -> tuple[Float[np.ndarray, "runs participants"], Float[np.ndarray, "runs participants"]]:
    """The measure, a mean of each simulated participant, in the first stage and in the second.

    Log odds of a right answer are normal over participants, and over pictures that all of a study
    see alike. With the odd cue the right one is found at each picture with the same probability, if
    it was not found before, so that it is found in time as often as answers are right; who does not
    find it counts one picture more than there are. Every number of participants begins with the
    same ones.
    """
    rng = np.random.default_rng(options.seed)
    items = rng.normal(0, options.sd_items, (options.runs, 1, options.answers))
    found = []
    for mean in (options.baseline + options.effect, options.baseline):
        centre = _log_odds(mean / 100, float(np.hypot(options.sd_between, options.sd_items)))
        means = np.empty((options.runs, participants))
        for person in range(participants):
            own = rng.normal(0, options.sd_between, (options.runs, 1, 1))
            share = expit(centre + own + items)
            drawn = rng.random((options.runs, 1, options.answers))
            value = drawn < share if options.measure == "right" else _seen(drawn, share, options)
            means[:, person] = value.mean(axis=(1, 2))
        found.append(means)
    return found[0], found[1]


def _seen(drawn: np.ndarray, share: np.ndarray, options: AnswerPowerOptions) -> np.ndarray:
    """Pictures until the right answer: geometric, so that `share` of them lie within the images."""
    missed = np.log1p(-share) / options.images  # log of the probability not to see it at a picture
    return np.minimum(np.ceil(np.log1p(-drawn) / missed), options.images + 1)


def _log_odds(share: float, deviation: float) -> float:
    """The centre of normal log odds whose mean probability is a share."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    return float(brentq(lambda c: float(weights @ expit(c + deviation * nodes)) - share, -40, 40))


def estimate_power(first: np.ndarray, second: np.ndarray, options: AnswerPowerOptions) -> Power:
    """Share of the simulated studies whose test finds the first stage better than the second."""
    test: Any = mannwhitneyu(first, second, axis=1, method="asymptotic")
    more = test.statistic - first.shape[1] * second.shape[1] / 2
    better = more > 0 if options.measure == "right" else more < 0
    found = int(((test.pvalue < options.alpha / options.tests) & better).sum())
    return power_of(options.stages * first.shape[1], found, options.runs)


def find_answer_sample_size(options: AnswerPowerOptions, source: str = "given") -> AnswerSampleSize:
    """Smallest number of participants with the wanted power, by doubling and then halving."""
    most = most_of_each(options, options.stages, FEWEST)
    first, second = simulate_answers(options, most)
    found = search(
        lambda people: estimate_power(first[:, :people], second[:, :people], options),
        options,
        groups=options.stages,
        fewest=FEWEST,
        first=2 * FEWEST,
    )
    return AnswerSampleSize(
        participants=found.participants,
        recruit=found.recruit,
        curve=found.curve,
        effect=float(first.mean() - second.mean()),
        options=options,
        source=source,
    )


def answer_design_of(plan: StudyPlan) -> dict[str, Any]:
    """`AnswerPowerOptions` by name that a study's design tells: answers, stages, images."""
    settings = plan.settings
    batches, images = settings.repeats * len(plan.data_sets), settings.images_per_set
    stages = len(plan.main.all_stages)
    if settings.task == "forward_simulation":
        return {"answers": batches * images, "stages": stages}
    return {"answers": batches, "stages": stages, "images": images}


def with_design(options: AnswerPowerOptions, plan: StudyPlan) -> AnswerPowerOptions:
    """The assumptions with the design of a study in place of theirs.

    Raises:
        DataError: the study has nothing of what is compared.
    """
    task = plan.settings.task
    if options.measure == "seen" and task != "odd_cue":
        raise DataError(
            f"measure 'seen' is of the task odd_cue, and the study has the task {task}; "
            "use --measure right"
        )
    return replace(options, **answer_design_of(plan))
