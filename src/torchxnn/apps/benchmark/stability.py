"""How much of an explanation another seed finds again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torchxnn.apps.benchmark.methods import SEEN, fit_variant
from torchxnn.apps.benchmark.record import OnImages, Recorded, record_task
from torchxnn.apps.benchmark.run import OnClass, open_run, read_saved
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.apps.benchmark.summary import mean
from torchxnn.apps.benchmark.tasks import TASKS, Task, TaskSource
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.errors import XNNError
from torchxnn.metrics import measure_stability
from torchxnn.parallel.engine import LocalEngine
from torchxnn.storage.artifact import to_json
from torchxnn.storage.files import replace_file


@dataclass(frozen=True, eq=False)
class _Prepared:
    task: Task
    recorded: Recorded
    config: BenchmarkConfig
    fits: int
    folder: Path


def run_stability(
    source: TaskSource,
    targets: Sequence[int] | None,
    config: BenchmarkConfig,
    folder: Path,
    fits: int = 5,
    jobs: int = 1,
    on_images: OnImages | None = None,
    on_class: OnClass | None = None,
) -> dict[str, Any]:
    """Refit SRAE, SRAE-R, NN and SAE with other seeds and match their x-features by assignment.

    The figure is the mean correlation of matched x-features over the class's measured pictures, on
    the positives, where it says whether the same concepts are found (`measure_stability`), beside
    that of shuffled values. Held-out pictures change with the seed, too. Resumable class by class.

    Args:
        source: network and data.
        targets: class indices; None for all that have pictures to measure on.
        config: settings.
        folder: for the recorded activations.
        fits: per class and method, at least 2.
        jobs: processes.
        on_images: progress of recording.
        on_class: progress of classes.

    Returns:
        `methods`: mean correlation and chance level; `classes`: the same per class.
    """
    if fits < 2:
        raise XNNError(f"stability needs at least 2 fits, got {fits}")
    task, wanted = open_run(source, targets, config, folder)
    record_task(task, config.copies, folder, on_images, jobs)
    todo = [target for target in wanted if not _path(folder, target, fits).is_file()]
    done = len(wanted) - len(todo)
    engine = LocalEngine(jobs)
    for _, target in engine.run(_start, (source, config, fits, folder), _refit_class, todo):
        done += 1
        if on_class is not None:
            on_class(done, len(wanted), task.classes[target])
    found = {str(target): read_saved(_path(folder, target, fits), "fit again") for target in wanted}
    return {
        "fits": fits,
        "methods": {
            name: {
                key: mean([row[name][key] for row in found.values()])
                for key in ("correlation", "chance")
            }
            for name in SEEN
        },
        "classes": found,
    }


def _path(folder: Path, target: int, fits: int) -> Path:
    return folder / "stability" / f"{target:04d}-{fits}.json"


def _start(source: TaskSource, config: BenchmarkConfig, fits: int, folder: Path) -> _Prepared:
    task = TASKS[source.kind](source)
    recorded = record_task(task, config.copies, folder)
    return _Prepared(task, recorded, config, fits, folder)


def _refit_class(ready: _Prepared, target: int) -> int:
    z = ready.recorded.located.z[ready.task.positives(target)]
    row: dict[str, Any] = {}
    for name in SEEN:
        features = []
        for seed in range(ready.fits):
            config = replace(ready.config.train, seed=ready.config.train.seed + seed)
            data = ready.recorded.fit_data(config)
            embedding, _ = fit_variant(name, data, (target,), ready.config.n_features, config)
            features.append(apply_embedding(embedding, z).features)
        found = measure_stability(features)
        row[name] = {"correlation": found.value, "chance": found.chance}
    replace_file(_path(ready.folder, target, ready.fits), to_json(row))
    return target
