"""What one pass of the explained model over the data gives: activations, logits and labels.

Vectors are kept in memory in float32. Maps of convolutional layers are thousands of times as large:
they are kept in float16, in memory up to a limit and in a temporary file beyond it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from torchxnn.data.labels import as_given, known_samples, settle
from torchxnn.data.loading import by_position, image_tensor, label_tensor
from torchxnn.errors import DataError
from torchxnn.models.config import OutputScale, OutputsConfig
from torchxnn.models.meaning import CLASSES, Meaning
from torchxnn.models.outputs import predicted_classes

CHUNK = 2**26
"""Bytes of rows that are kept in one piece. Small tensors kept between the large ones of a model's
passes would split the heap, which then grows by about a batch of images per batch; the system gives
large pieces a place of their own."""

ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Activations:
    """What the explained model did on a data set.

    Attributes:
        z: the layer's output: vectors (M, S_z) in float32, trailing 1x1 dimensions flattened, or
            maps (M, C, h, w), in float16 unless asked otherwise.
        logits: (M, K) float32, all of the model's outputs before the softmax.
        labels: as `data.labels` has them, class indices (M,) above all; None if the loader gave
            images only.
        map_memory: gigabytes of maps that are kept in memory, in this set and in each selection
            from it; more go to a temporary file.
        meaning: of the logits; it goes with the form of the labels.
    """

    z: Float[Tensor, "samples dims *map"]
    logits: Float[Tensor, "samples outputs"]
    labels: Shaped[Tensor, "samples *columns"] | None
    map_memory: float = 2.0
    meaning: Meaning = CLASSES

    def __len__(self) -> int:
        return self.z.shape[0]

    @property
    def n_outputs(self) -> int:
        """Number of the model's outputs, K."""
        return self.logits.shape[1]

    @property
    def predicted(self) -> Int64[Tensor, " samples"]:
        """The class that the model predicts for every sample; see `predicted_classes`."""
        return predicted_classes(self.logits, self.meaning.boundary)

    @classmethod
    def cat(cls, parts: Sequence[Activations]) -> Activations:
        """The sets of several batches, one after the other.

        Raises:
            DataError: only some of them have labels.
        """
        labels = [part.labels for part in parts if part.labels is not None]
        if len(labels) not in (0, len(parts)):
            raise DataError("the loader gives labels for some batches only")
        z, logits = torch.cat([p.z for p in parts]), torch.cat([p.logits for p in parts])
        joined = torch.cat(labels) if labels else None
        return cls(z, logits, joined, meaning=parts[0].meaning)

    def select(self, index: Tensor) -> Activations:
        """The samples at the given positions or under the given mask."""
        labels = None if self.labels is None else self.labels[index]
        return replace(self, z=self._rows(index), logits=self.logits[index], labels=labels)

    def to(self, device: torch.device) -> Activations:
        """The same activations on a device: this very object if it lies there already."""
        if self.z.device == device:
            return self
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, z=self.z.to(device), logits=self.logits.to(device), labels=labels)

    def settled(self, config: OutputsConfig) -> Activations:
        """The same with the meaning that the user or the labels give the outputs; see `settle`.

        A meaning that is there already stays, unless the user says something else.

        Raises:
            DataError: labels that do not fit the outputs.
        """
        if self.meaning != CLASSES and config.agrees_with(self.meaning):
            return self
        labels, meaning = settle(self.labels, self.n_outputs, config, self.logits)
        return replace(self, labels=labels, meaning=replace(meaning, scale=self.meaning.scale))

    def meant(self, meaning: Meaning) -> Activations:
        """The same with a meaning that is known, such as that of an XNN.

        Raises:
            DataError: labels that do not fit it.
        """
        settled = self.settled(OutputsConfig(meaning.outputs_are))
        return replace(settled, meaning=meaning)

    def of_scale(self, scale: OutputScale) -> Activations:
        """The same if it is known what the numbers of the logits are; see `Meaning`."""
        return replace(self, meaning=replace(self.meaning, scale=scale))

    def known(self, targets: Sequence[int]) -> Activations:
        """The samples whose labels for all targets are known: this very object if all are."""
        mask = known_samples(self.labels, targets)
        return self if mask is None else self.select(mask)

    @property
    def are_maps(self) -> bool:
        """Whether Z has positions, (M, C, h, w)."""
        return self.z.ndim == 4

    def _rows(self, index: Tensor) -> Tensor:
        if not self.are_maps:
            return self.z[index]
        chosen = index.nonzero().flatten() if index.dtype == torch.bool else index
        store = RowStore(self.map_memory)
        for part in chosen.split(ROWS_AT_ONCE):
            store.append(self.z[part])
        return store.result()


