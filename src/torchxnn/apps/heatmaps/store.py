"""Heatmaps of many images on disk: read them as a sequence, one frozen record per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final, overload

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.storage.paths import Location

KIND, KIND_VERSION = "heatmaps", 1

CONSERVATION, FALLBACK = "conservation_error", "fallback_share"

PROBLEM_BYTES = 160
"""Length of the text that says why an image could not be read, in bytes of UTF-8."""


@dataclass(frozen=True, eq=False)
class ImageHeatmaps:
    r"""The heatmaps of one image and the numbers that belong to them.

    :math:`\hat y_k = \sum_i c_{ki} + b_k`, as in `Explanation`.

    Attributes:
        row: index of the image in the data set.
        name: of the image, as the data set has it.
        heatmaps: (n, h, w) float32, signed; NaN if the image could not be read.
        features: (n,), the x-features E.
        contributions: (k, n) per target, in logits; see `Embedding.contributions`.
        reproduced: (k,).
        logits: (k,), the network's own.
        predicted: the class that the network predicts, see `predicted_classes`; -1 if the image
            could not be read.
        conservation_error: largest distance of a heatmap's sum from what excitation backprop
            promises, before rounding; None for methods that promise nothing.
        fallback_share: largest share of relevance of any x-feature that a fallback rule shared
            out; None for methods without such a rule. In files of earlier versions a mean over the
            images that were drawn together.
        problem: why the image could not be read; empty if it could.
    """

    row: int
    name: str
    heatmaps: Float[Tensor, "features height width"]
    features: Float[Tensor, " features"]
    contributions: Float[Tensor, "targets features"]
    reproduced: Float[Tensor, " targets"]
    logits: Float[Tensor, " targets"]
    predicted: int
    conservation_error: float | None
    fallback_share: float | None
    problem: str


@final
class Heatmaps(Sequence[ImageHeatmaps]):
    """What `attribute_many` has written, as a sequence of `ImageHeatmaps`.

    Local files are mapped, so that only what is looked at is read. It can be pickled.

    Attributes:
        store: the chunks.

    Example:
        >>> maps = Heatmaps.open("maps")
        >>> maps[0].heatmaps.shape
        torch.Size([5, 224, 224])
    """

    def __init__(self, store: ChunkStore) -> None:
        self.store = store
        self._mapped: tuple[int, dict[str, Tensor]] | None = None

    @classmethod
    def open(cls, location: Location, *, complete: bool = True) -> Heatmaps:
        """Open heatmaps; with `complete=False` those that are not all there, too.

        To read what is missing is then an error.

        Raises:
            DataError: no heatmaps there, of a newer version, or not complete.
        """
        store = ChunkStore.open_kind(location, KIND, KIND_VERSION)
        if complete:
            store.check_complete()
        return cls(store)

    def __len__(self) -> int:
        return self.store.rows

    @overload
    def __getitem__(self, index: int) -> ImageHeatmaps: ...

    @overload
    def __getitem__(self, index: slice) -> list[ImageHeatmaps]: ...

    def __getitem__(self, index: int | slice) -> ImageHeatmaps | list[ImageHeatmaps]:
        """One image, or several; negative indices count from the end."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} images, there is no image {index}")
        index %= len(self)
        chunk, at = divmod(index, self.store.chunk_rows)
        return self._record(index, self._tensors(chunk), at)

    def __iter__(self) -> Iterator[ImageHeatmaps]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        """Names of the images, as the data set has them."""
        names: list[str] = self.store.notes["names"]
        return names

    @property
    def targets(self) -> tuple[int, ...]:
        """Class indices whose logits the x-features reproduce."""
        return tuple(self.store.about["targets"])

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the network's outputs, if they are known."""
        names = self.store.notes["class_names"]
        return None if names is None else tuple(names)

    @property
    def method(self) -> str:
        """Name of the attribution method that drew the heatmaps."""
        return str(self.store.about["method"])

    @property
    def unreadable(self) -> dict[str, str]:
        """Names of the images that could not be read, and why.

        Those that the data set had left out when it was opened come first; they have no row.
        """
        found = dict(self.store.notes["left_out"])
        for chunk in range(self.store.chunks):
            problems = self.store.read(chunk, ["problem"])["problem"]
            for at in problems.any(1).nonzero().flatten().tolist():
                found[self.names[self.store.span(chunk)[at]]] = _text(problems[at])
        return found

    def column(self, name: str) -> Tensor:
        """One of the tensors for all images, as `features` or `contributions`, in memory.

        Raises:
            DataError: there is no such tensor.
        """
        return torch.cat([self.store.read(c, [name])[name] for c in range(self.store.chunks)])

    @property
    def rows(self) -> Int64[Tensor, " images"]:
        """Index of every image in the data set."""
        return self.column("row")

    def _tensors(self, chunk: int) -> dict[str, Tensor]:
        if self._mapped is None or self._mapped[0] != chunk:
            self._mapped = chunk, self.store.read(chunk)
        return self._mapped[1]

    def _record(self, index: int, tensors: dict[str, Tensor], at: int) -> ImageHeatmaps:
        scale = tensors["scale"][at].reshape(-1, 1, 1)
        figures: dict[str, Any] = {
            name: float(tensors[name][at]) if name in tensors else None
            for name in (CONSERVATION, FALLBACK)
        }
        numbers: dict[str, Any] = {
            name: tensors[name][at].clone()
            for name in ("features", "contributions", "reproduced", "logits")
        }
        return ImageHeatmaps(
            row=int(tensors["row"][at]),
            name=self.names[index],
            heatmaps=tensors["heatmaps"][at].float() * scale,
            predicted=int(tensors["predicted"][at]),
            problem=_text(tensors["problem"][at]),
            **numbers,
            **figures,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "_mapped": None}


def as_problem(text: str) -> bytes:
    """A reason as the bytes that `_text` reads, cut where it is too long."""
    content = text.encode("utf-8", "replace")[:PROBLEM_BYTES]
    return content.ljust(PROBLEM_BYTES, b"\0")


def _text(problem: Tensor) -> str:
    return bytes(problem.tolist()).rstrip(b"\0").decode("utf-8", "ignore")
