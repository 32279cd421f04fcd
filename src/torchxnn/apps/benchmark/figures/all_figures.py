"""All figures of a benchmark from the XNNs that its run kept (paper figures 6 to 9, .11 to .17)."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from torchxnn.apps.benchmark.class_by_class import OnClass, Opened
from torchxnn.apps.benchmark.figures.bird_parts import parts_figure, probability_figure
from torchxnn.apps.benchmark.figures.class_gallery import add_to_gallery, write_gallery
from torchxnn.apps.benchmark.figures.comparison import degenerate_figure
from torchxnn.apps.benchmark.figures.two_looks import clearest_two_looks, two_looks_figure
from torchxnn.apps.benchmark.record import record_task
from torchxnn.apps.benchmark.run import saved_xnn
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.apps.benchmark.tasks import TASKS, TaskSource
from torchxnn.apps.benchmark.variants import nn_config
from torchxnn.apps.gallery import evenly_spaced
from torchxnn.data.datasets.base import Sample
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
    on_class: OnClass | None = None,
) -> None:
    """Draw everything into `figures/` and `gallery/`.

    Figures 6 and 7 need parts, so other data sets have none. A figure that a run gives no example
    of (two looks of one class) is left out. `summary` is what `summarise` made of the run whose
    source, settings and folder are given.
    """
    task = TASKS[source.kind](source)
    opened = Opened(task, record_task(task, config.copies, folder), config, folder)
    targets = [int(target) for target, record in summary["classes"].items() if record["positives"]]
    if not targets:
        return
    # figures mark what is off or degenerate
    with one_thread(), warnings.catch_warnings(action="ignore", category=XNNWarning):
        best = _clearest(summary, targets)
        _draw_parts(opened, best)
        _draw_two_looks(opened, targets)
        _draw_degenerate(opened, best)
        _draw_gallery(opened, targets, summary, on_class)


def _clearest(summary: dict[str, Any], targets: list[int]) -> int:
    """Of the half of the classes with the higher R^2, the one whose maps overlap least."""

    def figure(target: int, name: str, missing: float) -> float:
        value = summary["classes"][str(target)]["methods"].get("SRAE", {}).get(name)
        return missing if value is None else float(value)

    ranked = sorted(targets, key=lambda target: -figure(target, "r2", -math.inf))
    faithful = ranked[: (len(ranked) + 1) // 2]
    return min(faithful, key=lambda target: figure(target, "mean_squared_correlation", math.inf))


def _load(opened: Opened, target: int) -> XNN:
    return XNN.from_pretrained(saved_xnn(opened.folder, target), model=opened.task.model)


def _save(opened: Opened, figure: Figure, name: str) -> None:
    save_figure(figure, opened.folder / "figures" / name)


def _recognised(opened: Opened, target: int, most: int) -> list[Sample]:
    """Located images of a class that the network recognises, from the surest on; else of all."""
    positives = opened.task.positives(target)
    logits = opened.recorded.located.logits[positives]
    right = [
        (float(row[target]), index)
        for row, index in zip(logits, positives, strict=True)
        if int(row.argmax()) == target
    ]
    rows = [index for _, index in sorted(right, reverse=True)] or positives
    return [opened.task.located[index] for index in evenly_spaced(rows, most)]


def _draw_parts(opened: Opened, target: int) -> None:
    (sample,) = _recognised(opened, target, 1)
    if sample.parts is None or sample.box is None:
        return
    xnn, names = _load(opened, target), opened.task.parts[:-1]
    _save(opened, parts_figure(xnn, sample, names), "figure_6_parts.png")
    _save(opened, probability_figure(xnn, sample, names), "figure_7_probability.png")


def _draw_two_looks(opened: Opened, targets: list[int]) -> None:
    task, contributions = opened.task, {}
    for target in targets:
        embedding = _load(opened, target).embedding
        if embedding is not None:
            found = apply_embedding(embedding, opened.recorded.located.z[task.positives(target)])
            contributions[target] = found.contributions[:, 0]
    try:
        target, _ = clearest_two_looks(contributions)
    except DataError:
        return  # too few images of every class
    samples = [task.located[index] for index in task.positives(target)]
    _save(opened, two_looks_figure(_load(opened, target), samples), "figure_11_two_looks.png")


def _draw_degenerate(opened: Opened, target: int) -> None:
    """A fit with all our measures and one with none of them, three x-features each."""
    task, full = opened.task, opened.config.train
    data = opened.recorded.fit_data(full)
    plain = replace(nn_config(full), split_logit=False, revive=None, pretrain_epochs=0, trials=1)
    fits = []
    for train in (full, plain):
        xnn = task.xnn(SHOWN_FEATURES)
        xnn.fit_activations(data.train, target, data.validation, train)
        fits.append(xnn)
    samples = _recognised(opened, target, 3)
    figure = degenerate_figure(fits[0], fits[1], samples, names=("SRAE", "plain NN"))
    _save(opened, figure, "figure_12_degenerate.png")


def _draw_gallery(
    opened: Opened, targets: list[int], summary: dict[str, Any], on_class: OnClass | None
) -> None:
    task, entries, gallery = opened.task, [], opened.folder / "gallery"
    for done, target in enumerate(targets, 1):
        samples = _recognised(opened, target, GALLERY_IMAGES)
        f_reg = summary["classes"][str(target)]["methods"]["SRAE"]["f_reg_test"]
        entries.append(add_to_gallery(_load(opened, target), samples, gallery, f_reg=f_reg))
        if on_class is not None:
            on_class(done, len(targets), task.classes[target])
    write_gallery(entries, gallery, f"x-features of {len(targets)} classes")
