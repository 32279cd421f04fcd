"""`xnn cache`: record layers' outputs, logits and labels of a data set once, for many fits."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tyro.conf import Positional, arg

from torchxnn.cli.progress import count_images, make_progress
from torchxnn.cli.saved_run import describe_source
from torchxnn.data.activation_cache import ActivationCache, CacheDtype
from torchxnn.data.datasets.augment import HeldOutCopies
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.datasets.open import DataConfig, open_dataset
from torchxnn.data.record import cache_activations
from torchxnn.errors import XNNError
from torchxnn.models.load import count_outputs, load_model
from torchxnn.parallel.ray_engine import EngineConfig
from torchxnn.storage.paths import as_location, file_sizes

OUT, ERR = Console(), Console(stderr=True)


@dataclass(frozen=True)
class Cache:
    """Record what a model does on a data set, for any number of fits; goes on where it stopped."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """torchvision:NAME, timm:NAME or package.module:factory"""
    data: Annotated[Positional[str], arg(metavar="DIR")]
    """folder of images in class folders, or a CUB-200-2011 folder; class folders may also lie in
    object storage (s3://bucket/folder)"""
    layer: tuple[str, ...]
    """dotted names; `xnn layers MODEL` lists them; all are recorded in one pass"""
    out: str
    """folder for the cache, or a URL of object storage"""
    weights: Path | None = None
    """state dict of the model: .safetensors, or .pt / .pth without code in it"""
    random_weights: bool = False
    """record a model with random weights (only to try things out)"""
    dtype: CacheDtype = "float32"
    """precision of the layers' outputs; logits are kept in float32"""
    copies: int = 0
    """altered copies of every image to record along; see `xnn fit`"""
    held_out: float = 0.2
    """with --copies: share of every class that is held out, with its copies"""
    seed: int = 0
    """with --copies: of the choice and of the alterations"""
    chunk_rows: int | None = None
    """images per file; by default at most 4096 and 64 MB"""
    verify: bool = False
    """check the checksums of a cache that is there, and record damaged chunks again"""
    source: DataConfig = field(default_factory=DataConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)

    def execute(self) -> None:
        """Check if asked, record what is missing, print what the cache holds."""
        with make_progress(ERR) as progress:
            damaged = self._verify(progress) if self.verify else []
            cache = self._record(progress)
        if damaged:
            text = f"{len(damaged)} damaged chunk(s) were recorded again"
            ERR.print(f"xnn: warning: {text}", style="yellow", markup=False, highlight=False)
        OUT.print(cache_table(cache))
        line = f"Saved in {cache.store.location}"
        OUT.print(line, highlight=False, markup=False)

    def _verify(self, progress: Progress) -> list[int]:
        if "manifest.json" not in file_sizes(as_location(self.out)):
            raise XNNError(f"--verify: there is no cache at {self.out} yet; run it without")
        store = ActivationCache.open(self.out, complete=False).store
        advance = count_images(progress, "Verifying chunks", store.chunks)
        return store.verify(lambda _: advance(1), remove=True)

    def _record(self, progress: Progress) -> ActivationCache:
        loaded = load_model(self.model, self.weights, allow_random=self.random_weights)
        preprocessing = self.source.preprocessing(loaded.preprocessing)
        outputs = count_outputs(loaded.model, preprocessing)
        opened = open_dataset(
            self.data, preprocessing, self.source, outputs, loaded.classes, "train", progress
        )
        dataset: ImageDataset = opened.dataset
        if self.copies:
            dataset = HeldOutCopies(dataset, self.copies, self.held_out, self.seed)
        return cache_activations(
            loaded.model,
            self.layer,
            dataset,
            self.out,
            dtype=self.dtype,
            chunk_rows=self.chunk_rows,
            batch_size=self.source.images_per_pass,
            workers=self.source.workers,
            preprocessing=preprocessing,
            class_names=opened.class_names,
            source=self._source(loaded.description, opened.dataset.name),
            engine=None if self.engine == EngineConfig() else self.engine.make(),
            on_images=count_images(progress, "Recording activations", len(dataset)),
        )

    def _source(self, description: str, data: str) -> dict[str, Any]:
        """What `xnn fit` saves with an XNN, to find the model again."""
        return describe_source(self.model, self.weights, self.random_weights, description, data)


def cache_table(cache: ActivationCache) -> Table:
    """Layers with shapes and sizes, and what else the cache holds."""
    table = Table(title=f"{len(cache)} images, {cache.n_outputs} outputs", title_justify="left")
    table.add_column("layer")
    table.add_column("shape", justify="right")
    table.add_column("precision")
    table.add_column("MB", justify="right")
    for layer in cache.layers:
        shape = " x ".join(map(str, cache.dims(layer)))
        precision = str(cache.dtype).removeprefix("torch.")
        table.add_row(layer, shape, precision, f"{cache.nbytes(layer) / 1e6:.1f}")
    logits = len(cache) * cache.n_outputs * 4 / 1e6
    table.add_row("logits", str(cache.n_outputs), "float32", f"{logits:.1f}")
    held_out = cache.held_out
    caption = "no labels: the model's predictions decide what is a positive"
    if cache.labels is not None:
        caption = "with labels"
    if held_out is not None:
        caption += f"; {int(held_out.sum())} of the images are held out"
    table.caption = caption
    return table
