"""What a certificate costs beside the maps, in one process and in turns.

    python perf/certificate_cost.py --networks squeezenet1_1 resnet18
    python perf/certificate_cost.py --weights cub50_lite2.safetensors \
        --networks torchxnn.models.bundled:efficientnet_lite2_with_head

Networks of torchvision have random weights; another one is named as for `xnn fit`, with its
weights. Contrastive maps of images of random numbers, or of `--images`, files that are read as
that network wants them.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
import tyro
from torch import Tensor, nn

from torchxnn.attribution import ExcitationBackprop
from torchxnn.data.datasets.images import read_image
from torchxnn.models.load import load_model


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    networks: tuple[str, ...] = ("squeezenet1_1", "resnet18")
    """names in torchvision, or as for `xnn fit`"""
    weights: Path | None = None
    """of the networks that are not torchvision's"""
    images: tuple[Path, ...] = ()
    """files; random numbers without"""
    batches: tuple[int, ...] = (1, 8)
    """how many images at once"""
    maps: tuple[int, ...] = (1, 5)
    """how many targets: outputs 0, 1, ..."""
    rounds: int = 3
    threads: int = 2


def opened(name: str, settings: Settings) -> tuple[nn.Module, Tensor]:
    """A network, and as many images as the largest batch."""
    count = max(settings.batches)
    if ":" not in name:
        network = torchvision.models.get_model(name, weights=None).eval()
        return network, torch.randn(count, 3, 224, 224)
    loaded = load_model(name, settings.weights)
    sides = loaded.preprocessing.height, loaded.preprocessing.width
    if not settings.images:
        return loaded.model, torch.randn(count, 3, *sides)
    read = [loaded.preprocessing(read_image(path)) for path in settings.images]
    return loaded.model, torch.stack([read[at % len(read)] for at in range(count)])


def seconds(works: list[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Of each piece of work, in turns, after one round that warms up."""
    found: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, taken in zip(works, found, strict=True):
            start = time.perf_counter()
            work()
            if number:
                taken.append(time.perf_counter() - start)
    return found


def main() -> None:
    """Print one table."""
    settings = tyro.cli(Settings)
    warnings.simplefilter("ignore")
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    print(
        "| network | images | maps | maps, s | certified, s | ratio | fallback |\n"
        + "|---" * 7
        + "|"
    )
    for name in settings.networks:
        network, images = opened(name, settings)
        method = ExcitationBackprop(network.requires_grad_(False))
        for batch in settings.batches:
            for maps in settings.maps:
                given, targets = images[:batch], list(range(maps))
                plain, certified = seconds(
                    [
                        partial(method.attribute_many, given, targets),
                        partial(method.attribute_many, given, targets, True),
                    ],
                    settings.rounds,
                )
                each = [b / a for a, b in zip(plain, certified, strict=True)]
                _, certificate = method.attribute_many(given, targets, True)
                ratio = f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
                taken = (f"{statistics.median(found):.3f}" for found in (plain, certified))
                met = f"{certificate.fallback_share:.1%}"
                print(f"| {name} | {batch} | {maps} | {' | '.join(taken)} | {ratio} | {met} |")


if __name__ == "__main__":
    main()
