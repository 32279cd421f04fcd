"""Seconds and bytes per image of bulk heatmaps, by size on disk and number of processes.

    python perf/bulk_heatmaps.py --images 64 --json bulk.json

SqueezeNet 1.1 with a head, or ResNet-50 (`--network resnet50`), five x-features, random weights,
generated images of 224 x 224 pixels.
All cases run in turns. The clock starts when every process has written its first chunk, so it shows
what an image costs once work is under way; what a start costs is given beside it. `alone` is the
same drawing in this process, nothing written, and `recording` the network's forward pass that keeps
the layer's activations. Medians over the rounds.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from torch.utils.data import Dataset

from torchxnn.apps.heatmaps.attribute import attribute_many
from torchxnn.apps.heatmaps.config import HeatmapConfig
from torchxnn.data.record import record_activations
from torchxnn.embeddings.srae import SRAE
from torchxnn.models.bundled import squeezenet_with_head
from torchxnn.models.config import BUNDLED_LAYER
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.without_compiler import torchvision_models
from torchxnn.parallel.engine import LocalEngine
from torchxnn.parallel.process import one_thread
from torchxnn.storage.files import replace_file
from torchxnn.xnn import XNN


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    json: Path | None = None
    """file for the figures"""
    images: int = 64
    sizes: tuple[int, ...] = (224, 56)
    """of the maps on disk"""
    jobs: tuple[int, ...] = (1, 2)
    rounds: int = 3
    images_at_once: int = 8
    network: Literal["squeezenet1_1", "resnet50"] = "squeezenet1_1"


class Generated(Dataset[Tensor]):
    """Noise of its own for every image, made when it is asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        return torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(index))


def make_xnn(network: str) -> XNN:
    """An XNN that was never fitted; the time of its maps does not depend on that."""
    torch.manual_seed(0)
    if network == "resnet50":
        model = torchvision_models().resnet50(weights=None).eval()
        layer, dims, outputs = "avgpool", 2048, 1000
    else:
        model, layer, dims, outputs = squeezenet_with_head(50).eval(), BUNDLED_LAYER, 1024, 50
    xnn = XNN(model, layer, 5, preprocessing=Preprocessing())
    embedding = SRAE(dims, 5).eval()
    embedding.encoder[-1].bias.data.add_(0.5)  # every x-feature is on
    xnn.attach_embedding(embedding, (0,), outputs)
    return xnn


def measure(xnn: XNN, settings: Settings, size: int, jobs: int) -> dict[str, float]:
    """Seconds and bytes of one run into an empty folder."""
    config = HeatmapConfig(
        images="all",
        map_size=None if size == 224 else size,
        images_at_once=settings.images_at_once,
        chunk_rows=settings.images_at_once,
    )
    times: list[tuple[int, float]] = []
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        attribute_many(
            xnn,
            Generated(settings.images),
            folder,
            config,
            engine=LocalEngine(jobs),
            on_images=lambda done, _: times.append((done, time.perf_counter())),
        )
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
    first = next(item for item in times if item[0] >= jobs * settings.images_at_once)
    last = times[-1]
    return {
        "seconds_per_image": (last[1] - first[1]) / (last[0] - first[0]),
        "seconds_to_first_chunks": first[1] - start,
        "bytes_per_image": written / settings.images,
    }


def alone(xnn: XNN, settings: Settings) -> float:
    """Seconds per image of the drawing itself, on one thread."""
    data, size = Generated(settings.images), settings.images_at_once
    with one_thread():
        start = time.perf_counter()
        for first in range(0, settings.images, size):
            xnn.attribute(torch.stack([data[first + i] for i in range(size)]))
        return (time.perf_counter() - start) / settings.images


def recording(xnn: XNN, settings: Settings) -> float:
    """Seconds per image of recording the layer, on one thread."""
    data, size = Generated(settings.images), settings.images_at_once
    batches = [
        torch.stack([data[first + i] for i in range(size)])
        for first in range(0, settings.images, size)
    ]
    with one_thread():
        start = time.perf_counter()
        record_activations(xnn.model, xnn.layer, batches)
        return (time.perf_counter() - start) / settings.images


def main() -> None:
    """Measure in turns and write medians."""
    settings = tyro.cli(Settings)
    warnings.simplefilter("ignore")
    least = settings.images_at_once * max(settings.jobs)
    if settings.images % settings.images_at_once or settings.images <= least:
        raise SystemExit(f"images must be a multiple of images_at_once, and more than {least}")
    xnn = make_xnn(settings.network)
    runs: dict[str, list[dict[str, float]]] = {}
    plain: list[float] = []
    recorded: list[float] = []
    for _ in range(settings.rounds):
        recorded.append(recording(xnn, settings))
        plain.append(alone(xnn, settings))
        for size in settings.sizes:
            for jobs in settings.jobs:
                name = f"size {size}, {jobs} job(s)"
                runs.setdefault(name, []).append(measure(xnn, settings, size, jobs))
    medians: dict[str, Any] = {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for name, found in runs.items()
    }
    result = {
        "network": f"{settings.network}, random weights, 224 x 224, 5 x-features",
        "images": settings.images,
        "images_at_once": settings.images_at_once,
        "median": medians,
        "runs": runs,
        "seconds_per_image_alone": statistics.median(plain),
        "alone": plain,
        "recording": recorded,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    print(f"recording: {statistics.median(recorded):.3f} s per image")
    print(f"alone: {result['seconds_per_image_alone']:.3f} s per image")
    for name, row in medians.items():
        print(
            f"{name}: {row['seconds_per_image']:.3f} s and {row['bytes_per_image'] / 1000:.0f} kB "
            f"per image, first chunks after {row['seconds_to_first_chunks']:.1f} s"
        )
    if settings.json is not None:
        replace_file(settings.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
