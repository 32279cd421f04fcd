"""The pointing game on CUB: do the heatmaps' maxima lie on the bird?

    python perf/pointing_game.py --root CUB --weights cub50_squeezenet.safetensors --out DIR

For every class an XNN is fitted to the training images. On the test images of the class, each
method draws the x-features and the original logit (1-heatmap). Counted are the x-features that are
active on the image (E > 0), the same for every method; "main" is the one with the largest
contribution. Several maxima share a hit, an empty map counts as chance (`torchxnn.metrics.
pointing`). Writes `pointing_game.json` and `pointing_game.md`.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from torch import Tensor

from torchxnn.apps.demo import DemoSetup, prepare_cub
from torchxnn.attribution.base import versions
from torchxnn.attribution.methods import METHODS
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.record import record_activations
from torchxnn.errors import AttributionWarning, DegenerateFitWarning, XNNError
from torchxnn.metrics.pointing import Pointing, pointing_game
from torchxnn.storage.files import replace_file
from torchxnn.training.config import TrainConfig
from torchxnn.xnn import XNN

CONSOLE = Console(stderr=True)
BATCH = 8


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    root: Path
    """CUB-200-2011 in its official layout"""
    weights: Path
    """state dict of torchxnn.models.bundled:squeezenet_with_head"""
    out: Path
    """folder for the JSON and the table"""
    classes: int = 10
    """number of classes, evenly spaced"""
    images: int = 10
    """test images per class, the first ones"""
    methods: tuple[str, ...] = tuple(METHODS)
    rise_masks: int = 1000
    steps: int = 50
    """of integrated gradients"""
    seed: int = 0
    threads: int = 1


@dataclass
class Row:
    """What one method has drawn so far: maps reduced to what the game needs, and boxes."""

    features: list[Pointing] = field(default_factory=list)
    main: list[Pointing] = field(default_factory=list)
    logit: list[Pointing] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    failed: str = ""


def pooled(results: list[Pointing]) -> dict[str, Any]:
    """One result from those of several batches, weighted by their maps."""
    maps = sum(r.maps for r in results)
    if maps == 0:
        return {"hit_rate": None, "chance": None, "maps": 0, "empty": 0}
    return {
        "hit_rate": sum(r.hit_rate * r.maps for r in results) / maps,
        "chance": sum(r.chance * r.maps for r in results) / maps,
        "maps": maps,
        "empty": sum(r.empty for r in results),
    }


def build(name: str, module: Any, settings: Settings) -> Any:
    """The method with the settings of the benchmark."""
    options: dict[str, dict[str, Any]] = {
        "rise": {"masks": settings.rise_masks, "seed": settings.seed},
        "integrated_gradients": {"steps": settings.steps},
    }
    return METHODS[name](module, **options.get(name, {}))


def play(row: Row, name: str, xnn: XNN, images: Tensor, boxes: Tensor, settings: Settings) -> None:
    """Draw one batch with one method and add its results."""
    contributions = xnn.contributions(images).detach()[:, 0]
    active = contributions != 0
    start = time.perf_counter()
    maps = build(name, xnn, settings).attribute_many(images, range(xnn.embedding.n_features))
    row.seconds += time.perf_counter() - start
    logit = build(name, xnn.model, settings).attribute_many(images, list(xnn.targets))
    every = boxes.unsqueeze(1).expand(-1, maps.shape[1], -1)
    if bool(active.any()):
        row.features.append(pointing_game(maps[active], every[active]))
        rows = active.any(1)
        top = contributions.abs().argmax(1)
        main = maps[torch.arange(len(maps)), top]
        row.main.append(pointing_game(main[rows], boxes[rows]))
    row.logit.append(pointing_game(logit[:, 0], boxes))
    row.images += len(images)


def samples(setup: DemoSetup, target: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of test images of a class, with their boxes."""
    labels = setup.test.labels or ()
    chosen = [i for i, label in enumerate(labels) if label == target][:count]
    read = [setup.test[i] for i in chosen]
    pairs = [(s.image, s.box) for s in read if s.box is not None]
    return [
        (
            torch.stack([image for image, _ in pairs[i : i + BATCH]]),
            torch.stack([box for _, box in pairs[i : i + BATCH]]),
        )
        for i in range(0, len(pairs), BATCH)
    ]


