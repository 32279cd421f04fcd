"""Run a benchmark: record once, fit and measure class by class, resume."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchxnn.apps.benchmark.blind import fit_blind
from torchxnn.apps.benchmark.class_by_class import (
    Measurement,
    Opened,
    Plan,
    measure_classes,
    open_benchmark,
)
from torchxnn.apps.benchmark.measure import Prepared, measure_class
from torchxnn.parallel.process import one_thread

SAVED = ("XNN", "SRAE", "SRAE-R", "NN")
"""Methods whose fits are kept as XNNs, for the figures."""


def run_benchmark(plan: Plan) -> dict[str, Any]:
    """Fit and measure all methods on every class, and write what was found.

    Every class is one file in `classes/`; a run that was killed goes on with those that are
    missing. A class is computed by one process with one thread.

    Returns:
        Records by class index, in ascending order.

    Raises:
        DataError: broken data, or the folder belongs to another run.
        XNNError: settings out of range.
    """
    opened, wanted = open_benchmark(plan)
    with one_thread():
        _prepare(opened)  # fits what all classes share, once and for all processes
    return measure_classes(plan, BENCHMARK, opened, wanted)


def _prepare(opened: Opened) -> Prepared:
    data = opened.recorded.fit_data(opened.config.train)
    return Prepared(opened, data, fit_blind(data, opened.config, opened.folder))


def _measure(ready: Prepared, target: int) -> dict[str, Any]:
    opened = ready.opened
    record, fits = measure_class(ready, target)
    for method in SAVED:
        embedding = fits.methods[method]
        xnn = opened.task.xnn(embedding.n_features)
        outputs = opened.recorded.train.n_outputs
        xnn.attach_embedding(embedding, (target,), outputs, fits.reports[method])
        xnn.save_pretrained(saved_xnn(opened.folder, target, method))
    return asdict(record)


BENCHMARK = Measurement("classes", _measure, _prepare)
"""Files of the figures of all methods on a class."""


def saved_xnn(folder: Path, target: int, method: str = "SRAE") -> Path:
    """Folder of the XNN that was fitted to a class."""
    return folder / "xnns" / f"{target:04d}" / method
