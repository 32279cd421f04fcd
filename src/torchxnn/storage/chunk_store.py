"""Rows of tensors in chunk files: resumable, checksummed, safe with several writers.

A store is a folder, local or in object storage, with a versioned JSON manifest, written first, and
one safetensors file per chunk of rows. A chunk appears whole or not at all, so a kill at any moment
leaves a store that the same call continues. Which process writes which chunk does not matter.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from torch import Tensor

from torchxnn.errors import DataError
from torchxnn.storage.artifact import Format, differences, digest
from torchxnn.storage.paths import (
    Location,
    Place,
    as_place,
    file_size,
    file_sizes,
    read_heads,
    write_bytes,
)
from torchxnn.storage.tensor_file import (
    HEAD,
    TensorFileHeader,
    checksum_holds,
    encode_tensors,
    read_header,
    read_tensor_part,
    read_tensor_rows,
    read_tensors,
)

FORMAT = Format("torchxnn.chunks", 1, "a chunk store")
MANIFEST = "manifest.json"


@final
@dataclass(eq=False, repr=False)
class ChunkStore:
    """Rows in chunks on disk; made by `create` or `open`, never directly.

    A store can be pickled: another process opens the same files.

    Attributes:
        location: a `Path`, or a `UPath` in object storage.
        about: plain values that say what the rows are; two stores are the same if these are equal.
        notes: further plain values, which may differ when a store is continued.
        rows: number of rows of all chunks.
        chunk_rows: rows per chunk; the last chunk may have fewer.

    Example:
        >>> store = ChunkStore.create("maps", {"method": "rise"}, rows=1000, chunk_rows=100)
        >>> for chunk in store.missing():
        ...     store.write(chunk, {"maps": draw(store.span(chunk))})
    """

    location: Place
    about: Mapping[str, Any]
    rows: int
    chunk_rows: int
    notes: Mapping[str, Any]

    def __post_init__(self) -> None:
        same = {"about": self.about, "rows": self.rows, "chunk_rows": self.chunk_rows}
        self._key = digest(same)
        self._headers: dict[int, TensorFileHeader] = {}
        self._damaged: set[int] = set()

    @classmethod
    def create(
        cls,
        location: Location,
        about: Mapping[str, Any],
        rows: int,
        chunk_rows: int,
        notes: Mapping[str, Any] | None = None,
    ) -> ChunkStore:
        """Start a store, or continue the one that is there if it is the same.

        Args:
            location: a new or empty folder, or a store with equal settings.
            about: plain values, as in JSON.
            rows: at least 1.
            chunk_rows: at least 1.
            notes: plain values to keep with a new store; those of the one that is there stay.

        Raises:
            DataError: another store is there (the message says what differs), or something else.
        """
        if rows < 1 or chunk_rows < 1:
            raise DataError(f"rows and chunk_rows must be at least 1, got {rows} and {chunk_rows}")
        place = as_place(location)
        wanted, kept = _finite(about), _finite(notes or {})
        if MANIFEST not in file_sizes(place):
            _check_free(place)
            values = {"about": wanted, "rows": rows, "chunk_rows": chunk_rows, "notes": kept}
            content = FORMAT.encode({**values, "checksum": digest(values)})
            write_bytes(place / MANIFEST, [content])
        store = cls.open(place)
        others = differences(store.about, wanted)
        others += differences(store.rows, rows, "rows")
        others += differences(store.chunk_rows, chunk_rows, "chunk_rows")
        if others:
            raise DataError(
                f"{place} holds something else: {'; '.join(others)}. "
                "Choose another folder, or remove this one to start anew"
            )
        store._clean()
        return store

    @classmethod
    def open(cls, location: Location) -> ChunkStore:
        """Open a store that is there, complete or not.

        Raises:
            DataError: there is none, its manifest is damaged, or a newer version wrote it.
        """
        place = as_place(location)
        file = place / MANIFEST
        manifest = FORMAT.read(file)
        values: dict[str, Any] = {
            name: manifest.get(name) for name in ("about", "rows", "chunk_rows", "notes")
        }
        if manifest.get("checksum") != digest(values):
            raise DataError(
                f"{file} is damaged; restore it from a copy, or remove the folder and write the "
                "store anew"
            )
        return cls(place, **values)

    @classmethod
    def open_kind(cls, location: Location, kind: str, *versions: int) -> ChunkStore:
        """Open a store, complete or not, whose `about` has this "kind" and such a "kind_version".

        Raises:
            DataError: there is none, or it holds another kind.
        """
        store = cls.open(location)
        found, version = store.about.get("kind"), store.about.get("kind_version")
        if found != kind or version not in versions:
            raise DataError(
                f"{store.location} holds {found!r} version {version}; this torchxnn reads "
                f"{kind!r} version {' or '.join(map(str, versions))}"
            )
        return store

    def check_complete(self) -> None:
        """Refuse a store that is not all there.

        Raises:
            DataError: chunks are missing; the message says how many.
        """
        if missing := self.missing():
            raise DataError(
                f"{self.location} is not complete: {len(missing)} of {self.chunks} chunks are "
                "missing; run again what writes it, it goes on where it stopped"
            )

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.rows // self.chunk_rows)

    def span(self, chunk: int) -> range:
        """The rows of a chunk."""
        if not 0 <= chunk < self.chunks:
            raise DataError(f"{self.location} has chunks 0 to {self.chunks - 1}, not {chunk}")
        start = chunk * self.chunk_rows
        return range(start, min(start + self.chunk_rows, self.rows))

    def missing(self) -> list[int]:
        """Chunks that are not there, not whole, or that `verify` found damaged, in order.

        The size of every file is compared with its header; `verify` reads the data, too.
        """
        sizes = file_sizes(self.location)
        unknown = []
        for chunk in range(self.chunks):
            known = self._headers.get(chunk)
            if known is None or known.size != sizes.get(_name(chunk)):
                self._headers.pop(chunk, None)
                if _name(chunk) in sizes:
                    unknown.append(chunk)
        heads = read_heads(self.location, [_name(chunk) for chunk in unknown], HEAD)
        for chunk, head in zip(unknown, heads, strict=True):
            self._note(chunk, sizes[_name(chunk)], head)
        return [c for c in range(self.chunks) if c not in self._headers or c in self._damaged]

    def write(self, chunk: int, tensors: Mapping[str, Tensor]) -> None:
        """Write a chunk in one step; writing it again replaces it.

        Several processes may write to one store, also the same chunk at once. Tensors are float,
        integer or bool, with the rows along the first dimension, or along the last for what is read
        column by column.

        Raises:
            DataError: a tensor has another number of rows than the chunk.
            OSError: the file cannot be written, as on a full disk; whole chunks stay.
        """
        count = len(self.span(chunk))
        for name, tensor in tensors.items():
            if not tensor.ndim or count not in (tensor.shape[0], tensor.shape[-1]):
                raise DataError(
                    f"chunk {chunk} has {count} rows, {name!r} has shape {tuple(tensor.shape)}"
                )
        content = encode_tensors(tensors, {"chunk": str(chunk), "store": self._key})
        file = self._file(chunk)
        try:
            write_bytes(file, content, _temporary(chunk))
        except FileNotFoundError:
            # Another process has written this chunk and cleaned up behind us.
            self._headers.pop(chunk, None)
            if self._header(chunk) is None:
                raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(
                    error.errno,
                    "the disk is full; what is already written stays: free some space and run the "
                    "same again to continue",
                    str(file),
                ) from error
            raise
        self._headers.pop(chunk, None)
        self._damaged.discard(chunk)
        self._clean(chunk)

    def read(self, chunk: int, only: Collection[str] | None = None) -> dict[str, Tensor]:
        """The tensors of a chunk, or those asked for; mapped, not read, where the store is local.

        Raises:
            DataError: the chunk is not there or not whole, or has no tensor of that name.
        """
        header = self._readable(chunk, only or ())
        return read_tensors(self._file(chunk), header, only)

    def read_part(self, chunk: int, name: str, start: int, stop: int) -> Tensor:
        """One tensor of a chunk from index `start` to `stop` of its first dimension.

        No more than that is read; the best way to small parts.

        Raises:
            DataError: see `read`.
        """
        header = self._readable(chunk, [name])
        return read_tensor_part(self._file(chunk), header, name, start, stop)

    def read_rows(self, chunk: int, name: str, rows: Tensor) -> Tensor:
        """Some rows of one tensor of a chunk, by indices from 0 into its first dimension.

        Raises:
            DataError: see `read`.
        """
        return read_tensor_rows(self._file(chunk), self._readable(chunk, [name]), name, rows)

    def _readable(self, chunk: int, names: Collection[str]) -> TensorFileHeader:
        header = self._header(chunk)
        file = self._file(chunk)
        if header is None:
            raise DataError(f"{file} is missing or not whole; run again what writes it")
        absent = [name for name in names if name not in header.entries]
        if absent:
            raise DataError(f"{file} has no {absent[0]!r}, only {', '.join(header.entries)}")
        return header

    def verify(
        self,
        on_chunk: Callable[[int], None] | None = None,
        *,
        remove: bool = False,
        chunks: Iterable[int] | None = None,
    ) -> list[int]:
        """Read all data and compare checksums.

        Damaged chunks count as missing afterwards: in this object, and with `remove`, which removes
        their files, everywhere. `chunks` are those to look at, None for all; `on_chunk` is called
        with the number of each after it was read.

        Returns:
            The damaged chunks; those that are simply not there are not among them.
        """
        sizes = file_sizes(self.location)
        damaged = []
        for chunk in range(self.chunks) if chunks is None else chunks:
            self._damaged.discard(chunk)
            if _name(chunk) in sizes:
                self._headers.pop(chunk, None)
                header = self._header(chunk)
                if header is None or not checksum_holds(self._file(chunk), header):
                    damaged.append(chunk)
            if on_chunk is not None:
                on_chunk(chunk)
        self._damaged.update(damaged)
        for chunk in damaged if remove else ():
            self._file(chunk).unlink(missing_ok=True)
            self._headers.pop(chunk, None)
        return damaged

    def _file(self, chunk: int) -> Place:
        return self.location / _name(chunk)

    def _header(self, chunk: int) -> TensorFileHeader | None:
        self.span(chunk)
        if chunk not in self._headers:
            head = read_heads(self.location, [_name(chunk)], HEAD)[0]
            if head:
                self._note(chunk, file_size(self._file(chunk)), head)
        return self._headers.get(chunk)

    def _note(self, chunk: int, size: int, head: bytes) -> None:
        header = read_header(self._file(chunk), size, head)
        ours = {"chunk": str(chunk), "store": self._key}
        if header is not None and ours.items() <= header.metadata.items():
            self._headers[chunk] = header

    def _clean(self, chunk: int | None = None) -> None:
        """Remove temporary files of killed writers whose chunk is there meanwhile."""
        if isinstance(self.location, Path):
            chunks = range(self.chunks) if chunk is None else [chunk]
            for file in self.location.glob(".chunk-*.tmp"):
                done = any(file.name.startswith(_temporary(c)) for c in chunks)
                number = file.name.removeprefix(".chunk-").partition(".")[0]
                if done and self._header(int(number)) is not None:
                    with suppress(OSError):
                        file.unlink()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_headers": {}}


def _name(chunk: int) -> str:
    return f"chunk-{chunk:06d}.safetensors"


def _temporary(chunk: int) -> str:
    return f".chunk-{chunk:06d}."


def _finite(values: Mapping[str, Any]) -> Any:
    """The values as JSON brings them back; NaN is refused, since it would not compare equal."""
    try:
        return json.loads(json.dumps(dict(values), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError(f"what a store is about must be plain finite values: {error}") from error


def _check_free(place: Place) -> None:
    if isinstance(place, Path) and place.is_file():
        raise DataError(f"{place} is a file; choose a folder")
    others = sorted(name for name in file_sizes(place) if not name.startswith(".torchxnn-"))
    if others:
        raise DataError(
            f"{place} holds {others[0]!r} but no {MANIFEST}, so it is not a chunk store; "
            "choose another folder"
        )
