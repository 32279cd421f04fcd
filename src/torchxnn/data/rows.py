"""Gather the rows of a large tensor: in memory up to a limit, in a temporary file beyond it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from torchxnn.errors import DataError

GIGABYTE = 1e9

CHUNK = 2**26
"""Bytes of rows that are kept in one piece. Small tensors kept between the large ones of a model's
passes would split the heap, which then grows by about a batch of images per batch; the system gives
large pieces a place of their own."""


class RowStore:
    """Rows that arrive in batches and become one tensor.

    The temporary file is mapped into memory, not read: the system loads the parts in use and drops
    them when memory is short. The file has no name, so nothing is left behind, also after a crash.
    It lies where Python's `tempfile` puts files; the environment variable TMPDIR moves it.

    Args:
        limit: gigabytes kept in memory.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit * GIGABYTE
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
                self._write(part)
        if self._file is None:
            self._keep(rows)
        else:
            self._write(rows)

    def result(self) -> Shaped[Tensor, "rows ..."]:
        """All rows as one tensor; the store is empty afterwards.

        Raises:
            DataError: there are none.
        """
        like = self._like
        if like is None:
            raise DataError("there are no activations")
        shape = (self._rows, *like.shape[1:])
        if self._file is not None:
            return self._mapped(shape, like.dtype)
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

    def _write(self, rows: Tensor) -> None:
        if self._file is not None:
            rows.contiguous().numpy().tofile(self._file)

    def _mapped(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        file, self._file = self._file, None
        if file is None:
            raise DataError("there are no activations")
        with file:
            file.flush()
            kind = torch.empty(0, dtype=dtype).numpy().dtype
            mapped = np.memmap(file, dtype=kind, mode="c", shape=shape)
        return torch.from_numpy(mapped)
