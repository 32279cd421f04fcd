"""Faithfulness of the convolutional XNN at five stages of the CUB network (paper table 3).

    python perf/conv_stages.py --root CUB --weights cub50_squeezenet.safetensors \
        --classes 5 20 47 --json conv_stages.json

One pass of the network over the images records all stages. F_reg is the mean absolute error of the
logit over all images of the official training and test split; 20% of the training images stopped
the fits. The paper has the average over all 200 classes on another network, so the two tables are
not one experiment; what can be compared is how the figures change with the stage. Beside F_reg
stands what predicting the mean logit would give, without which F_reg says little, and R^2.

`--choose` compares settings without a look at test images: 1,000 training images are fitted, 200
stop the fit, and "test" is the 300 others.
"""

from __future__ import annotations

import json
import statistics
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

from torchxnn.apps.demo import prepare_cub
from torchxnn.data.activations import Activations, RowStore
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.positives import split_kinds
from torchxnn.errors import DegenerateFitWarning
from torchxnn.metrics.evaluation import measure_activations
from torchxnn.models.hooks import preserve_state
from torchxnn.models.layers import resolve_layer
from torchxnn.storage.files import replace_file
from torchxnn.training.config import TrainConfig
from torchxnn.training.fit import fit_embedding

CONSOLE = Console(stderr=True)
PAPER = {"train": (2.627, 3.530, 4.067, 2.605, 2.766), "test": (10.883, 9.164, 8.938, 5.849, 3.954)}


def fast_fit() -> TrainConfig:
    """All images alike, as in the paper, which is what F_reg over all images measures.

    Fewer epochs than the default, since an epoch at the first stage costs seconds, and more weight
    decay: with positives weighted up and little decay, the fits at `features.8` end with a larger
    F_reg than the mean logit has.
    """
    return TrainConfig(
        epochs=20, patience=6, decay_every=12, trials=1, positive_share=None, weight_decay=1e-2
    )


@dataclass(frozen=True)
class Stages:
    """Settings of the benchmark."""

    root: Path
    """CUB-200-2011 in the official layout"""
    weights: Path
    """state dict of torchxnn.models.bundled:squeezenet_with_head"""
    json: Path
    """file to write; the Markdown table goes beside it"""
    classes: tuple[int, ...] = (5, 20, 47)
    """class indices from 0"""
    layers: tuple[str, ...] = (
        "features.2",
        "features.5",
        "features.8",
        "features.10",
        "features.12",
    )
    """stages, from the input up"""
    memory: float = 0.5
    """gigabytes of activations kept in memory per stage and split; more go to temporary files"""
    threads: int = 1
    choose: bool = False
    """read training images alone, and judge by a fifth of them"""
    train: TrainConfig = field(default_factory=fast_fit)


def record_stages(
    model: torch.nn.Module, layers: tuple[str, ...], loader: Iterable[Any], memory: float
) -> dict[str, Activations]:
    """Activations of several layers from one pass, in float16."""
    stores = {layer: RowStore(memory) for layer in layers}
    logits, labels = [], []

    def keep(layer: str) -> Any:
        return lambda module, inputs, output: stores[layer].append(output.half())

    with torch.no_grad(), preserve_state(model):
        hooks = [
            resolve_layer(model, layer)[1].register_forward_hook(keep(layer)) for layer in layers
        ]
        try:
            for images, kinds in loader:
                logits.append(model(images))
                labels.append(kinds)
        finally:
            for hook in hooks:
                hook.remove()
    known = torch.cat(logits), torch.cat(labels)
    return {
        layer: Activations(store.result(), *known, map_memory=memory)
        for layer, store in stores.items()
    }


def to_choose_by(data: Activations) -> tuple[Activations, Activations, Activations]:
    """Of training images, with their kinds in equal parts: to fit, to stop the fit, to judge by."""
    if data.labels is None:
        raise SystemExit("the data need labels")
    judged = split_kinds(data.labels, 1 / 5, 1)
    rest = data.select(~judged)
    if rest.labels is None:
        raise SystemExit("the data need labels")
    stops = split_kinds(rest.labels, 1 / 6, 2)
    return rest.select(~stops), rest.select(stops), data.select(judged)


