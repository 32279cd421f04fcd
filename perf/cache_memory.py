"""Use a 50 GB activation cache with 4 GB of memory, and what recording one costs.

    python perf/cache_memory.py --json cache.json

The cache is generated: nearly all of its chunk files have a valid header, a valid checksum and a
size, but no contents (sparse files, which read as zeros), so 50 GB take little of the disk; every
100th chunk is written in full. A process of its own, under a hard limit on its private memory
(RLIMIT_DATA), opens it, reads a column of logits, random rows and a working set, and verifies
checksums. Peak memory is anonymous memory, sampled; pages of the files in the system's cache are
not counted, since the system drops them when it needs room. Holes are read without a disk: the
times hold for files that lie in the system's cache.

The second part records a SqueezeNet on generated images with and without a cache, taking turns in
one process, and prints medians.
"""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils.data import TensorDataset

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.ordered_images import stack_samples
from torchxnn.data.record import cache_activations, record_activations
from torchxnn.models.bundled import squeezenet_with_head
from torchxnn.models.config import BUNDLED_LAYER
from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.storage.files import replace_file
from torchxnn.storage.tensor_file import encode_tensors

DIMS, OUTPUTS, CHUNK_ROWS = 2048, 1000, 4096
FULL_EVERY = 100
OURS = "z.avgpool"


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark."""

    gigabytes: float = 50.0
    """size of the cache"""
    limit: float = 4.0
    """gigabytes of private memory that the reading process may have"""
    working_set: float = 2.0
    """gigabytes that are read at once, as for a fit"""
    folder: Path | None = None
    """where the cache is made; removed afterwards; by default a temporary folder"""
    images: int = 128
    """generated images for the cost of recording"""
    repeats: int = 5
    """of each recording"""
    json: Path | None = None
    """file for the figures"""
    read: Path | None = None
    """internal: read this cache in this process"""


def chunk_tensors(rows: int, seed: int | None) -> dict[str, torch.Tensor]:
    """The tensors of a chunk: zeros, or random ones."""
    if seed is None:
        z, logits = torch.zeros(rows, DIMS), torch.zeros(OUTPUTS, rows)
    else:
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(rows, DIMS, generator=generator)
        logits = torch.randn(OUTPUTS, rows, generator=generator)
    predicted = logits.argmax(dim=0)
    return {OURS: z, "logits": logits, "predicted": predicted, "labels": predicted}


def make_cache(folder: Path, gigabytes: float) -> ChunkStore:
    """A cache of that size, of holes but for every 100th chunk."""
    row_bytes = 4 * DIMS + 4 * OUTPUTS + 16
    chunks = max(1, round(gigabytes * 1e9 / row_bytes / CHUNK_ROWS))
    about = {
        "kind": "activations",
        "kind_version": 1,
        "model": {"class": "generated", "fingerprint": "none"},
        "layers": {"avgpool": [DIMS]},
        "outputs": OUTPUTS,
        "dtype": "float32",
        "columns": ["predicted", "labels"],
        "preprocessing": None,
        "data": {"kind": "generated"},
    }
    store = ChunkStore.create(folder, about, chunks * CHUNK_ROWS, CHUNK_ROWS)
    store.write(0, chunk_tensors(CHUNK_ROWS, None))
    size = (folder / "chunk-000000.safetensors").stat().st_size
    metadata = {"store": store._key}
    empty = encode_tensors(chunk_tensors(CHUNK_ROWS, None), metadata)
    header = json.loads(empty[1])
    for chunk in range(chunks):
        if chunk % FULL_EVERY == 0:
            store.write(chunk, chunk_tensors(CHUNK_ROWS, chunk))
            continue
        header["__metadata__"]["chunk"] = str(chunk)
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with (folder / f"chunk-{chunk:06d}.safetensors").open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.truncate(8 + len(text) + CHUNK_ROWS * row_bytes)
    if not 0 < size - CHUNK_ROWS * row_bytes < 4096:
        raise RuntimeError("the chunk files are not as large as planned")
    return store


@contextlib.contextmanager
def watch_memory(peaks: dict[str, float]) -> Iterator[None]:
    """Note the largest anonymous resident memory (bytes) in the block, every 5 ms."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    peaks["anonymous"] = max(peaks["anonymous"], int(line.split()[1]) * 1024)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def read_cache(settings: Settings) -> dict[str, Any]:
    """In the limited process: everything that a fit does with a cache."""
    limit = int(settings.limit * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    seconds: dict[str, float] = {}
    peaks: dict[str, Any] = {"anonymous": 0}
    after: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        before = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - before
        after[name] = peaks["anonymous"]
        return result

    generator = torch.Generator().manual_seed(0)
    with watch_memory(peaks):
        cache = timed("open", lambda: ActivationCache.open(settings.read or ""))
        timed("labels and predictions", lambda: (cache.labels, cache.predicted))
        column = timed("a column of logits", lambda: cache.column(7))
        few = torch.randint(len(cache), (1000,), generator=generator)
        timed("1,000 random rows", lambda: cache.read("avgpool", few))
        rows = min(int(settings.working_set * 1e9) // (4 * DIMS), len(cache))
        chosen = torch.randperm(len(cache), generator=generator)[:rows]
        z = timed("working set", lambda: cache.read("avgpool", chosen))
        checked = range(0, cache.store.chunks, max(1, cache.store.chunks // 10))
        bad = timed("10 checksums", lambda: cache.store.verify(chunks=checked))
    expected = chunk_tensors(CHUNK_ROWS, 0)
    places = (chosen < CHUNK_ROWS).nonzero().flatten()
    return {
        "rows": len(cache),
        "chunks": cache.store.chunks,
        "bytes": sum(file.stat().st_size for file in Path(cache.store.location).iterdir()),
        "limit_bytes": limit,
        "peak_anonymous_bytes": peaks["anonymous"],
        "peak_after": after,
        "seconds": seconds,
        "working_set_bytes": z.numel() * 4,
        "damaged": bad,
        "right": bool(torch.equal(column[:CHUNK_ROWS], expected["logits"][7]))
        and bool(torch.equal(z[places], expected[OURS][chosen[places]])),
    }


def record_cost(settings: Settings) -> list[dict[str, Any]]:
    """Seconds and bytes per image of recording with and without a cache."""
    torch.manual_seed(0)
    model = squeezenet_with_head(50).eval()
    data = TensorDataset(torch.randn(settings.images, 3, 224, 224))
    maps = next(n for n, _ in reversed(list(model.named_modules())) if n.endswith("expand3x3"))
    figures = []
    for layer, dtype in ((BUNDLED_LAYER, "float32"), (BUNDLED_LAYER, "float16"), (maps, "float16")):
        with_cache, without, size = [], [], 0
        for _ in range(settings.repeats):
            loader = torch.utils.data.DataLoader(data, batch_size=32, collate_fn=stack_samples)
            before = time.perf_counter()
            record_activations(model, layer, loader)
            without.append(time.perf_counter() - before)
            with tempfile.TemporaryDirectory() as folder:
                before = time.perf_counter()
                cache = cache_activations(model, layer, data, Path(folder) / "cache", dtype=dtype)
                with_cache.append(time.perf_counter() - before)
                size = sum(f.stat().st_size for f in Path(cache.store.location).iterdir())
        figures.append(
            {
                "layer": layer,
                "shape": list(cache.dims(layer)),
                "dtype": dtype,
                "seconds_per_image_in_memory": statistics.median(without) / settings.images,
                "seconds_per_image_cached": statistics.median(with_cache) / settings.images,
                "bytes_per_image": size / settings.images,
            }
        )
    return figures


def tables(result: dict[str, Any]) -> list[Table]:
    """What was measured, for people."""
    reading = result["reading"]
    memory = Table(
        title=f"{reading['bytes'] / 1e9:.1f} GB in {reading['chunks']} chunks, "
        f"limit {reading['limit_bytes'] / 1e9:.1f} GB, "
        f"peak {reading['peak_anonymous_bytes'] / 1e9:.2f} GB"
    )
    for column in ("step", "seconds", "peak so far, GB"):
        memory.add_column(column, justify="left" if column == "step" else "right")
    for step, seconds in reading["seconds"].items():
        memory.add_row(step, f"{seconds:.2f}", f"{reading['peak_after'][step] / 1e9:.2f}")
    cost = Table(title="Recording, per image")
    for column in ("layer", "shape", "precision", "in memory, ms", "cached, ms", "bytes"):
        cost.add_column(column)
    for row in result["recording"]:
        cost.add_row(
            row["layer"],
            " x ".join(map(str, row["shape"])),
            row["dtype"],
            f"{1000 * row['seconds_per_image_in_memory']:.2f}",
            f"{1000 * row['seconds_per_image_cached']:.2f}",
            f"{row['bytes_per_image']:,.0f}",
        )
    return [memory, cost]


def main() -> None:
    """Make the cache, read it in a limited process, remove it, measure recording."""
    settings = tyro.cli(Settings)
    torch.set_num_threads(1)
    if settings.read is not None:
        print(json.dumps(read_cache(settings)))
        return
    parent = settings.folder or Path(tempfile.mkdtemp(prefix="torchxnn-cache-"))
    folder = parent / "cache"
    try:
        before = time.perf_counter()
        make_cache(folder, settings.gigabytes)
        seconds = time.perf_counter() - before
        on_disk = sum(file.stat().st_blocks * 512 for file in folder.iterdir())
        print(f"made in {seconds:.0f} s; {on_disk / 1e9:.2f} GB on the disk", flush=True)
        command = [sys.executable, __file__, "--read", str(folder)]
        command += ["--limit", str(settings.limit), "--working-set", str(settings.working_set)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if settings.folder is None:
            shutil.rmtree(parent, ignore_errors=True)
    reading = json.loads(done.stdout)
    result = {"reading": reading, "on_disk_bytes": on_disk, "recording": record_cost(settings)}
    for table in tables(result):
        Console().print(table)
    if not reading["right"] or reading["damaged"]:
        raise SystemExit("the cache gave wrong values")
    if settings.json is not None:
        replace_file(settings.json, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    main()
