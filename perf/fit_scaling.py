"""How the time of fits grows with classes, images, dimensions of Z and x-features.

    python perf/fit_scaling.py                    # what the record lacks; draws the curves
    python perf/fit_scaling.py --axes dims --runs 2 --beside "nothing else"
    python perf/fit_scaling.py --axes             # measures nothing: draws, prints what follows

Groups of fits with the default settings, on generated activations: no data are needed. A run goes
to the record, `docs/benchmarks/scaling.json`, as soon as it is measured; run the script again after
a kill and it goes on. Seconds are of the processor, on one thread: `epoch` is what one class takes
for one epoch, the held-out losses included, over ten epochs that begin after the first one; `rest`
is all else that a class takes, its start (components, and its share of the pretraining, the
subspace and the linear model of the logits) and its end. What follows for ImageNet is printed as
the table in `docs/scale.md`; a test compares.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import tyro
from rich.console import Console

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.activations import Activations
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import XNNError
from torchxnn.parallel.process import one_thread
from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.storage.files import replace_file
from torchxnn.training.config import Losses, TrainConfig
from torchxnn.training.fit import fit_group
from torchxnn.training.memory import Needs
from torchxnn.training.restarts import FitResult

CONSOLE = Console(stderr=True)
DOCS = Path(__file__).parent.parent / "docs"
MIDDLE = {"classes": 8, "images": 1200, "dims": 1024, "n_features": 5}
AXES: dict[str, tuple[int, ...]] = {
    "classes": (1, 2, 4, 8, 16, 32),
    "images": (600, 1200, 2400, 4800, 9600),
    "dims": (256, 512, 1024, 2048, 4096, 8192, 25088),
    "n_features": (2, 5, 10, 20),
}
TITLES = {
    "classes": "classes",
    "images": "images, a fifth held out",
    "dims": "dimensions of Z",
    "n_features": "x-features n",
}
BLOCK, MEMORY = 8, 1.0
"""Classes a job, and gigabytes that it may use for activations, in the plan for ImageNet."""
PLAN = {"classes": BLOCK // 2, "images": 26_000, "dims": 2048, "n_features": 5}
"""Half a block of the plan for ImageNet: as many images as `--memory 1` holds."""
OUTPUTS = 40
"""Logits: as many classes as images of, and with n = 20 enough of them for components."""
EPOCHS, FEW_EPOCHS, MANY_ROWS = 10, 3, 100_000
"""Epochs that are timed, and how many of them beyond so many images times classes."""

IMAGES, CLASSES, DIMS = 1_281_167, 1000, 2048
"""ImageNet's training images and classes, and the dimensions of ResNet-50's last layer."""
RECORD_SECONDS, MAP_SECONDS = 0.1, 1.9
"""A core takes for one image with ResNet-50: the forward pass, and heatmaps of 5 x-features."""
MAP_BYTES = 32_000
CORES = 64


Axis = Literal["classes", "images", "dims", "n_features", "plan"]


@dataclass(frozen=True)
class Scaling:
    """Settings of the measurement."""

    axes: tuple[Axis, ...] = get_args(Axis)
    """what to measure; none measures nothing"""
    json: Path = DOCS / "benchmarks" / "scaling.json"
    """the record, read and written"""
    figure: Path | None = None
    """picture of the curves; None for the one in the documentation, beside its record"""
    runs: int = 1
    """runs that every point is to have; those on record count"""
    beside: str = "other work"
    """what else the machine does, for the record"""
    config: TrainConfig = field(default_factory=lambda: TrainConfig(trials=1))


# Measuring


def generated(images: int, dims: int, classes: int, own: int | None = None) -> Activations:
    """Z >= 0 with 77% zeros and a decaying spectrum, logits of classes that are ReLUs of it.

    The first `BLOCK` classes have so many images of their `own`; None for as many as the others.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    if own is not None:
        labels[: BLOCK * own] = torch.arange(BLOCK * own) % BLOCK
    codes = torch.randn(images, 64, generator=generator) / torch.arange(1, 65).sqrt()
    centres = 2 * torch.randn(classes, 64, generator=generator) / torch.arange(1, 65).sqrt()
    mixing = torch.randn(64, dims, generator=generator)
    z = torch.relu((codes + centres[labels]) @ mixing - 1.5)
    heads = torch.randn(dims, classes, generator=generator) / dims**0.5
    logits = torch.relu(z @ heads) + 4 * torch.nn.functional.one_hot(labels, classes)
    return Activations(z, logits, labels)


def points(axis: str) -> list[dict[str, int]]:
    """What is measured along one axis."""
    if axis == "plan":
        return [PLAN]
    return [{**MIDDLE, axis: value} for value in AXES[axis]]


