"""Gather the rows of a large tensor: in memory up to a limit, in a temporary file beyond it."""

from __future__ import annotations

import tempfile
from typing import IO

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from torchxnn.errors import DataError

GIGABYTE = 1e9


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
            self._like = rows[:0]
        if rows.shape[1:] != self._like.shape[1:] or rows.dtype != self._like.dtype:
            raise DataError(
                f"activations of shape {tuple(rows.shape[1:])} follow {tuple(self._like.shape[1:])}"
                " in one set; give images of one size"
            )
        self._rows += len(rows)
        self._bytes += rows.numel() * rows.element_size()
        if self._file is None and rows.ndim == 4 and self._bytes > self._limit:
            self._file = tempfile.TemporaryFile(prefix="torchxnn-")  # noqa: SIM115
            while self._parts:
                self._write(self._parts.pop(0))
        if self._file is None:
            self._parts.append(rows)
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
        while self._parts:
            part = self._parts.pop(0)
            whole[start : start + len(part)] = part
            start += len(part)
        return whole

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
