"""Memory of `fit_many` on a cache that is larger than what it may use.

    python perf/fit_memory.py --rows 300000 --json fit_memory.json

Makes a cache of generated activations (float16 on disk), then fits classes in child processes that
may use different amounts of memory for activations, and prints the peak of their own memory (pages
that belong to no file), how many samples were read, and R^2 on all samples.

    python perf/fit_memory.py --wide 4096 8192 25088 --wide-rows 1500 6000

fits one class of such layers with the settings that are the default, and prints what that took
beside what `training/memory.py` says that it takes at most.
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
from torchxnn.training.memory import Needs

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
    wide: tuple[int, ...] = ()
    """dimensions of layers to make one default fit to, instead"""
    wide_rows: tuple[int, ...] = (1500, 6000)
    defaults: bool = False
    """used by the benchmark itself"""
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
    if settings.defaults:
        config, compute = TrainConfig(), ComputeConfig()
    else:
        config = TrainConfig(epochs=settings.epochs, trials=1, pretrain_epochs=1, subspace=64)
        compute = ComputeConfig(slots=2)
    fits = fit_many(
        cache,
        list(range(settings.classes)),
        config=config,
        compute=compute,
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
        "estimated_gb": Needs(cache, "layer", config, 1.0).bytes(len(cache)) / 1e9,
        "epochs": reports[0].epochs,
        "samples": reports[0].train.images + reports[0].validation.images,
        "r2": [report.validation.r2 for report in reports],
        "seconds": seconds,
    }
    sys.stdout.write(json.dumps(result))


def make_cache(rows: int, dims: int, location: Path) -> ActivationCache:
    """Record generated activations in float16."""
    torch.manual_seed(0)
    data, model = Generated(rows, dims), Head(dims).eval()
    return cache_activations(model, "layer", data, location, dtype="float16", batch_size=512)


def run_child(cache: ActivationCache, memory: float, options: list[str]) -> dict[str, Any]:
    """What `child` prints under some settings."""
    command = [sys.executable, __file__, "--child", str(cache.store.location)]
    command += ["--memory", str(memory), *options]
    done = subprocess.run(command, env=os.environ, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def wide_layers(settings: Memory) -> list[dict[str, Any]]:
    """One default fit to each layer and number of images, as a table."""
    results = []
    print("| dimensions | images | Z in GB | seconds | epochs | added GB | estimate GB |")
    print("|---|---|---|---|---|---|---|")
    for dims in settings.wide:
        for rows in settings.wide_rows:
            with tempfile.TemporaryDirectory() as folder:
                cache = make_cache(rows, dims, Path(folder) / "cache")
                options = ["--classes", "1", "--defaults"]
                found = run_child(cache, 64.0, options)
            found |= {"dims": dims, "z_gb": cache.nbytes("layer", torch.float32) / 1e9}
            results.append(found)
            print(
                f"| {dims:,} | {rows:,} | {found['z_gb']:.2f} | {found['seconds']:.0f} | "
                f"{found['epochs']} | {found['added_gb']:.2f} | {found['estimated_gb']:.2f} |",
                flush=True,
            )
    return results


def main() -> None:
    """Make the cache, run a child per setting, print, write."""
    settings = tyro.cli(Memory)
    if settings.child is not None:
        child(settings)
        return
    if min((*settings.wide, *settings.wide_rows)) < 1:
        raise SystemExit("--wide and --wide-rows must be at least 1")
    if settings.wide:
        results = wide_layers(settings)
        if settings.json is not None:
            replace_file(settings.json, json.dumps(results, indent=1).encode())
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        cache = make_cache(settings.rows, settings.dims, Path(folder) / "cache")
        size = cache.nbytes("layer", torch.float32) / 1e9
        print(f"{len(cache)} samples, {size:.2f} GB in float32")
        for memory in settings.memory:
            options = ["--classes", str(settings.classes), "--epochs", str(settings.epochs)]
            results.append(run_child(cache, memory, options))
            print(results[-1])
    if settings.json is not None:
        replace_file(settings.json, json.dumps(results, indent=1).encode())


if __name__ == "__main__":
    main()
