"""`xnn cache`: record layers' outputs, logits and labels of a data set once, for many fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rich.progress import Progress
from rich.table import Table
from tyro.conf import Positional, arg

from torchxnn.cli.saved_run import NamedModel
from torchxnn.cli.terminal import NUMBERS, Terminal, count_images
from torchxnn.data.config import CacheDtype
from torchxnn.errors import XNNError

if TYPE_CHECKING:
    from torchxnn.data.activation_cache import ActivationCache


@dataclass(frozen=True)
class Cache(NamedModel):
    """Record what a model does on a data set, for any number of fits; goes on where it stopped."""

    data: Annotated[Positional[str], arg(metavar="DIR")]
    """folder of images in class folders, or a CUB-200-2011 folder; class folders may also lie in
    object storage (s3://bucket/folder)"""
    layer: tuple[str, ...]
    """dotted names; `xnn layers MODEL` lists them; all are recorded in one pass"""
    out: str
    """folder for the cache, or a URL of object storage"""
    token: str | None = None
    """of layers that give tokens; see `xnn fit` (also in the name: --layer "blocks.3[cls]")"""
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

    def execute(self, terminal: Terminal) -> None:
        """Check if asked, record what is missing, print what the cache holds."""
        from torchxnn.models.tokens import layer_with_token

        with terminal.progress() as progress:
            damaged = self._verify(progress) if self.verify else []
            cache = self.record(
                self.load(),
                [layer_with_token(layer, self.token) for layer in self.layer],
                self.data,
                self.out,
                (self.copies, self.held_out, self.seed),
                progress,
                dtype=self.dtype,
                chunk_rows=self.chunk_rows,
            )
        if damaged:
            terminal.warn(f"{len(damaged)} damaged chunk(s) were recorded again")
        terminal.show(cache_table(cache))
        terminal.say(f"Saved in {cache.store.location}")

    def _verify(self, progress: Progress) -> list[int]:
        from torchxnn.data.activation_cache import ActivationCache
        from torchxnn.storage.paths import as_place, file_sizes

        if "manifest.json" not in file_sizes(as_place(self.out)):
            raise XNNError(f"--verify: there is no cache at {self.out} yet; run it without")
        store = ActivationCache.open(self.out, complete=False).store
        advance = count_images(progress, "Verifying chunks", store.chunks)
        return store.verify(lambda _: advance(1), remove=True)


def cache_table(cache: ActivationCache) -> Table:
    """Layers with shapes and sizes, and what else the cache holds."""
    table = Table("layer", NUMBERS("shape"), "precision", NUMBERS("MB"), title_justify="left")
    table.title = f"{len(cache)} images, {cache.n_outputs} outputs"
    for layer in cache.layers:
        shape = " x ".join(map(str, cache.dims(layer)))
        precision = str(cache.dtype).removeprefix("torch.")
        table.add_row(layer, shape, precision, f"{cache.nbytes(layer) / 1e6:.1f}")
    logits = len(cache) * cache.n_outputs * 4 / 1e6
    table.add_row("logits", str(cache.n_outputs), "float32", f"{logits:.1f}")
    table.caption = "no labels: the model's predictions decide what is a positive"
    if cache.labels is not None:
        table.caption = "with labels"
    if cache.held_out is not None:
        table.caption += f"; {int(cache.held_out.sum())} of the images are held out"
    return table