def time_fits(config: TrainConfig, at: dict[str, int]) -> dict[str, float]:
    """Processor seconds of a class: of one `epoch`, and of the `rest`."""
    data = (
        generated(at["images"], at["dims"], CLASSES, IMAGES // CLASSES)
        if at == PLAN
        else generated(at["images"], at["dims"], OUTPUTS)
    )
    many = at["classes"] * at["images"] > MANY_ROWS
    last = 1 + (FEW_EPOCHS if many else EPOCHS)
    config = replace(config, epochs=last + 1, patience=last + 1)
    taken: list[float] = []
    begun = 0.0

    def watch(_: int, __: int, epoch: int, ___: Losses) -> None:
        nonlocal begun
        now = time.process_time()
        if epoch == 1:  # that of a group's last fit is what stays
            begun = now
        if epoch == last:
            taken.append(now - begun)
            begun = now

    def check(_: int, result: FitResult) -> None:
        if isinstance(result, XNNError):
            raise result

    with one_thread():
        start = time.process_time()
        wanted = [(target,) for target in range(at["classes"])]
        fit_group(data, None, wanted, at["n_features"], config, None, check, watch)
        whole = time.process_time() - start
    epoch = math.fsum(taken) / (last - 1) / at["classes"]
    return {"epoch": epoch, "rest": whole / at["classes"] - epoch * (last + 1)}


def warm_up() -> None:
    """What the first fit of a process loads is not part of a fit."""
    data = generated(400, 16, OUTPUTS)
    fit_group(data, None, [(0,)], 2, TrainConfig(trials=1, epochs=1), None, lambda _, __: None)


def measure(settings: Scaling) -> dict[str, Any]:
    """Measure what the record lacks, and write it after every run."""
    found: dict[str, Any] = {"points": []}
    if settings.json.exists():
        found = json.loads(settings.json.read_text("utf-8"))
    if settings.axes:
        warm_up()
    for axis in settings.axes:
        for at in points(axis):
            row = next((row for row in found["points"] if row["at"] == at), None)
            if row is None:
                row = {"at": at, "runs": []}
                found["points"].append(row)
            while len(row["runs"]) < settings.runs:
                run = time_fits(settings.config, at)
                about = {"torch": torch.__version__, "cpus": os.cpu_count()}
                row["runs"].append({**run, "beside": settings.beside, **about})
                replace_file(settings.json, (json.dumps(found, indent=1) + "\n").encode())
                CONSOLE.print(
                    f"{axis} {at}: {run['epoch']:.3f} s an epoch, {run['rest']:.2f} s else"
                )
    return found


def seconds(found: dict[str, Any], at: dict[str, int], what: str) -> list[float]:
    """Of one class in every run of a point; none if it was not measured."""
    rows = [row["runs"] for row in found["points"] if row["at"] == at]
    return [run[what] for runs in rows for run in runs]


# Tables and curves


def unit_costs(found: dict[str, Any]) -> list[str]:
    """A Markdown table by dimensions of Z: a class, epoch and training image, and the rest."""
    lines = [
        "| dimensions of Z | µs a class, epoch and training image | other seconds a class |",
        "|---|---|---|",
    ]
    training = MIDDLE["images"] * (1 - TrainConfig().validation_share)
    for at in points("dims"):
        epochs, rests = seconds(found, at, "epoch"), seconds(found, at, "rest")
        if epochs:
            micro = [1e6 * one / training for one in epochs]
            lines.append(f"| {at['dims']:,} | {spread(micro, '.0f')} | {spread(rests, '.2f')} |")
    return lines


def growth(found: dict[str, Any]) -> list[str]:
    """Sentences: how an epoch of one class grows along the other axes, and a row for one class."""

    def epoch(at: dict[str, int]) -> float:
        return statistics.median(seconds(found, at, "epoch"))

    config = TrainConfig()
    share = 1 - config.validation_share
    alone, *others = (epoch(at) for at in points("classes"))
    grouped = others[1:]
    few, many = points("images")[0], points("images")[-1]
    little, much = (1e6 * epoch(at) / at["images"] / share for at in (few, many))
    least, *_, most = (epoch(at) for at in points("n_features"))
    whole = config.epochs * epoch(MIDDLE) + statistics.median(seconds(found, MIDDLE, "rest"))
    return [
        f"A class alone takes {1000 * alone:.0f} ms an epoch, four and more at once "
        f"{1000 * min(grouped):.0f} to {1000 * max(grouped):.0f} ms each.",
        f"With {few['images'] * share:,.0f} training images it is {little:.0f} µs an image, "
        f"with {many['images'] * share:,.0f} it is {much:.0f} µs.",
        f"20 x-features take {most / least:.2f} times as long as 2.",
        f"| one class ({MIDDLE['images'] * share:,.0f} training images, {config.epochs} epochs, "
        f"the defaults; [below](#how-the-time-of-fits-grows)) | {whole:.1f} "
        f"| {saved_bytes(MIDDLE['dims']) / 1e6:.1f} MB saved | images; dimensions beyond 1,000 |",
    ]


def saved_bytes(dims: int) -> int:
    """Of one fitted XNN with five x-features, in float32."""
    embedding = SRAE(dims, 5, 1, TrainConfig().hidden)
    return 4 * sum(each.numel() for each in embedding.parameters())


def spread(values: list[float], form: str) -> str:
    """The median of some runs, with the lowest and the highest where they differ."""
    low, middle, high = (f"{f(values):{form}}" for f in (min, statistics.median, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def held(memory: float) -> int:
    """Images of ImageNet that a job of so many gigabytes reads, of a cache that is nowhere."""
    about = {
        "layers": {"avgpool": [DIMS]},
        "dtype": "float16",
        "outputs": CLASSES,
        "preprocessing": None,
        "model": {"fingerprint": ""},
    }
    cache = ActivationCache(ChunkStore(Path("imagenet"), about, IMAGES, 1000, {}))
    return Needs(cache, "avgpool", TrainConfig(), memory).budget


def plan(found: dict[str, Any]) -> list[str]:
    """Table rows and sentences of the plan for ImageNet, from the record and the costs above."""
    config = TrainConfig()
    epoch, rest = (statistics.median(seconds(found, PLAN, what)) for what in ("epoch", "rest"))
    training = round(PLAN["images"] * (1 - config.validation_share))
    a_class = config.epochs * epoch + rest
    saved = saved_bytes(DIMS)
    record, fit, maps = (
        seconds_ / 3600
        for seconds_ in (IMAGES * RECORD_SECONDS, CLASSES * a_class, IMAGES * MAP_SECONDS)
    )
    atlas = CLASSES * 50 * MAP_SECONDS / 3600
    stored = IMAGES * MAP_BYTES / 1e9
    positives = BLOCK * IMAGES / CLASSES
    little, much = held(MEMORY), held(4 * MEMORY)
    return [
        "| step | per unit | core-hours | on disk |",
        "|---|---|---|---|",
        f"| `xnn cache --dtype float16` | {RECORD_SECONDS} s an image (ResNet-50, one thread, idle "
        "machine; without reading and decoding files) "
        f"| {record:.0f} | {IMAGES * (2 * DIMS + 4 * CLASSES) / 1e9:.1f} GB |",
        f"| `xnn fit --targets all --block {BLOCK} --memory {MEMORY:.0f}` | {training:,} training "
        f"images a class: {epoch:.2f} s an epoch, {1e6 * epoch / training:.0f} µs an image, up to "
        f"{config.epochs} epochs, and {rest:.1f} s of start and end: {a_class:.0f} s "
        f"| {fit:.0f} | {CLASSES * saved / 1e9:.1f} GB (float32) |",
        "| `xnn attribute --map-size 56`, every image for its own class "
        f"| {MAP_SECONDS} s an image (ResNet-50, one thread, idle machine) "
        f"| {maps:.0f} | {stored:.0f} GB |",
        "",
        f"On {CORES} cores that is {(record + fit + maps) / CORES:.1f} hours, nearly all of it "
        "heatmaps of images that perhaps nobody will look at: those of the 50 images a class",
        f"that an atlas shows take {atlas:.0f} core-hours, and everything then "
        f"{60 * (record + fit + atlas) / CORES:.0f} minutes.",
        f"`--memory {MEMORY:.0f}` holds {little:,} images of this kind, so a block of {BLOCK} "
        f"classes gets its {positives:,.0f} positives and {little - positives:,.0f} others;",
        f"`--memory 4` takes {much:,} images a block and {much / little:.1f} times as long.",
    ]


TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)


def draw(found: dict[str, Any], path: Path) -> None:
    """Both costs along the four axes, log-log, with the line of proportional growth of an epoch."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 4, figsize=(11, 3), sharey=True, constrained_layout=True)
    curves = {"epoch": ("#4c78a8", "o-", "one epoch"), "rest": ("#e45756", "s-", "start and end")}
    for panel, (axis, title) in zip(panels, TITLES.items(), strict=True):
        known = [at for at in points(axis) if seconds(found, at, "epoch")]
        x = [at[axis] for at in known]
        for what, (colour, marks, label) in curves.items():
            runs = [seconds(found, at, what) for at in known]
            low, high = ([f(each) for each in runs] for f in (min, max))
            panel.fill_between(x, low, high, color=colour, alpha=0.25)
            y = [statistics.median(each) for each in runs]
            panel.plot(x, y, marks, color=colour, markersize=4, label=label)
            if what == "epoch" and axis in ("images", "dims"):
                line = [y[-1] * value / x[-1] for value in x]
                panel.plot(x, line, "--", color="#888888", linewidth=1, label="proportional")
        panel.set(xscale="log", yscale="log", xlabel=title)
        turned = 45 if x[-1] > 10_000 else 0
        panel.set_xticks(x, [f"{value:,}" for value in x], rotation=turned, fontsize=8)
        panel.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        panel.minorticks_off()
    panels[0].set_ylabel("processor seconds of one class")
    panels[3].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Measure, draw, print."""
    settings = tyro.cli(Scaling)
    found = measure(settings)
    draw(found, settings.figure or DOCS / "gallery" / "scaling.png")
    for lines in (unit_costs, growth, plan):
        print("\n".join(["", *lines(found)]))


if __name__ == "__main__":
    main()
