"""Whether the statistics of the study keep their promises, on studies whose truth is known.

    python perf/study_statistics.py --runs 1000 --json study_statistics.json

Purity is drawn for the orders and batches that `xnn study` would give: a participant, a batch, a
batch in a stage (which it suits by chance) and a participant in a stage each have a deviation of
their own, the position has a slope, and the rest is noise; in whole images and within the bounds of
purity. The true difference of XNN and 1-Heatmap is a mean over all people and all pictures. Every
study is analysed by the functions of `xnn study analyse`.

Printed is, for each method, the share of studies in which it finds a difference on at least one
data set after Holm (without a true difference: the error rate, which should be at most 5%; with
one: the power) and the share of its 95% intervals that hold the truth, each with its Monte-Carlo
standard error.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from torchxnn.apps.study.analysis.crossed import fit_purity_model
from torchxnn.apps.study.analysis.models import LinearModel
from torchxnn.apps.study.analysis.options import ASSISTED, PRIMARY_PAIR, AnalysisOptions
from torchxnn.apps.study.analysis.paired import Question, signed_rank
from torchxnn.apps.study.analysis.pictures import carry_over
from torchxnn.apps.study.analysis.resampling import participants_interval
from torchxnn.apps.study.design import draw_trials
from torchxnn.apps.study.settings import MAIN, StudySettings
from torchxnn.metrics.intervals import holm_adjust
from torchxnn.storage.files import replace_file

DATA_SETS = ("first", "second")
ALPHA = 0.05
IMAGES, LEAST = 10, 0.3
RANKS, BOTH, CROSSED = METHODS = (
    "signed-rank test, bootstrap over participants",
    "min F' and its interval",
    "mixed model, participants and batches random",
)


@dataclass(frozen=True)
class Truth:
    """What studies are drawn from; everything in shares of purity."""

    participants: int = 40
    batches: int = 5
    effect: float = 0.0
    """XNN minus 1-Heatmap over all people and pictures, before rounding and bounds"""
    participant_sd: float = 0.08
    slope_sd: float = 0.04
    """between participants in what a stage gives them"""
    batch_sd: float = 0.06
    suits_sd: float = 0.06
    """between batches in what a stage gives them"""
    noise_sd: float = 0.12
    order: float = 0.005
    """per position"""


@dataclass(frozen=True)
class Check:
    """What to simulate."""

    runs: int = 1000
    """studies per truth"""
    participants: tuple[int, ...] = (30, 100)
    batches: tuple[int, ...] = (5, 12)
    effects: tuple[float, ...] = (0.0, 0.15)
    suits: tuple[float, ...] = (0.0, 0.06)
    """standard deviations of how a batch suits a stage"""
    seed: int = 0
    json: Path | None = None
    """file for the figures"""


@dataclass
class Tally:
    """What a method said of the studies of one truth."""

    found: list[bool] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)


def design(truth: Truth) -> pd.DataFrame:
    """Trials of a study without purity, in the orders and batches that `xnn study` draws."""
    settings = StudySettings(title="simulated", sets=truth.batches)
    rows = [
        (person, trial.position, trial.stage, trial.data_set, trial.set)
        for person in range(truth.participants)
        for trial in draw_trials(settings, MAIN, DATA_SETS, person)
        if trial.stage in ASSISTED
    ]
    return pd.DataFrame(rows, columns=["participant", "position", "stage", "data_set", "set"])


def draw(trials: pd.DataFrame, truth: Truth, generator: np.random.Generator) -> pd.DataFrame:
    """The trials of a study with purity."""

    def deviations(sd: float, *of: str) -> np.ndarray:
        level = trials.groupby(list(of)).ngroup().to_numpy()
        return generator.normal(0, sd, level.max() + 1)[level]

    value = 0.65 + truth.effect * ((trials["stage"] == PRIMARY_PAIR[0]).to_numpy() - 0.5)
    value = value + deviations(truth.participant_sd, "participant")
    value += deviations(truth.slope_sd, "participant", "stage")
    value += deviations(truth.batch_sd, "data_set", "set")
    value += deviations(truth.suits_sd, "data_set", "set", "stage")
    value += truth.order * (trials["position"].to_numpy() - 4.5)
    value += generator.normal(0, truth.noise_sd, len(trials))
    return trials.assign(purity=np.clip(np.round(value * IMAGES) / IMAGES, LEAST, 1))


def true_difference(truth: Truth) -> float:
    """The mean difference after rounding and bounds, from a study of very many of everything."""
    if truth.effect == 0:
        return 0.0
    spread = [truth.participant_sd, truth.slope_sd, truth.batch_sd, truth.suits_sd, truth.noise_sd]
    generator = np.random.default_rng(1)
    noise = generator.normal(0, float(np.linalg.norm(spread)), 2_000_000)
    noise += truth.order * (generator.integers(3, 7, len(noise)) - 4.5)
    means = [
        np.clip(np.round((0.65 + side * truth.effect / 2 + noise) * IMAGES) / IMAGES, LEAST, 1)
        for side in (1, -1)
    ]
    return float(means[0].mean() - means[1].mean())


def analyse(trials: pd.DataFrame, options: AnalysisOptions) -> dict[str, list[tuple]]:
    """Give p and interval of each method on each data set."""
    found: dict[str, list[tuple]] = {name: [] for name in METHODS}
    for key in DATA_SETS:
        rows = trials[trials["data_set"] == key]
        wide = rows.pivot(index="participant", columns="stage", values="purity")
        differences = (wide[PRIMARY_PAIR[0]] - wide[PRIMARY_PAIR[1]]).to_numpy()
        interval = participants_interval([differences], np.mean, options)
        found[RANKS].append((signed_rank(differences).p, interval.low, interval.high))
        one = carry_over(trials, Question("purity", key, *PRIMARY_PAIR, ""), options.level)
        found[BOTH].append((one.p_both, one.low, one.high))
    model = fit_purity_model(trials, ASSISTED, DATA_SETS, options)
    if isinstance(model, LinearModel):
        found[CROSSED] = [(c.p, c.low, c.high) for c in model.contrasts]
    return found


def check(truth: Truth, runs: int, seed: int) -> dict[str, Tally]:
    """Draw and analyse studies; a method that gives nothing counts as having found nothing."""
    generator, trials, right = np.random.default_rng(seed), design(truth), true_difference(truth)
    tallies = {name: Tally() for name in METHODS}
    for _ in range(runs):
        study = draw(trials, truth, generator)
        for name, answers in analyse(study, AnalysisOptions(resamples=500)).items():
            known = [answer for answer in answers if answer[0] is not None]
            corrected = holm_adjust([p for p, *_ in known])
            tallies[name].found.append(any(p < ALPHA for p in corrected))
            tallies[name].held += [
                low <= right <= high for _, low, high in known if low is not None
            ]
    return tallies


def share(hits: list[bool]) -> tuple[float, float]:
    """A share and its Monte-Carlo standard error."""
    mean = float(np.mean(hits)) if hits else float("nan")
    return mean, (mean * (1 - mean) / max(1, len(hits))) ** 0.5


def main(asked: Check) -> None:
    """Check every truth, print the figures, and write them."""
    rows = []
    for people, batches, effect, suits in product(
        asked.participants, asked.batches, asked.effects, asked.suits
    ):
        truth = replace(
            Truth(), participants=people, batches=batches, effect=effect, suits_sd=suits
        )
        print(
            f"{people} participants, {batches} batches, difference {true_difference(truth):.3f}, "
            f"a batch suits a stage by {suits:g} (SD); {asked.runs} studies",
            flush=True,
        )
        for name, tally in check(truth, asked.runs, asked.seed).items():
            (found, of_found), (held, of_held) = share(tally.found), share(tally.held)
            print(
                f"  {name:46} significant {100 * found:5.1f}% ({100 * of_found:.1f})   interval "
                f"holds the truth {100 * held:5.1f}% ({100 * of_held:.1f})",
                flush=True,
            )
            figures = {"significant": found, "coverage": held}
            errors = {"significant_error": of_found, "coverage_error": of_held}
            rows.append({"method": name, **asdict(truth), "runs": asked.runs, **figures, **errors})
    if asked.json is not None:
        replace_file(asked.json, json.dumps(rows, indent=1).encode())


if __name__ == "__main__":
    main(tyro.cli(Check))
