"""How much of an explanation other fits of the same class find again.

What differs from fit to fit is the seed alone, the images held out, or the sample of the images and
the seed. Fits are compared by their contributions to the logit on the images of the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.apps.benchmark.class_by_class import (
    Measurement,
    Opened,
    Plan,
    measure_classes,
    open_benchmark,
)
from torchxnn.apps.benchmark.job_settings import COMPONENTS, REFITS, Refits, StabilityConfig
from torchxnn.apps.benchmark.methods import FitData
from torchxnn.apps.benchmark.over_classes import interval_of_mean, mean, paired_test, with_holm
from torchxnn.apps.benchmark.record import Recorded
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.apps.benchmark.variants import SEEN
from torchxnn.data.positives import find_positives, resample, sample_classes
from torchxnn.embeddings.apply import anchor, apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.components import find_components, read_logits
from torchxnn.embeddings.directions import as_directions
from torchxnn.errors import XNNError
from torchxnn.metrics.evaluation import Measured, measure_activations
from torchxnn.metrics.stability import Run, Stability, Swap, functional_swap, measure_stability
from torchxnn.storage.artifact import plain
from torchxnn.training.fit import fit_group
from torchxnn.training.restarts import FitResult

FEW = 20
"""Test images of a class below which its held-out training images are compared, too."""

TESTED = ("matched", "once", "swap_r_lost", "swap_r2_lost", "r2", "active")
"""Figures in which the first method is tested against every other."""


Job = tuple[FitData, int]
"""Data and seed of one fit."""


@dataclass(frozen=True, eq=False)
class Ready:
    """What a process needs for every class.

    Attributes:
        opened: network, images and settings.
        jobs: the fits of each kind.
    """

    opened: Opened
    jobs: Mapping[Refits, Sequence[Job]]


@dataclass(frozen=True, eq=False)
class Images:
    """Images of a class on which its fits are compared.

    Attributes:
        z: activations, (M, S_z) or maps.
        logit: the network's own, (M,).
    """

    z: Float[Tensor, "images dims *map"]
    logit: Float[Tensor, " images"]


@dataclass(frozen=True, eq=False)
class Refit:
    """One fit.

    Attributes:
        embedding: what was fitted.
        start: contributions on the images of the class where its first trial began, (M, n); None
            of what has no start.
    """

    embedding: Embedding
    start: Float[Tensor, "images features"] | None


@dataclass(frozen=True, eq=False)
class Told:
    """What one fit says.

    Attributes:
        own: contributions on the images of the class, (M, n).
        start: the same where the fit began.
        run: contributions on all training and test images.
        test: figures of all test images.
    """

    own: Float[Tensor, "images features"]
    start: Float[Tensor, "images features"] | None
    run: Run
    test: Measured


def run_stability(plan: Plan, config: StabilityConfig | None = None) -> dict[str, Any]:
    """Refit every class and measure what is found again.

    Resumable by class and method; the results do not depend on `plan.jobs`.

    Returns:
        `settings`; `methods`: by method, kind of refits and figure (`figures_of`) the mean over
        classes and its bootstrap interval (95%); `tests`: two-sided Wilcoxon tests of the first
        method against the others over classes, p after Holm over all of them; `classes`: the same
        figures per class, by method.

    Raises:
        DataError: broken data, no such class, or the folder belongs to another run.
        XNNError: settings out of range.
    """
    config = config or StabilityConfig()
    config.check()
    opened, wanted = open_benchmark(plan)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in config.methods:
        settings = {"fits": config.fits, "method": name}
        measured = Measurement(
            "stability",
            partial(_measure, name),
            partial(_prepare, config.fits),
            settings,
            key=f"{name}-{config.fits}",
        )
        found[name] = measure_classes(plan, measured, opened, wanted)
    return summarise(found, config)


def summarise(
    found: Mapping[str, Mapping[str, Mapping[str, Any]]], config: StabilityConfig
) -> dict[str, Any]:
    """What `run_stability` returns, from figures by method and class."""
    return {
        "settings": plain(config),
        "methods": {
            name: {
                kind: {
                    figure: _interval([row["refits"][kind][figure] for row in rows.values()])
                    for figure in next(iter(rows.values()))["refits"][kind]
                }
                for kind in REFITS
            }
            for name, rows in found.items()
            if rows
        },
        "tests": _tests(found),
        "classes": found,
    }


def _interval(values: Sequence[float | None]) -> dict[str, float | None]:
    low, high = interval_of_mean(values) or (None, None)
    return {"mean": mean(values), "low": low, "high": high}


def _tests(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    first, *others = found

    def column(method: str, kind: Refits, figure: str) -> list[float | int | None]:
        return [found[method][target]["refits"][kind][figure] for target in found[first]]

    return with_holm(
        [
            {"refits": kind, "figure": figure, "first": first, "other": other, **tested}
            for other in others
            for kind in REFITS
            for figure in TESTED
            if (tested := paired_test(column(first, kind, figure), column(other, kind, figure)))
        ]
    )


def _prepare(fits: int, opened: Opened) -> Ready:
    """Samples of the images are the same for all classes, and what fits to them share is, too."""
    recorded, train, seed = opened.recorded, opened.config.train, opened.config.train.seed
    splits = [recorded.fit_data(replace(train, seed=seed + each)) for each in range(fits)]
    first, copies = splits[0], opened.config.copies
    drawn = [resample(first.train, each, copies) for each in range(1, fits + 1)]
    jobs: dict[Refits, list[Job]] = {
        "seeds": [(first, seed + each) for each in range(fits)],
        "splits": [(data, seed) for data in splits],
        "bootstraps": [
            (FitData(data, first.validation), seed + each) for each, data in enumerate(drawn, 1)
        ],
    }
    return Ready(opened, jobs)


def _measure(name: str, ready: Ready, target: int) -> dict[str, Any]:
    opened = ready.opened
    images = _images(opened, target)
    told = _fit_all(name, ready, target, images)
    logit = opened.recorded.test.logits[:, target]
    return {
        "name": opened.task.classes[target],
        "images": len(images.z),
        "refits": {
            kind: figures_of([told[job] for job in jobs], images.logit, logit)
            for kind, jobs in ready.jobs.items()
        },
    }


def _images(opened: Opened, target: int) -> Images:
    """Located images of a class, and where these are few the training images first held out."""
    recorded: Recorded = opened.recorded
    rows = torch.tensor(opened.task.positives(target), dtype=torch.long)
    z, logit = recorded.located.z[rows], recorded.located.logits[rows, target]
    if len(rows) < FEW:
        held_out = recorded.held_out(opened.config.train)
        more = held_out & (sample_classes(recorded.train) == target)
        z = torch.cat([z, recorded.train.z[more]])
        logit = torch.cat([logit, recorded.train.logits[more, target]])
    return Images(z, logit)


def _fit_all(name: str, ready: Ready, target: int, images: Images) -> dict[Job, Told]:
    """Every fit once; those to the same images as one group."""
    opened, recorded = ready.opened, ready.opened.recorded
    wanted = dict.fromkeys(job for jobs in ready.jobs.values() for job in jobs)
    told: dict[Job, Told] = {}
    for data in dict.fromkeys(data for data, _ in wanted):
        seeds = [seed for each, seed in wanted if each is data]
        fits = _refit(name, data, target, opened.config, seeds, images)
        for seed, fit in zip(seeds, fits, strict=True):
            test = measure_activations(fit.embedding, recorded.test, (target,))
            told[data, seed] = Told(
                _contributions(fit.embedding, images.z),
                fit.start,
                Run(
                    _contributions(fit.embedding, recorded.train.z),
                    test.embedded.contributions[:, 0],
                    test.embedded.reproduced[:, 0],
                ),
                test,
            )
    return told


def _contributions(
    embedding: Embedding, z: Float[Tensor, "images dims *map"]
) -> Float[Tensor, "images features"]:
    return apply_embedding(embedding, z).contributions[:, 0]


def _refit(
    name: str,
    data: FitData,
    target: int,
    config: BenchmarkConfig,
    seeds: Sequence[int],
    images: Images,
) -> list[Refit]:
    """Fits to the same images that differ in their seeds, in the order of the seeds."""
    if name == COMPONENTS:
        return [
            Refit(components_alone(data, target, config.n_features, seed), None) for seed in seeds
        ]
    starts: dict[int, Float[Tensor, "images features"]] = {}
    results: dict[int, FitResult] = {}

    def begin(position: int, trial: int, embedding: Embedding) -> None:
        if trial == 0:
            starts[position] = _contributions(embedding, images.z)

    fit_group(
        data.train,
        data.validation,
        [(target,)] * len(seeds),
        config.n_features,
        SEEN[name](config.of(name)),
        None,
        results.__setitem__,
        starts=data.starts,
        seeds=seeds,
        on_start=begin,
    )
    found = []
    for position in range(len(seeds)):
        result = results[position]
        if isinstance(result, XNNError):
            raise result
        found.append(Refit(result[0], starts[position]))
    return found


def components_alone(data: FitData, target: int, n_features: int, seed: int) -> Embedding:
    """Contributions of the independent components, which add up to a linear model of the logit.

    Raises:
        DataError: see `find_components`.
    """
    train, starts = data.train, data.starts
    readout = starts.once(train, "logits", lambda: read_logits(train.z, train.logits))
    positives = find_positives(train, [target])[0]
    found = find_components(train.z, readout, target, positives[:, 0], n_features, seed)
    embedding = as_directions(found.weight, found.bias, train.z)
    with torch.no_grad():
        embedding.readout.weight.fill_(1.0)
        embedding.readout.bias.zero_()
    anchor(embedding, train.z, positives)
    return embedding


def figures_of(
    told: Sequence[Told], own_logit: Float[Tensor, " images"], logit: Float[Tensor, " tested"]
) -> dict[str, float | int | None]:
    """What several fits of one class have in common.

    Args:
        told: of each fit.
        own_logit: the network's own logit on the images of the class, (M,).
        logit: the same on all test images.

    Returns:
        `matched`: mean correlation of matched contributions over all pairs of fits, the logit
        taken out; `chance`: the same of shuffled images; `start`: the same before training, None
        without a start; `concepts` and `once`: see `Stability`; `plain` and `plain_chance`: with
        the logit left in; `swap_r`, `swap_r_lost`, `swap_r2_lost`: see `Swap`; `r2` and `active`:
        means over the fits, on all test images.
    """
    agree = measure_stability([each.own for each in told], without=own_logit)
    simple = measure_stability([each.own for each in told])
    begun = [each.start for each in told if each.start is not None]
    before = measure_stability(begun, without=own_logit).value if begun else None
    swaps = _swaps([each.run for each in told], agree, logit)
    faithful = [each.test.faithfulness for each in told]
    return {
        "matched": agree.value,
        "chance": agree.chance,
        "start": before,
        "concepts": mean(agree.concepts),
        "once": agree.once,
        "plain": simple.value,
        "plain_chance": simple.chance,
        "swap_r": mean([each.r for each in swaps]),
        "swap_r_lost": mean([each.r_lost for each in swaps]),
        "swap_r2_lost": mean([each.r2_lost for each in swaps]),
        "r2": mean([each.r2 for each in faithful]),
        "active": mean([each.active for each in faithful]),
    }


def _swaps(runs: Sequence[Run], agree: Stability, logit: Float[Tensor, " tested"]) -> list[Swap]:
    """Every pair of fits both ways."""
    swaps = []
    for (first, second), match in zip(agree.fits, agree.matches, strict=True):
        back = [match.index(feature) for feature in range(len(match))]
        swaps.append(functional_swap(runs[first], runs[second], match, logit))
        swaps.append(functional_swap(runs[second], runs[first], back, logit))
    return swaps
