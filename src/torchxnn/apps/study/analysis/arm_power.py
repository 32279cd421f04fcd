"""How many participants a comparison of arms needs: what maps add to numbers, by simulation.

Arms are seen by different people, so that differences between people are in the error; and every
pair of arms is tested on every data set in one family.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import mannwhitneyu

from torchxnn.apps.study.analysis.arm_power_options import ArmPowerOptions
from torchxnn.apps.study.analysis.arms import arm_pairs
from torchxnn.apps.study.analysis.options import XNN_STAGE
from torchxnn.apps.study.analysis.power import design_of, draw_purity
from torchxnn.apps.study.analysis.power_curve import Answer, Power, most_of_each, power_of, search
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.errors import DataError
from torchxnn.explanations.sentences import listed
from torchxnn.metrics.intervals import holm_adjust

FEWEST = 4
"""Participants of an arm with which the test can be significant at all."""


@dataclass(frozen=True)
class ArmPair:
    """How often one pair of arms is found.

    Attributes:
        higher: the arm whose mean is higher.
        lower: the other one.
        difference: of the simulated means, in percentage points: bounds and steps of purity make it
            smaller than the difference that was given.
        power: share of the simulated studies that find it on every data set.
    """

    higher: str
    lower: str
    difference: float
    power: Power


@dataclass(frozen=True)
class ArmSampleSize(Answer):
    """How many participants a comparison of arms needs; see `Answer`.

    Attributes:
        pairs: every pair of arms that differ, at that number, or at the largest one.
        options: assumptions.
    """

    COMMAND: ClassVar[str] = "xnn study power-arms"

    pairs: tuple[ArmPair, ...]
    options: ArmPowerOptions

    def sentence(self) -> str:
        """The answer with its assumptions."""
        made = self.options
        wanted = "every difference" if made.need == "all" else "one difference"
        means = listed([f"{p:g}% in {arm}" for arm, p in zip(made.names, made.purity, strict=True)])
        sets = f"each of {made.data_sets} data sets" if made.data_sets > 1 else "the data set"
        more = f" with {made.others} further tests" * (made.others > 0)
        each = listed(
            [
                f"{p.higher} above {p.lower} ({p.difference:.1f} points) {p.power.power:.0%}"
                for p in self.pairs
            ]
        )
        found = (
            f"{wanted} of purity with {XNN_STAGE} between arms on {sets} by Mann and Whitney's "
            f"test (Holm over all pairs and data sets{more}, alpha = {made.alpha:g})"
        )
        assumed = (
            f"mean purity {means}, standard deviation {made.sd_between:g} between participants and "
            f"{made.sd_within:g} within, batches of {made.images} pictures in {made.groups} "
            f"groups. At {self.pairs[0].power.participants} the power of each, within the bounds "
            f"of purity: {each}"
        )
        return self.in_words(made, f" in {len(made.purity)} arms", found, assumed)


def simulate_arms(
    options: ArmPowerOptions, participants: int
) -> Float[np.ndarray, "arms runs data_sets participants"]:
    """Purity with XNN of simulated participants of every arm, in shares; see `draw_purity`."""
    rng = np.random.default_rng(options.seed)
    shape = (options.runs, options.data_sets, participants)
    found = []
    for mean in options.purity:
        own = rng.normal(0, options.sd_between, (options.runs, 1, participants))
        found.append(draw_purity(mean, own, shape, options, rng))
    return np.stack(found)


def find_pairs(
    purity: Float[np.ndarray, "arms runs data_sets participants"], options: ArmPowerOptions
) -> Bool[np.ndarray, "runs pairs"]:
    """Whether each study finds each pair of arms that differ, in order, on all data sets."""
    order = np.argsort([-mean for mean in options.purity], kind="stable")
    pairs = list(combinations(order, 2))
    ps, favours = [], []
    for first, second in pairs:
        test: Any = mannwhitneyu(purity[first], purity[second], axis=-1, method="asymptotic")
        ps.append(np.nan_to_num(test.pvalue, nan=1.0))  # NaN where all have the same purity
        favours.append(test.statistic > purity.shape[-1] ** 2 / 2)
    joined = np.stack(ps, axis=1)  # runs, pairs, data sets
    none = [1.0] * options.others
    corrected = np.array(
        [holm_adjust([*study.ravel(), *none])[: study.size] for study in joined]
    ).reshape(joined.shape)
    found = ((corrected < options.alpha) & np.stack(favours, axis=1)).all(axis=-1)
    differ = [options.purity[first] > options.purity[second] for first, second in pairs]
    return found[:, differ]


def find_arm_sample_size(options: ArmPowerOptions, source: str = "given") -> ArmSampleSize:
    """Smallest number of participants with the wanted power, by doubling and then halving.

    Example:
        >>> answer = find_arm_sample_size(ArmPowerOptions(purity=(80, 65, 50), runs=200))
    """
    arms = len(options.names)
    most = most_of_each(options, arms, FEWEST)
    purity = simulate_arms(options, most)
    join = np.all if options.need == "all" else np.any

    def estimate(people: int) -> Power:
        found = join(find_pairs(purity[..., :people], options), axis=1)
        return power_of(arms * people, int(found.sum()), options.runs)

    found = search(estimate, options, groups=arms, fewest=FEWEST, first=2 * FEWEST)
    return ArmSampleSize(
        participants=found.participants,
        recruit=found.recruit,
        curve=found.curve,
        pairs=_describe_pairs(purity[..., : found.each or most], options),
        options=options,
        source=source,
    )


def _describe_pairs(purity: np.ndarray, options: ArmPowerOptions) -> tuple[ArmPair, ...]:
    order = np.argsort([-mean for mean in options.purity], kind="stable")
    pairs = [(a, b) for a, b in combinations(order, 2) if options.purity[a] > options.purity[b]]
    hits, people = find_pairs(purity, options).sum(axis=0), len(options.names) * purity.shape[-1]
    return tuple(
        ArmPair(
            options.names[a],
            options.names[b],
            100 * float(purity[a].mean() - purity[b].mean()),
            power_of(people, int(count), options.runs),
        )
        for (a, b), count in zip(pairs, hits, strict=True)
    )


def arm_design_of(plan: StudyPlan) -> dict[str, Any]:
    """`ArmPowerOptions` by name that a study's design tells: arms, batches, size of the family.

    Raises:
        DataError: there are no two arms that show different things in the stage XNN.
    """
    arms = [arm for arm in plan.arms if XNN_STAGE in arm.all_stages]
    if len(arms) < 2 or len({arm.shows for arm in arms}) < len(arms):
        raise DataError(
            "the study has no arms that differ in what the stage XNN shows; give arms with "
            "`shows: numbers` or `shows: maps` in CONFIG.yaml, or use `xnn study power`"
        )
    family = sum(not pair.check for pair in arm_pairs(plan))
    pairs = len(arms) * (len(arms) - 1) // 2
    others = (family - pairs) * len(plan.data_sets)
    return {"arms": tuple(arm.name for arm in arms), "others": others, **design_of(plan)}
