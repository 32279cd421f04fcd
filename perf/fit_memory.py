"""Memory of `fit_many` on a cache that is larger than what it may use.

    python perf/fit_memory.py --rows 300000 --json fit_memory.json

Makes a cache of generated activations (float16 on disk), then fits classes in child processes that
may use different amounts of memory for activations, and prints the peak of their own memory (pages
that belong to no file), how many samples were read, and R^2 on all samples.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.utils.data import Dataset

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.record import cache_activations
from torchxnn.storage.files import replace_file
from torchxnn.training.config import ComputeConfig, ManyConfig, TrainConfig
from torchxnn.training.many import fit_many

CLASSES = 50


@dataclass(frozen=True)
class Memory:
    """Settings of the benchmark."""

    rows: int = 300_000
    dims: int = 2048
    memory: tuple[float, ...] = (1.0, 2.0, 3.0)
    """gigabytes that a job may use for activations"""
    classes: int = 2
    epochs: int = 2
    json: Path | None = None
    child: Path | None = None
    """used by the benchmark itself"""


class Generated(Dataset[tuple[Tensor, int]]):
    """Activations of a class: random directions, each row drawn from its own seed."""

    def __init__(self, rows: int, dims: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.rows = rows
        self.centres = torch.randn(CLASSES, 64, generator=generator)
        self.mixing = torch.randn(64, dims, generator=generator) / 8
        self.noise = torch.randn(4096, 64, generator=generator)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        code = self.centres[index % CLASSES] + self.noise[(index * 7919) % 4096]
        return torch.relu(code @ self.mixing), index % CLASSES


class Head(nn.Module):
    """Logits that are linear in the activations."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.head = nn.Linear(dims, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dims) to (B, classes)."""
        return self.head(self.layer(x))


def own_peak() -> float:
    """Gigabytes of this process's peak memory that belong to no file, now or before."""
    status = Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0]) / 1e6


def child(settings: Memory) -> None:
    """Fit under one setting and print what it took, as JSON."""
    import threading

    cache = ActivationCache.open(str(settings.child))
    peak = own_peak()
    before = peak
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, own_peak())

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    fits = fit_many(
        cache,
        list(range(settings.classes)),
        config=TrainConfig(epochs=settings.epochs, trials=1, pretrain_epochs=1, subspace=64),
        compute=ComputeConfig(slots=2),
        many=ManyConfig(memory=settings.memory[0]),
    )
    seconds = time.perf_counter() - begin
    ended.set()
    watcher.join()
    if fits.failed:
        raise SystemExit(fits.failed[0].error)
    reports = [fitted.report for fitted in fits.classes if fitted.report is not None]
    result = {
        "memory": settings.memory[0],
        "before_gb": before,
        "peak_gb": peak,
        "added_gb": peak - before,
        "samples": reports[0].train.images + reports[0].validation.images,
        "r2": [report.validation.r2 for report in reports],
        "seconds": seconds,
    }
    sys.stdout.write(json.dumps(result))


def main() -> None:
    """Make the cache, run a child per setting, print, write."""
    settings = tyro.cli(Memory)
    if settings.child is not None:
        child(settings)
        return
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        data = Generated(settings.rows, settings.dims)
        model = Head(settings.dims).eval()
        cache = cache_activations(
            model, "layer", data, Path(folder) / "cache", dtype="float16", batch_size=1024
        )
        size = cache.nbytes("layer", torch.float32) / 1e9
        print(f"{len(cache)} samples, {size:.2f} GB in float32")
        for memory in settings.memory:
            command = [sys.executable, __file__, "--child", str(cache.store.location)]
            command += ["--memory", str(memory), "--classes", str(settings.classes)]
            command += ["--epochs", str(settings.epochs)]
            done = subprocess.run(command, env=os.environ, check=True, stdout=subprocess.PIPE)
            results.append(json.loads(done.stdout))
            print(results[-1])
    if settings.json is not None:
        replace_file(settings.json, json.dumps(results, indent=1).encode())


if __name__ == "__main__":
    main()