def run_class(
    train: Activations,
    stop: Activations | None,
    test: Activations,
    target: int,
    config: TrainConfig,
) -> dict[str, Any]:
    """Fit one class at one stage and measure it on both splits; `stop` are held-out images."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        embedding, report = fit_embedding(train, stop, [target], 5, config)
    seconds = time.process_time() - start
    result: dict[str, Any] = {"target": target, "seconds": seconds, "epochs": report.epochs}
    for name, data in (("train", train), ("test", test)):
        logits = data.logits[:, target]
        found = measure_activations(embedding, data, (target,)).faithfulness
        result[name] = {
            **asdict(found),
            "degenerate": found.degenerate,
            "f_reg_of_the_mean": float((logits - train.logits[:, target].mean()).abs().mean()),
        }
    return result


def table(results: dict[str, list[dict[str, Any]]], classes: int) -> str:
    """A Markdown table like the paper's: one column per stage; means over classes, then medians."""
    stages = list(results)
    lines = [
        f"| mean (median) over {classes} classes | | {' | '.join(stages)} |",
        f"|---|---|{'---|' * len(stages)}",
    ]
    keys = {
        "f_reg": "F_reg",
        "f_reg_of_the_mean": "F_reg of the mean logit",
        "f_reg_positives": "F_reg, positives",
        "r2": "R²",
        "f_cls": "F_cls",
        "active": "active x-features",
    }
    for key, name in keys.items():
        for side in ("train", "test"):
            values = [[r[side][key] for r in results[stage]] for stage in stages]
            cells = [f"{statistics.mean(v):.3f} ({statistics.median(v):.3f})" for v in values]
            lines.append(f"| {name} | {side} | {' | '.join(cells)} |")
    for side, figures in PAPER.items():
        if len(stages) == len(figures):
            cells = [str(figure) for figure in figures]
            lines.append(f"| paper's F_reg (VGG19, 200 classes) | {side} | {' | '.join(cells)} |")
    seconds = [f"{statistics.median(r['seconds'] for r in results[s]):.0f}" for s in stages]
    lines.append(f"| processor seconds per class | | {' | '.join(seconds)} |")
    degenerate = [str(sum(bool(r["test"]["degenerate"]) for r in results[s])) for s in stages]
    lines.append(f"| degenerate on test images | | {' | '.join(degenerate)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Record, fit all classes at all stages, write after each stage."""
    settings = tyro.cli(Stages, config=(tyro.conf.OmitArgPrefixes,))
    torch.set_num_threads(settings.threads)
    start = time.perf_counter()
    setup = prepare_cub(settings.root, settings.weights)
    conv = replace(settings.train.conv, map_memory=settings.memory)
    config = replace(settings.train, conv=conv)
    CONSOLE.print("recording ...")
    recorded = [
        record_stages(setup.model, settings.layers, make_loader(part), settings.memory)
        for part in ((setup.train,) if settings.choose else (setup.train, setup.test))
    ]
    recording = time.perf_counter() - start
    results: dict[str, list[dict[str, Any]]] = {}
    for layer in settings.layers[::-1]:
        train, *others = (part.pop(layer) for part in recorded)
        train, stop, test = to_choose_by(train) if settings.choose else (train, None, others[0])
        found = []
        for target in settings.classes:
            CONSOLE.print(f"{layer} {tuple(train.z.shape)} class {target} ...")
            found.append(run_class(train, stop, test, target, config))
        results = {layer: found, **results}
        about = {
            "classes": settings.classes,
            "config": asdict(config),
            "threads": settings.threads,
            "seconds_recording": recording,
            "seconds": time.perf_counter() - start,
            "paper_f_reg": PAPER,
            "stages": results,
        }
        replace_file(settings.json, json.dumps(about, indent=1).encode())
        text = table(results, len(settings.classes))
        replace_file(settings.json.with_suffix(".md"), text.encode())
    print(table(results, len(settings.classes)))
    print(f"{time.perf_counter() - start:.0f} s, of which {recording:.0f} s recording")


if __name__ == "__main__":
    main()
