"""Run the benchmark on FunnyBirds: record once, then class by class, resumable."""

from __future__ import annotations

from functools import partial
from typing import Any

from torchxnn.apps.benchmark.blind import Blind, fit_blind
from torchxnn.apps.benchmark.class_by_class import (
    Measurement,
    Opened,
    Plan,
    measure_classes,
    open_benchmark,
)
from torchxnn.apps.benchmark.funnybirds.measure import Ready, measure_class
from torchxnn.apps.benchmark.funnybirds.protocol import count_class
from torchxnn.apps.benchmark.funnybirds.settings import TruthConfig
from torchxnn.parallel.process import one_thread


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
        DataError: broken data, or the folder belongs to another run.
        XNNError: settings out of range.
    """
    opened, wanted = open_benchmark(plan)
    prepare = partial(_prepare, config)
    with one_thread():
        prepare(opened)  # fits what all classes share, once and for all processes
    settings = {"truth": config}
    measured = Measurement("classes", measure_class, prepare, settings=settings)
    records = measure_classes(plan, measured, opened, wanted)
    if not config.official:
        return records, {}
    counted = Measurement("official", count_class, prepare, settings=settings)
    return records, measure_classes(plan, counted, opened, wanted)


def _prepare(config: TruthConfig, opened: Opened) -> Ready:
    data = opened.recorded.fit_data(opened.config.train)
    blind = Blind({}, {}, {})
    if not data.train.are_maps:
        blind = fit_blind(data, opened.config, opened.folder)
    kept = ~opened.recorded.held_out(opened.config.train)
    return Ready(opened, data, kept.repeat(1 + opened.config.copies), blind, config)