def split_batch(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Images and labels (as `as_given` has them) of one batch of a loader; see `data.loading`.

    Raises:
        DataError: the batch is neither a tensor, nor a pair that starts with one, nor a mapping
            with one, or its labels are neither (B,) nor (B, K).
    """
    batch = by_position(batch)
    given = list(batch[:2]) if isinstance(batch, (tuple, list)) else [batch]
    images, raw = image_tensor(given[0]) if given else None, given[1] if len(given) > 1 else None
    count = len(images) if isinstance(images, Tensor) and images.ndim else None
    labels = None if raw is None else label_tensor(raw, count)
    if not isinstance(images, Tensor) or (raw is not None and (labels is None or not labels.ndim)):
        raise DataError(
            "the loader must yield image batches or pairs (images, labels) with labels of shape "
            f"(B,) or (B, K), it yields {_describe(batch)}"
        )
    if labels is None:
        return images, None
    if len(labels) != len(images):
        raise DataError(f"{len(images)} images with {len(labels)} labels in one batch")
    return images, as_given(labels)


def _describe(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        parts = (f"{type(p).__name__}{list(getattr(p, 'shape', []))}" for p in batch)
        return f"{type(batch).__name__} of {', '.join(parts)}"
    return type(batch).__name__


class RowStore:
    """Rows that arrive in batches and become one tensor.

    The temporary file is mapped into memory, not read: the system loads the parts in use and drops
    them when memory is short. The file has no name, so nothing is left behind, also after a crash.
    It lies where Python's `tempfile` puts files; the environment variable TMPDIR moves it. `limit`
    is in gigabytes kept in memory.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit * 1e9
        self._parts: list[Tensor] = []
        self._free = 0
        self._bytes = 0
        self._rows = 0
        self._like: Tensor | None = None
        self._file: IO[bytes] | None = None

    def append(self, rows: Shaped[Tensor, "rows ..."]) -> None:
        """Add rows at the end.

        Raises:
            DataError: another shape or precision than before.
        """
        if self._like is None:
            self._like = rows.new_empty((0, *rows.shape[1:]))
        if rows.shape[1:] != self._like.shape[1:] or rows.dtype != self._like.dtype:
            raise DataError(
                f"activations of shape {tuple(rows.shape[1:])} follow {tuple(self._like.shape[1:])}"
                " in one set; give images of one size"
            )
        self._rows += len(rows)
        self._bytes += rows.numel() * rows.element_size()
        if self._file is None and rows.ndim == 4 and self._bytes > self._limit:
            self._file = tempfile.TemporaryFile(prefix="torchxnn-")  # noqa: SIM115
            for part in self._taken():
                part.contiguous().numpy().tofile(self._file)
        if self._file is None:
            self._keep(rows)
        else:
            rows.contiguous().numpy().tofile(self._file)

    def result(self) -> Shaped[Tensor, "rows ..."]:
        """All rows as one tensor; the store is empty afterwards.

        Raises:
            DataError: there are none.
        """
        like = self._like
        if like is None:
            raise DataError("there are no activations")
        shape = (self._rows, *like.shape[1:])
        file, self._file = self._file, None
        if file is not None:
            return _mapped(file, shape, like.dtype)
        # Copied part by part, each freed at once: `torch.cat` would hold everything twice.
        whole = torch.empty(shape, dtype=like.dtype)
        start = 0
        for part in self._taken():
            whole[start : start + len(part)] = part
            start += len(part)
        return whole

    def _keep(self, rows: Tensor) -> None:
        size = max(1, CHUNK // max(1, rows[:1].numel() * rows.element_size()))
        while len(rows):
            if not self._free:
                self._parts.append(rows.new_empty((size, *rows.shape[1:])))
                self._free = size
            count = min(self._free, len(rows))
            self._parts[-1][size - self._free :][:count] = rows[:count]
            self._free -= count
            rows = rows[count:]

    def _taken(self) -> Iterator[Tensor]:
        """The rows in memory, piece by piece, each forgotten when the next one is asked for."""
        while self._parts:
            part = self._parts.pop(0)
            yield part if self._parts else part[: len(part) - self._free]
        self._free = 0


def _mapped(file: IO[bytes], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    with file:
        file.flush()
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        return torch.from_numpy(np.memmap(file, dtype=kind, mode="c", shape=shape))
