"""Speed of n contrastive excitation backprop maps against TorchRay and against a lower bound.

    python perf/attribution_speed.py --json speed.json

Everything runs in one process, in turns, on VGG-16 with random weights. The bound is one forward
pass, one forward pass with positive weights, and n data gradients of that pass, each in the faster
of two memory formats. TorchRay (CC-BY-NC, not a dependency) is called once per map, down to the
same layer; without it its figures are null. Medians over the rounds are printed and written.
"""

from __future__ import annotations

import copy
import importlib.metadata
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
import tyro
from torch import Tensor, nn

from torchxnn.attribution import ExcitationBackprop
from torchxnn.parallel.process import keep_freed_memory
from torchxnn.storage.files import replace_file


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    json: Path | None = None
    """file for the figures"""
    batch: int = 8
    maps: int = 5
    layer: str = "features.9"
    """layer at which both stop when TorchRay is compared"""
    rounds: int = 3
    threads: int = 2
    size: int = 224
    keep_memory: bool = False
    """let the process keep freed memory, as workers do; PyTorch has the system clear it anew"""


def torchray() -> Callable[..., Tensor] | None:
    """TorchRay's function, if it is installed."""
    try:
        from torchray.attribution.excitation_backprop import contrastive_excitation_backprop
    except ImportError:
        return None
    return contrastive_excitation_backprop


def bound(model: nn.Module, images: Tensor, maps: int) -> Callable[[], None]:
    """One forward, one positive forward, n data gradients."""
    positive = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.clamp_(min=0)
            parameter.requires_grad_(False)

    def run() -> None:
        with torch.no_grad():
            model(images)
        source = images.clone().requires_grad_()
        outputs = positive(source)
        for index in range(maps):
            torch.autograd.grad(outputs[:, index].sum(), source, retain_graph=index < maps - 1)

    return run


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Measure in turns and write medians."""
    settings = tyro.cli(Settings)
    warnings.simplefilter("ignore")
    if settings.keep_memory and not keep_freed_memory():
        raise SystemExit("this C library cannot be told to keep freed memory")
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    model = torchvision.models.vgg16(weights=None).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    shape = (settings.batch, 3, settings.size, settings.size)
    images = torch.randn(shape)
    targets = list(range(settings.maps))
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    ray = torchray()

    def call_torchray() -> None:
        for target in targets:
            ray(  # type: ignore[misc]
                model,
                images,
                target,
                saliency_layer=settings.layer,
                contrast_layer="classifier.4",
                classifier_layer="classifier.6",
            )

    runs: dict[str, Callable[[], Any]] = {
        "ours": lambda: ExcitationBackprop(model).attribute_many(images, targets),
        "bound": bound(model, images, settings.maps),
        "bound_channels_last": bound(
            last, images.to(memory_format=torch.channels_last), settings.maps
        ),
        "ours_to_layer": lambda: ExcitationBackprop(model, stop_at=settings.layer).attribute_many(
            images, targets
        ),
    }
    if ray is not None:
        runs["torchray_to_layer"] = call_torchray
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(settings.rounds + 1):
        for name, run in runs.items():
            taken = timed(run)
            if number:  # the first round warms up
                seconds[name].append(taken)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    best = min(medians["bound"], medians["bound_channels_last"])
    result = {
        "network": f"vgg16, random weights, {shape}, {settings.maps} maps",
        "median_seconds": medians,
        "seconds": seconds,
        "ratio_bound": medians["ours"] / best,
        "ratio_torchray": (
            medians["torchray_to_layer"] / medians["ours_to_layer"] if ray is not None else None
        ),
        "layer": settings.layer,
        "threads": settings.threads,
        "torch": torch.__version__,
        "torchray": importlib.metadata.version("torchray") if ray is not None else None,
        "machine": platform.machine(),
    }
    for name, values in seconds.items():
        print(f"{name:20} median {medians[name]:.2f} s, {min(values):.2f} to {max(values):.2f}")
    print(f"ratio_bound {result['ratio_bound']:.2f} (ours / bound; lower is better)")
    print(f"ratio_torchray {result['ratio_torchray']} (TorchRay / ours; higher is better)")
    if settings.json is not None:
        replace_file(settings.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
