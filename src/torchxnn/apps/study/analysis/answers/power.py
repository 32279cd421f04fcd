"""How many participants a study of answers needs: power of the primary test by simulation."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import binomtest, mannwhitneyu

from torchxnn.apps.study.analysis.answers.power_options import AnswerPowerOptions
from torchxnn.apps.study.analysis.power import Power
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.errors import DataError
from torchxnn.storage.artifact import structure

FEWEST = 4
"""Participants of a stage with which the test can be significant at all."""


@dataclass(frozen=True)
class AnswerSampleSize:
    """The answer to "how many participants?".

    Attributes:
        participants: in all stages together, after exclusions; None if
            `AnswerPowerOptions.largest` is not enough.
        recruit: the same before exclusions.
        curve: power at every number that was tried, ascending.
        options: assumptions.
        source: where the design comes from.
    """

    participants: int | None
    recruit: int | None
    curve: tuple[Power, ...]
    options: AnswerPowerOptions
    source: str = "given"

    @classmethod
    def read(cls, path: Path) -> AnswerSampleSize:
        """Read what `xnn study power-answers --out` wrote.

        Raises:
            DataError: another file.
        """
        try:
            return structure(json.loads(path.read_bytes()), cls, str(path))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} is no result of `xnn study power-answers --out`: {error}"
            ) from error

    def sentence(self) -> str:
        """The answer with its assumptions."""
        made = self.options
        answer = (
            f"With up to {made.largest} analysed participants the power stays below {made.power:g}"
            if self.participants is None
            else f"{self.participants} analysed participants in {made.stages} stages, so "
            f"{self.recruit} recruited if {made.lost:.0%} are excluded, have a power of at least "
            f"{made.power:g}"
        )
        return (
            f"{answer} to find more right answers with XNN than with 1-Heatmap by Mann and "
            f"Whitney's test (alpha = {made.alpha:g}, two-sided). Assumed ({self.source}): "
            f"{made.baseline:g}% right with 1-Heatmap, {made.effect:g} percentage points more with "
            f"XNN, {made.answers} answers of each participant, a standard deviation of "
            f"{made.sd_between:g} between participants and {made.sd_items:g} between pictures in "
            f"log odds. {made.runs:,} simulated studies per number, seed {made.seed}."
        )


def simulate_answers(
    options: AnswerPowerOptions, participants: int
) -> tuple[Float[np.ndarray, "runs participants"], Float[np.ndarray, "runs participants"]]:
    """Shares of right answers of simulated participants with XNN and with 1-Heatmap.

    Log odds are normal over participants, and over pictures that all of a study see alike. Every
    number of participants begins with the same ones.
    """
    rng = np.random.default_rng(options.seed)
    items = rng.normal(0, options.sd_items, (options.runs, 1, options.answers))
    found = []
    for mean in (options.baseline + options.effect, options.baseline):
        centre = _log_odds(mean / 100, float(np.hypot(options.sd_between, options.sd_items)))
        shares = np.empty((options.runs, participants))
        for person in range(participants):
            own = rng.normal(0, options.sd_between, (options.runs, 1, 1))
            right = rng.random((options.runs, 1, options.answers)) < expit(centre + own + items)
            shares[:, person] = right.mean(axis=(1, 2))
        found.append(shares)
    return found[0], found[1]


def _log_odds(share: float, deviation: float) -> float:
    """The centre of normal log odds whose mean probability is a share."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    return float(brentq(lambda c: float(weights @ expit(c + deviation * nodes)) - share, -40, 40))


def estimate_power(first: np.ndarray, second: np.ndarray, options: AnswerPowerOptions) -> Power:
    """Share of the simulated studies whose test finds more right answers in the first stage."""
    test: Any = mannwhitneyu(first, second, axis=1, method="asymptotic")
    higher = test.statistic > first.shape[1] * second.shape[1] / 2
    found = int(((test.pvalue < options.alpha) & higher).sum())
    interval = binomtest(found, options.runs).proportion_ci(method="wilson")
    people = options.stages * first.shape[1]
    return Power(people, found / options.runs, float(interval.low), float(interval.high))


def find_answer_sample_size(options: AnswerPowerOptions, source: str = "given") -> AnswerSampleSize:
    """Smallest number of participants with the wanted power, by doubling and then halving."""
    most = max(FEWEST, options.largest // options.stages)
    first, second = simulate_answers(options, most)
    tried: dict[int, Power] = {}

    def enough(people: int) -> bool:
        if people not in tried:
            tried[people] = estimate_power(first[:, :people], second[:, :people], options)
        return tried[people].low >= options.power

    low, high = FEWEST - 1, min(2 * FEWEST, most)
    while not enough(high) and high < most:
        low, high = high, min(2 * high, most)
    found = high if enough(high) else None
    while found is not None and found - low > 1:
        middle = (low + found) // 2
        low, found = (low, middle) if enough(middle) else (middle, found)
    people = None if found is None else found * options.stages
    return AnswerSampleSize(
        participants=people,
        recruit=None if people is None else ceil(people / (1 - options.lost) - 1e-9),
        curve=tuple(tried[n] for n in sorted(tried)),
        options=options,
        source=source,
    )


def answer_design_of(plan: StudyPlan) -> dict[str, int]:
    """`AnswerPowerOptions` by name that a study's design tells: answers and stages."""
    settings = plan.settings
    batches = settings.repeats * len(plan.data_sets)
    each = settings.images_per_set if settings.task == "forward_simulation" else 1
    return {"answers": batches * each, "stages": len(plan.main.all_stages)}


def with_design(options: AnswerPowerOptions, plan: StudyPlan) -> AnswerPowerOptions:
    """The assumptions with the design of a study in place of theirs."""
    return replace(options, **answer_design_of(plan))
