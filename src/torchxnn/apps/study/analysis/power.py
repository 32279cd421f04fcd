"""How many participants a study needs: power of the primary analysis by simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from torchxnn.apps.study.analysis.arm_power_options import ArmPowerOptions
from torchxnn.apps.study.analysis.exclusions import select_participants
from torchxnn.apps.study.analysis.models import Unavailable, fit_linear_model
from torchxnn.apps.study.analysis.options import ONE_HEATMAP, PILOT, STAGES, AnalysisOptions
from torchxnn.apps.study.analysis.paired import signed_rank
from torchxnn.apps.study.analysis.power_curve import Answer, Power, power_of, search
from torchxnn.apps.study.analysis.power_options import PowerOptions
from torchxnn.apps.study.analysis.purity import score_trials
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.errors import DataError
from torchxnn.metrics.intervals import holm_adjust


@dataclass(frozen=True)
class SampleSize(Answer):
    """How many participants a comparison of stages needs that everybody sees; see `Answer`.

    Attributes:
        effect: mean difference of the simulated purities in percentage points: bounds and steps
            make it smaller than `PowerOptions.effect`.
        options: assumptions.
    """

    COMMAND: ClassVar[str] = "xnn study power"

    effect: float
    options: PowerOptions

    def sentence(self) -> str:
        """The answer with its assumptions."""
        made = self.options
        sets = "the" if made.data_sets == 1 else f"{made.need} of {made.data_sets}"
        assumed = (
            f"mean purity {made.baseline:g}% with 1-Heatmap, {made.effect:g} percentage points "
            f"more with XNN ({self.effect:.1f} within the bounds of purity), standard deviation "
            f"{made.sd_between:g} between participants and {made.sd_within:g} within, batches of "
            f"{made.images} pictures in {made.groups} groups"
        )
        found = (
            f"a difference in favour of XNN on {sets} data set{'s' * (made.data_sets > 1)} by "
            f"Wilcoxon's signed-rank test (Holm, alpha = {made.alpha:g})"
        )
        return self.in_words(made, "", found, assumed)


def find_sample_size(options: PowerOptions, source: str = "given") -> SampleSize:
    """Smallest number of participants with the wanted power, by doubling and then halving.

    The same simulated participants come in the same order at every number, so that the curve is
    smooth. The exact signed-rank test needs at least 6 differences that are not 0. `source` says,
    for reports, where the assumptions come from.

    Example:
        >>> answer = find_sample_size(PowerOptions(effect=15, runs=200))
    """
    differences = simulate_differences(options)
    found = search(
        lambda people: estimate_power(differences[:, :, :people], options),
        options,
        fewest=2,
        first=6,
    )
    return SampleSize(
        participants=found.participants,
        recruit=found.recruit,
        curve=found.curve,
        effect=100 * float(differences.mean()),
        options=options,
        source=source,
    )


def simulate_differences(options: PowerOptions) -> Float[np.ndarray, "runs data_sets participants"]:
    """Differences of purity, XNN minus 1-Heatmap, of simulated participants, in shares.

    See `draw_purity`.
    """
    rng = np.random.default_rng(options.seed)
    shape = (options.runs, options.data_sets, options.largest)
    own = rng.normal(0, options.sd_between, (options.runs, 1, options.largest))
    first, second = (
        draw_purity(mean, own, shape, options, rng)
        for mean in (options.baseline + options.effect, options.baseline)
    )
    return first - second


def draw_purity(
    mean: float,
    own: Float[np.ndarray, "runs 1 participants"],
    shape: tuple[int, int, int],
    options: PowerOptions | ArmPowerOptions,
    rng: np.random.Generator,
) -> Float[np.ndarray, "runs data_sets participants"]:
    """Purity of simulated participants, in shares.

    It is normal about the stage's mean with a deviation `own` of the participant, both in
    percentage points, rounded to whole pictures and cut off at what the purity of a batch can be:
    from the share of the largest of evenly spread classes to 1.
    """
    least = ceil(options.images / options.groups) / options.images
    drawn = (mean + own + rng.normal(0, options.sd_within, shape)) / 100
    return np.clip(np.round(drawn * options.images) / options.images, least, 1)


def estimate_power(
    differences: Float[np.ndarray, "runs data_sets participants"], options: PowerOptions
) -> Power:
    """Share of the simulated studies in which the primary analysis finds what is needed."""
    join = all if options.need == "all" else any
    found = 0
    for study in differences:
        tests = [signed_rank(one) for one in study]
        corrected = holm_adjust([test.p for test in tests])
        hits = [
            p < options.alpha and test.favours_first
            for p, test in zip(corrected, tests, strict=True)
        ]
        found += join(hits)
    return power_of(differences.shape[2], found, len(differences))


def assumptions_from_pilots(
    tables: Mapping[str, pd.DataFrame], plan: StudyPlan, options: AnalysisOptions
) -> dict[str, float]:
    """Standard deviations and mean purity with 1-Heatmap of the pilots of the main arm.

    The exclusion rules are those of `options`. Participants who are not pilots are never looked at,
    and the effect is not estimated: pilots are too few for it.

    Returns:
        `PowerOptions` by name: baseline, sd_between, sd_within, in percentage points.

    Raises:
        DataError: too few pilots.
    """
    people = tables["participants"]
    pilots = {**tables, "participants": people[people["kind"] == PILOT]}
    kept = select_participants(pilots, replace(options, include_pilots=True)).kept
    scores = score_trials(tables["trials"], tables["placements"], kept)
    scores = scores[scores["arm"] == plan.main.name]
    model = fit_linear_model(scores, STAGES, [d.key for d in plan.data_sets], options)
    baseline = scores.loc[scores["stage"] == ONE_HEATMAP, "purity"]
    if isinstance(model, Unavailable) or baseline.empty:
        reason = model.reason if isinstance(model, Unavailable) else "no trial of 1-Heatmap"
        raise DataError(
            f"{len(kept)} pilots do not tell the standard deviations ({reason}); collect more with "
            "`xnn study serve --pilot`, or leave --study out and give --baseline, --sd-between and "
            "--sd-within"
        )
    return {
        "baseline": round(100 * float(baseline.mean()), 1),
        "sd_between": round(100 * (model.participant_sd or 0.0), 1),
        "sd_within": round(100 * model.residual_sd, 1),
    }


def design_of(plan: StudyPlan) -> dict[str, int]:
    """`PowerOptions` by name that a study's design tells: data_sets, images, groups."""
    images, groups = plan.settings.images_per_set, plan.groups
    return {"data_sets": len(plan.data_sets), "images": images, "groups": groups}
