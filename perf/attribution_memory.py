"""Peak memory of n excitation backprop maps as n grows, each n in a process of its own.

    python perf/attribution_memory.py --json memory.json

VGG-16 with random weights. The peak resident memory of a process that only runs the forward pass
is taken off. "per map" is the growth per further map; the widest layer's relevance of one map of
the batch is printed beside it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
import tyro

from torchxnn.attribution import ExcitationBackprop
from torchxnn.storage.files import replace_file

WIDEST = 64 * 224 * 224 * 4  # bytes of one image's relevance at VGG-16's first layers


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    json: Path | None = None
    """file for the figures"""
    batch: int = 8
    maps: int = -1
    """internal: measure this number of maps in this process; 0 is the forward pass alone"""


def peak(batch: int, maps: int) -> int:
    """Peak resident bytes of this process."""
    torch.manual_seed(0)
    model = torchvision.models.vgg16(weights=None).eval()
    images = torch.randn(batch, 3, 224, 224)
    if maps:
        ExcitationBackprop(model).attribute_many(images, list(range(maps)))
    else:
        with torch.no_grad():
            model(images)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Run one process per n and print the growth."""
    settings = tyro.cli(Settings)
    if settings.maps >= 0:
        print(peak(settings.batch, settings.maps))
        return
    peaks = {}
    for maps in (0, 1, 2, 5, 10):
        command = [sys.executable, __file__, "--batch", str(settings.batch), "--maps", str(maps)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[maps] = int(done.stdout.split()[-1])
        print(f"n = {maps:2}: {(peaks[maps] - peaks[0]) / 2**20:8.0f} MiB above the forward pass")
    per_map = (peaks[10] - peaks[5]) / 5
    widest = WIDEST * settings.batch
    print(f"per further map {per_map / 2**20:.0f} MiB; widest layer {widest / 2**20:.0f} MiB")
    if settings.json is not None:
        result = {"peak_bytes": peaks, "bytes_per_map": per_map, "widest_layer_bytes": widest}
        replace_file(settings.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
