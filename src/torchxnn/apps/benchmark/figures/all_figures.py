"""All figures of a benchmark from the XNNs that its run kept (paper figures 6 to 9, .11 to .17)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torchxnn.apps.benchmark.figures.bird_parts import parts_figure, probability_figure
from torchxnn.apps.benchmark.figures.class_gallery import add_to_gallery, write_gallery
from torchxnn.apps.benchmark.figures.comparison import degenerate_figure
from torchxnn.apps.benchmark.figures.two_looks import clearest_two_looks, two_looks_figure
from torchxnn.apps.benchmark.methods import nn_config
from torchxnn.apps.benchmark.record import Recorded, record_task
from torchxnn.apps.benchmark.run import saved_xnn
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.apps.benchmark.tasks import TASKS, Task, TaskSource
from torchxnn.apps.gallery import evenly_spaced
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.errors import DataError, XNNWarning
from torchxnn.explanations.drawing.canvas import save_figure
from torchxnn.parallel.process import one_thread
from torchxnn.xnn import XNN

GALLERY_IMAGES = 4
SHOWN_FEATURES = 3
"""x-features of the figure on degeneracy, as in paper figure .12."""


def draw_figures(
    source: TaskSource,
    summary: dict[str, Any],
    config: BenchmarkConfig,
    folder: Path,
    on_class: Callable[[int, int, str], None] | None = None,
) -> None:
    """Draw everything into `figures/` and `gallery/`.

    Figures 6 and 7 need parts, so other data sets have none. A figure that a run gives no example
    of (two looks of one class) is left out.

    Args:
        source: of the run.
        summary: from `summarise`.
        config: of the run.
        folder: of the run.
        on_class: called with classes drawn, their total and the name of the last.
    """
    task = TASKS[source.kind](source)
    recorded = record_task(task, config.copies, folder)
    targets = [int(target) for target, record in summary["classes"].items() if record["positives"]]
    if not targets:
        return
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", XNNWarning)  # figures mark what is off or degenerate
        best = _clearest(summary, targets)
        figures = folder / "figures"
        _draw_parts(task, recorded, best, folder, figures)
        _draw_two_looks(task, recorded, targets, folder, figures)
        _draw_degenerate(task, recorded, best, config, figures)
        _draw_gallery(task, recorded, targets, summary, folder, on_class)


def _clearest(summary: dict[str, Any], targets: list[int]) -> int:
    """Of the half of the classes with the higher R^2, the one whose maps overlap least."""

    def figure(target: int, name: str, missing: float) -> float:
        value = summary["classes"][str(target)]["methods"].get("SRAE", {}).get(name)
        return missing if value is None else float(value)

    ranked = sorted(targets, key=lambda target: -figure(target, "r2", -math.inf))
    faithful = ranked[: (len(ranked) + 1) // 2]
    return min(faithful, key=lambda target: figure(target, "mean_squared_correlation", math.inf))


def _load(task: Task, folder: Path, target: int) -> XNN:
    return XNN.from_pretrained(saved_xnn(folder, target), model=task.model)


def _recognised(task: Task, recorded: Recorded, target: int) -> list[int]:
    """Located images of a class that the network recognises, the surest first; else all."""
    positives = task.positives(target)
    logits = recorded.located.logits[positives]
    right = [
        (float(row[target]), index)
        for row, index in zip(logits, positives, strict=True)
        if int(row.argmax()) == target
    ]
    return [index for _, index in sorted(right, reverse=True)] or positives


def _draw_parts(task: Task, recorded: Recorded, target: int, folder: Path, figures: Path) -> None:
    sample = task.located[_recognised(task, recorded, target)[0]]
    if sample.parts is None or sample.box is None:
        return
    xnn, names = _load(task, folder, target), task.parts[:-1]
    save_figure(parts_figure(xnn, sample, names), figures / "figure_6_parts.png")
    save_figure(probability_figure(xnn, sample, names), figures / "figure_7_probability.png")


def _draw_two_looks(
    task: Task, recorded: Recorded, targets: list[int], folder: Path, figures: Path
) -> None:
    contributions = {}
    for target in targets:
        embedding = _load(task, folder, target).embedding
        if embedding is not None:
            found = apply_embedding(embedding, recorded.located.z[task.positives(target)])
            contributions[target] = found.contributions[:, 0]
    try:
        target, _ = clearest_two_looks(contributions)
    except DataError:
        return  # too few images of every class
    samples = [task.located[index] for index in task.positives(target)]
    figure = two_looks_figure(_load(task, folder, target), samples)
    save_figure(figure, figures / "figure_11_two_looks.png")


def _draw_degenerate(
    task: Task, recorded: Recorded, target: int, config: BenchmarkConfig, figures: Path
) -> None:
    """A fit with all our measures and one with none of them, three x-features each."""
    data = recorded.fit_data(config.train)
    plain = replace(
        nn_config(config.train),
        split_logit=False,
        revive=None,
        pretrain_epochs=0,
        trials=1,
    )
    fits = []
    for train in (config.train, plain):
        xnn = XNN(
            task.model,
            task.source.layer,
            SHOWN_FEATURES,
            class_names=task.classes,
            preprocessing=task.preprocessing,
        )
        xnn.fit_activations(data.train, target, data.validation, train)
        fits.append(xnn)
    chosen = evenly_spaced(_recognised(task, recorded, target), 3)
    samples = [task.located[index] for index in chosen]
    figure = degenerate_figure(fits[0], fits[1], samples, names=("SRAE", "plain NN"))
    save_figure(figure, figures / "figure_12_degenerate.png")


def _draw_gallery(
    task: Task,
    recorded: Recorded,
    targets: list[int],
    summary: dict[str, Any],
    folder: Path,
    on_class: Callable[[int, int, str], None] | None,
) -> None:
    entries, gallery = [], folder / "gallery"
    for done, target in enumerate(targets, 1):
        chosen = evenly_spaced(_recognised(task, recorded, target), GALLERY_IMAGES)
        samples = [task.located[index] for index in chosen]
        f_reg = summary["classes"][str(target)]["methods"]["SRAE"]["f_reg_test"]
        entries.append(add_to_gallery(_load(task, folder, target), samples, gallery, f_reg=f_reg))
        if on_class is not None:
            on_class(done, len(targets), task.classes[target])
    write_gallery(entries, gallery, f"x-features of {len(targets)} classes")
