"""Run a benchmark: record once, fit and measure class by class, resume, summarise."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchxnn.apps.benchmark.blind import Blind, fit_blind
from torchxnn.apps.benchmark.measure import ClassFits, measure_class
from torchxnn.apps.benchmark.methods import FitData
from torchxnn.apps.benchmark.record import OnImages, Recorded, record_task
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.apps.benchmark.tasks import TASKS, Task, TaskSource
from torchxnn.errors import DataError, XNNError
from torchxnn.models.layers import resolve_layer
from torchxnn.parallel.engine import LocalEngine
from torchxnn.parallel.process import one_thread
from torchxnn.storage.artifact import __version__, differences, plain, to_json
from torchxnn.storage.files import replace_file
from torchxnn.xnn import XNN

SETTINGS = "benchmark.json"
SAVED = ("SRAE", "SRAE-R", "NN")
"""Methods whose fits are kept as XNNs, for the figures."""

OnClass = Callable[[int, int, str], None]
"""Called with classes done, their total, and the name of the last one."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """What a worker needs for every class."""

    task: Task
    recorded: Recorded
    data: FitData
    blind: Blind
    config: BenchmarkConfig
    folder: Path


def run_benchmark(
    source: TaskSource,
    targets: Sequence[int] | None,
    config: BenchmarkConfig,
    folder: Path,
    jobs: int = 1,
    on_images: OnImages | None = None,
    on_class: OnClass | None = None,
) -> dict[str, Any]:
    """Fit and measure all methods on every class, and write what was found.

    Every class is one file in `classes/`; a run that was killed goes on with those that are
    missing. Results do not depend on `jobs`: a class is computed by one process with one thread.

    Args:
        source: network and data.
        targets: class indices; None for all that have pictures to measure on.
        config: settings; a folder that holds a run with others is refused.
        folder: for everything that is written.
        jobs: processes.
        on_images: progress of recording.
        on_class: progress of classes.

    Returns:
        Records by class index, in ascending order.

    Raises:
        DataError: broken data, or the folder belongs to another run.
        XNNError: settings out of range.
    """
    if jobs < 1:
        raise XNNError(f"jobs must be at least 1, got {jobs}")
    task, wanted = open_run(source, targets, config, folder)
    recorded = record_task(task, config.copies, folder, on_images, jobs)
    with one_thread():
        fit_blind(recorded.fit_data(config.train), config, folder)
    todo = [target for target in wanted if not _path(folder, target).is_file()]
    done = len(wanted) - len(todo)
    engine = LocalEngine(jobs)
    for _, target in engine.run(_start_worker, (source, config, folder), _run_class, todo):
        done += 1
        if on_class is not None:
            on_class(done, len(wanted), task.classes[target])
    return {str(target): read_record(folder, target) for target in wanted}


def open_run(
    source: TaskSource, targets: Sequence[int] | None, config: BenchmarkConfig, folder: Path
) -> tuple[Task, list[int]]:
    """Open the data and the network, and claim the folder only if all that was named exists.

    So a mistyped path, layer or class leaves no folder behind that refuses the right one.

    Raises:
        DataError: see `run_benchmark`.
        LayerError: the network has no such layer.
    """
    task = TASKS[source.kind](source)
    resolve_layer(task.model, source.layer)
    wanted = chosen_targets(task, targets)
    claim(folder, source, config)
    return task, wanted


def claim(folder: Path, source: TaskSource, config: BenchmarkConfig) -> None:
    """Write down what a folder is for, or refuse one that is for something else."""
    about = plain({"source": source, "config": config, "version": __version__})
    path = folder / SETTINGS
    if path.is_file():
        found = read_saved(path, "start anew")
        kept = {name: found.get(name) for name in ("source", "config")}
        if changed := differences(kept, {name: about[name] for name in kept}):
            raise DataError(
                f"{folder} holds a benchmark with other settings: {'; '.join(changed)}; choose "
                "another --out, or the same settings to go on with it"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no benchmark; choose another --out")
    replace_file(path, to_json(about))


def chosen_targets(task: Task, targets: Sequence[int] | None) -> list[int]:
    """Class indices in ascending order; None for all that have pictures to measure on.

    Raises:
        DataError: no such class.
    """
    everything = range(len(task.classes))
    if targets is None:
        return [target for target in everything if task.positives(target)]
    outside = [target for target in targets if target not in everything]
    if outside:
        raise DataError(f"there is no class {outside[0]}; classes are 0 to {len(task.classes) - 1}")
    return sorted(set(targets))


def _path(folder: Path, target: int) -> Path:
    return folder / "classes" / f"{target:04d}.json"


def read_record(folder: Path, target: int) -> dict[str, Any]:
    """What was measured for a class."""
    return read_saved(_path(folder, target), "measure again")


def read_saved(path: Path, what: str) -> dict[str, Any]:
    """A file that a finished class has left behind.

    Raises:
        DataError: it cannot be read; delete it to do `what`.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it to {what}") from error
    return found


def saved_xnn(folder: Path, target: int, method: str = "SRAE") -> Path:
    """Folder of the XNN that was fitted to a class."""
    return folder / "xnns" / f"{target:04d}" / method


# --- classes, one after the other or several at once


def _start_worker(source: TaskSource, config: BenchmarkConfig, folder: Path) -> _Prepared:
    task = TASKS[source.kind](source)
    recorded = record_task(task, config.copies, folder)
    data = recorded.fit_data(config.train)
    blind = fit_blind(data, config, folder)
    return _Prepared(task, recorded, data, blind, config, folder)


def _run_class(ready: _Prepared, target: int) -> int:
    """Measure one class and write its file; the file is what makes a class done."""
    record, fits = measure_class(
        ready.task,
        ready.recorded,
        ready.data,
        target,
        ready.blind.usual,
        ready.blind.more,
        ready.config,
    )
    for name, seconds in ready.blind.seconds.items():
        record.methods[name]["seconds"] = seconds
    for method in SAVED:
        _save_xnn(ready, target, method, fits)
    replace_file(_path(ready.folder, target), to_json(record))
    return target


def _save_xnn(ready: _Prepared, target: int, method: str, fits: ClassFits) -> None:
    embedding = fits.methods[method]
    task = ready.task
    xnn = XNN(
        task.model,
        task.source.layer,
        embedding.n_features,
        class_names=task.classes,
        preprocessing=task.preprocessing,
    )
    xnn.attach_embedding(embedding, (target,), ready.recorded.train.n_outputs, fits.reports[method])
    xnn.save_pretrained(saved_xnn(ready.folder, target, method))
