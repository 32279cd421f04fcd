"""Run the benchmark on FunnyBirds: record once, then class by class, resumable."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torchxnn.apps.benchmark.blind import Blind, fit_blind
from torchxnn.apps.benchmark.bounds import BOUNDS
from torchxnn.apps.benchmark.class_by_class import (
    Measurement,
    Opened,
    Plan,
    measure_classes,
    open_benchmark,
)
from torchxnn.apps.benchmark.funnybirds.maps import see
from torchxnn.apps.benchmark.funnybirds.measure import Ready, contenders, measure_class, wanted
from torchxnn.apps.benchmark.funnybirds.protocol import Defaults, count_class
from torchxnn.apps.benchmark.funnybirds.settings import TruthConfig, refuse_unknown_rules
from torchxnn.apps.benchmark.methods import BLIND
from torchxnn.apps.benchmark.peers import PEERS
from torchxnn.apps.benchmark.tasks import Task
from torchxnn.apps.benchmark.variants import SEEN
from torchxnn.attribution.methods import OF_ANY_MODULE
from torchxnn.errors import DataError, XNNError
from torchxnn.parallel.process import one_thread
from torchxnn.storage.artifact import plain


def run_funnybirds(
    plan: Plan, config: TruthConfig
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Fit all methods to every class and measure whether what they say is true.

    Every class is one file in `classes/`, and the XNN of today's default is kept in `xnns/`; a run
    that was killed goes on with the classes that are missing. The protocol of the data set's
    authors, which asks about several classes of each image, follows when all are fitted, with its
    own files in `official/`.

    Returns:
        Records by class index in ascending order, and what the protocol counted, likewise; empty
        without it.

    Raises:
        DataError: broken data, no part maps, a class with fewer than 2 test images, or the folder
            belongs to another run.
        XNNError: settings out of range.
    """
    _check_methods(config)
    config = replace(config, official_rules=config.official_rules or OF_ANY_MODULE)
    opened, wanted = open_benchmark(plan, _check_birds)
    prepare = partial(_prepare, config)
    with one_thread():
        prepare(opened)  # fits what all classes share, once and for all processes
    everything = plain(config)
    of_classes = {key: value for key, value in everything.items() if "official" not in key}
    fitted = sorted(contenders(config, opened.recorded.train.are_maps))
    measured = Measurement(
        "classes",
        measure_class,
        prepare,
        settings={"truth": of_classes, "ceilings, floors and peers": fitted},
    )
    records = measure_classes(plan, measured, opened, wanted)
    if not config.official:
        return records, {}
    counted = Measurement(
        "official", count_class, partial(_defaults, config), settings={"truth": everything}
    )
    return records, measure_classes(plan, counted, opened, wanted)


def _check_birds(task: Task, wanted: list[int]) -> None:
    for target in wanted:
        if len(task.positives(target)) < 2:
            raise DataError(
                f"{task.classes[target]} has fewer than 2 test images, and what an x-feature is "
                "about must come from another image than the one that is explained; leave the "
                "class out with --classes"
            )
    see(task, task.positives(wanted[0])[:1])  # part maps are there


def _check_methods(config: TruthConfig) -> None:
    known = [*SEEN, *BLIND, "Lasso", *BOUNDS, *PEERS]
    unknown = [name for name in config.methods if name not in known]
    if unknown:
        raise XNNError(f"there is no method {unknown[0]!r}; known: {', '.join(map(repr, known))}")
    refuse_unknown_rules(config.official_rules, OF_ANY_MODULE)


def _prepare(config: TruthConfig, opened: Opened) -> Ready:
    data = opened.recorded.fit_data(opened.config.train)
    blind = Blind({}, {}, {})
    if not data.train.are_maps and any(wanted(config, name) for name in BLIND):
        blind = fit_blind(data, opened.config, opened.folder)
    kept = ~opened.recorded.held_out(opened.config.train)
    return Ready(opened, data, kept.repeat(1 + opened.config.copies), blind, config)


def _defaults(config: TruthConfig, opened: Opened) -> Defaults:
    return Defaults(_prepare(config, opened))
