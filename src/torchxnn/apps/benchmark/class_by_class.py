"""One job per class, each leaving a file: what `run`, `stability` and `tune` share.

A run that was killed goes on with the classes whose files are missing. A folder, and each of its
files, says which settings it is for; others are refused before anything is computed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchxnn.apps.benchmark.record import OnImages, Recorded, record_task
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.apps.benchmark.tasks import TASKS, Task, TaskSource
from torchxnn.data.activations import Activations
from torchxnn.data.positives import sample_classes
from torchxnn.errors import DataError, XNNError, XNNWarning
from torchxnn.models.layers import resolve_layer
from torchxnn.parallel.engine import LocalEngine
from torchxnn.storage.artifact import Format, differences, plain
from torchxnn.storage.files import replace_file

SETTINGS = "benchmark.json"
_SETTINGS_FORMAT = Format("torchxnn.benchmark", 1, "a benchmark")
_CLASS_FORMAT = Format("torchxnn.benchmark-class", 1, "what a benchmark measured of a class")

OnClass = Callable[[int, int, str], None]
"""Called with classes done, their total, and the name of the last one."""


@dataclass(frozen=True)
class Plan:
    """A benchmark: on what, by which settings, where and how.

    Attributes:
        source: network and data.
        config: settings; a folder that holds a run with others is refused.
        folder: for everything that is written.
        targets: class indices; None for all that have images to measure on.
        jobs: processes; the results do not depend on them.
        on_images: progress of recording.
        on_class: progress of classes.
    """

    source: TaskSource
    config: BenchmarkConfig
    folder: Path
    targets: Sequence[int] | None = None
    jobs: int = 1
    on_images: OnImages | None = None
    on_class: OnClass | None = None


@dataclass(frozen=True, eq=False)
class Opened:
    """What every process has open.

    Attributes:
        task: network and data.
        recorded: what the network did on them.
        config: settings.
        folder: for everything that is written.
    """

    task: Task
    recorded: Recorded
    config: BenchmarkConfig
    folder: Path


@dataclass(frozen=True)
class Measurement:
    """What is computed of each class; plain values and functions of modules, for other processes.

    Attributes:
        name: of the folder of its files.
        measure: figures, in plain values, of what `prepare` gave and a class index.
        prepare: called once per process; without it `measure` is given what is open.
        settings: beside those of the whole folder; kept in every file.
        key: part of the files' names, so that several settings have room in one folder.
    """

    name: str
    measure: Callable[[Any, int], dict[str, Any]]
    prepare: Callable[[Opened], Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""

    def path(self, folder: Path, target: int) -> Path:
        """The file of a class."""
        return folder / self.name / f"{target:04d}{self.key and '-'}{self.key}.json"

    def read(self, folder: Path, target: int) -> dict[str, Any]:
        """Figures of a class that is done.

        Raises:
            DataError: its file cannot be read, is not whole, or is for other settings.
        """
        path = self.path(folder, target)
        found = read_whole(_CLASS_FORMAT, path, "settings", "figures")
        changed = differences(found["settings"], plain(self.settings))
        if changed:
            raise DataError(
                f"{path} is for other settings: {'; '.join(changed)}; choose another --out"
            )
        figures: dict[str, Any] = found["figures"]
        return figures


def open_benchmark(
    plan: Plan, check: Callable[[Task, list[int]], None] | None = None
) -> tuple[Opened, list[int]]:
    """Open the data and the network, and claim the folder only if all that was named exists.

    So a mistyped path, layer or class leaves no folder behind that refuses the right one. Warns if
    the network does not know the classes.

    Args:
        plan: what to open.
        check: raises an error if the data cannot serve these classes.

    Returns:
        What is open, and the class indices in ascending order.

    Raises:
        DataError: broken data, no such class, or the folder belongs to another run.
        LayerError: the network has no such layer.
        XNNError: `jobs` is less than 1.
    """
    if plan.jobs < 1:
        raise XNNError(f"jobs must be at least 1, got {plan.jobs}")
    task = TASKS[plan.source.kind](plan.source)
    resolve_layer(task.model, plan.source.layer)
    wanted = _chosen(task, plan.targets)
    if check is not None:
        check(task, wanted)
    claim_folder(plan.folder, {"source": plan.source, "config": plan.config})
    recorded = record_task(task, plan.config.copies, plan.folder, plan.on_images, plan.jobs)
    _check_recognition(task, recorded.test)
    return Opened(task, recorded, plan.config, plan.folder), wanted


def _check_recognition(task: Task, test: Activations) -> None:
    """Warn if the network's answers are no better than guessing, by three standard deviations."""
    images, classes = len(test), len(task.classes)
    right = int((test.predicted == sample_classes(test)).sum())
    guessed = images / classes
    if right > guessed + 3 * math.sqrt(guessed * (1 - 1 / classes)):
        return
    warnings.warn(
        f"{task.source.weights} names {right} of {images} test images right, no better than "
        f"guessing among {classes} classes: these are weights for other classes or for another "
        "order of them, and nothing measured here explains a network that works; give the weights "
        f"for {task.test.name}, and another --out",
        XNNWarning,
        stacklevel=2,
    )