def run(settings: Settings, setup: DemoSetup) -> tuple[dict[str, Row], list[dict[str, Any]]]:
    """Fit every class and let every method play."""
    step = max(1, len(setup.classes) // settings.classes)
    classes = list(range(len(setup.classes) - 1, -1, -step))[: settings.classes][::-1]
    train = record_activations(setup.model, setup.layer, make_loader(setup.train))
    rows = {name: Row() for name in settings.methods}
    fits = []
    for target in classes:
        xnn = XNN(setup.model, setup.layer)
        report = xnn.fit_activations(train, target, config=TrainConfig(seed=settings.seed))
        figures = report.validation
        CONSOLE.print(f"{setup.classes[target]}: R² {figures.r2:.3f}, {figures.active} active")
        fits.append({"target": target, "name": setup.classes[target], **asdict(figures)})
        for images, boxes in samples(setup, target, settings.images):
            for name, row in rows.items():
                if not row.failed:
                    try:
                        play(row, name, xnn, images, boxes, settings)
                    except XNNError as error:
                        row.failed = str(error)
        CONSOLE.print(table(rows), soft_wrap=True, markup=False)
        write(settings, rows, fits)
    return rows, fits


def table(rows: dict[str, Row]) -> str:
    """A Markdown table of hit rates in percent."""
    lines = [
        "| method | x-features | main x-feature | 1-heatmap | empty maps of x-features |"
        " s per image, 5 maps |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        if row.failed or row.images == 0:
            lines.append(f"| {name} | failed: {row.failed} | | | | |")
            continue
        features, main, logit = pooled(row.features), pooled(row.main), pooled(row.logit)
        lines.append(
            f"| {name} | {percent(features)} | {percent(main)} | {percent(logit)} |"
            f" {features['empty']} of {features['maps']} | {row.seconds / row.images:.2f} |"
        )
    done = [row for row in rows.values() if row.images]
    if done:
        cells = [pooled(r)["chance"] for r in (done[0].features, done[0].main, done[0].logit)]
        texts = ["-" if cell is None else f"{cell:.1%}" for cell in cells]
        lines.append(f"| chance (area of the box) | {' | '.join(texts)} | | |")
    return "\n".join(lines) + "\n"


def percent(result: dict[str, Any]) -> str:
    """Hit rate as text."""
    return "-" if result["hit_rate"] is None else f"{result['hit_rate']:.1%}"


def write(settings: Settings, rows: dict[str, Row], fits: list[dict[str, Any]]) -> None:
    """Write both files; whole or not at all."""
    results = {
        name: {
            "features": pooled(row.features),
            "main": pooled(row.main),
            "logit": pooled(row.logit),
            "seconds_per_image": row.seconds / row.images if row.images else None,
            "images": row.images,
            "failed": row.failed,
        }
        for name, row in rows.items()
    }
    about = {
        key: value
        for key, value in asdict(settings).items()
        if key not in ("root", "weights", "out")
    }
    record = {"settings": about, "versions": versions(), "fits": fits, "methods": results}
    replace_file(settings.out / "pointing_game.json", json.dumps(record, indent=1).encode())
    replace_file(settings.out / "pointing_game.md", table(rows).encode())


def main() -> None:
    """Run everything and write the results after each class."""
    settings = tyro.cli(Settings)
    torch.set_num_threads(settings.threads)
    warnings.simplefilter("ignore", DegenerateFitWarning)  # the fits are in the JSON
    warnings.simplefilter("ignore", AttributionWarning)
    rows, _ = run(settings, prepare_cub(settings.root, settings.weights))
    print(table(rows))


if __name__ == "__main__":
    main()