def measure_classes(
    plan: Plan, measurement: Measurement, opened: Opened, targets: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Measure each class that is not done yet: one process with one thread, whatever `jobs` is.

    Returns:
        Figures by class index, in the order of `targets`.

    Raises:
        DataError: the file of a class cannot be read, or is for other settings.
    """
    folder = plan.folder
    there = [target for target in targets if measurement.path(folder, target).is_file()]
    found = {target: measurement.read(folder, target) for target in there}
    todo = [target for target in targets if target not in found]
    given = measurement, plan.source, plan.config, folder
    for at, figures in LocalEngine(plan.jobs).run(_start, given, _measure, todo):
        found[todo[at]] = figures
        if plan.on_class is not None:
            plan.on_class(len(found), len(targets), opened.task.classes[todo[at]])
    return {str(target): found[target] for target in targets}


def _start(
    measurement: Measurement, source: TaskSource, config: BenchmarkConfig, folder: Path
) -> tuple[Measurement, Path, Any]:
    task = TASKS[source.kind](source)
    opened = Opened(task, record_task(task, config.copies, folder), config, folder)
    return measurement, folder, measurement.prepare(opened) if measurement.prepare else opened


def _measure(state: tuple[Measurement, Path, Any], target: int) -> dict[str, Any]:
    measurement, folder, prepared = state
    figures: dict[str, Any] = plain(measurement.measure(prepared, target))
    content = _CLASS_FORMAT.encode({"settings": measurement.settings, "figures": figures})
    replace_file(measurement.path(folder, target), content)  # the file makes the class done
    return figures


def read_whole(kind: Format, path: Path, *names: str) -> dict[str, Any]:
    """The values of a file that holds a dictionary under each of some names.

    Raises:
        DataError: it cannot be read, or lacks one of them.
    """
    found = kind.read(path)
    for name in names:
        if not isinstance(found.get(name), dict):
            raise DataError(f"{path} is damaged, it has no {name!r}; remove it to measure it again")
    return found


def claim_folder(folder: Path, about: Mapping[str, Any]) -> None:
    """Write down what a folder is for, or refuse one that is for something else.

    Raises:
        DataError: the folder is a file, or holds a benchmark with other settings, or something
            else.
    """
    path = folder / SETTINGS
    for place in (folder, *folder.parents):
        if place.is_file():
            raise DataError(f"{place} is a file and no folder; choose another --out")
    if path.is_file():
        found = _SETTINGS_FORMAT.read(path)
        kept = {key: found.get(key) for key in about}
        if ("source" in about) != ("source" in found):  # planted shapes are drawn
            raise DataError(f"{folder} holds a benchmark on other data; choose another --out")
        changed = differences(kept, plain(about))
        if changed:
            raise DataError(
                f"{folder} holds a benchmark with other settings: {'; '.join(changed)}; choose "
                "another --out, or the same settings to go on with it"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty and holds no benchmark; choose another --out")
    replace_file(path, _SETTINGS_FORMAT.encode(about))


def _chosen(task: Task, targets: Sequence[int] | None) -> list[int]:
    everything = range(len(task.classes))
    if targets is None:
        return [target for target in everything if task.positives(target)]
    outside = [target for target in targets if target not in everything]
    if outside:
        raise DataError(f"there is no class {outside[0]}; classes are 0 to {len(task.classes) - 1}")
    return sorted(set(targets))
