"""Folders of images in object storage, with the methods of `pathlib.Path` that reading needs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Any, Literal, final

from torchxnn.storage.paths import (
    Location,
    as_location,
    child,
    file_system,
    list_folder,
    read_bytes,
)


@final
@dataclass(frozen=True)
class RemotePath(Traversable):
    """A file or a folder behind an fsspec URL, to be read.

    Attributes:
        url: where it is, without a slash at the end.
        kind: what a listing said it is; None if it comes from elsewhere, and is then looked up.
        size: in bytes, if a listing said it.
    """

    url: str
    kind: Literal["file", "directory"] | None = field(default=None, compare=False)
    size: int | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return PurePosixPath(self.url).name

    @property
    def suffix(self) -> str:
        """The ending of the name, with its dot."""
        return PurePosixPath(self.url).suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the URL, by which files are sorted."""
        return PurePosixPath(self.url).parts

    def joinpath(self, *names: Any) -> RemotePath:
        """Something below this folder."""
        url = self.url
        for name in names:
            url = str(child(url, str(name)))
        return RemotePath(url)

    def __truediv__(self, name: Any) -> RemotePath:
        return self.joinpath(name)

    def relative_to(self, folder: RemotePath) -> PurePosixPath:
        """The path below a folder."""
        return PurePosixPath(self.url.removeprefix(f"{folder.url}/"))

    def resolve(self) -> RemotePath:
        """Itself: object storage has no links."""
        return self

    def is_dir(self) -> bool:
        """Whether it is a folder that holds something."""
        return self._look_up("directory")

    def is_file(self) -> bool:
        """Whether it is a file."""
        return self._look_up("file")

    def exists(self) -> bool:
        """Whether it is either."""
        return self.is_dir() or self.is_file()

    def _look_up(self, kind: str) -> bool:
        if self.kind is not None:
            return self.kind == kind
        system, path = file_system(self.url)
        return bool(system.isdir(path) if kind == "directory" else system.isfile(path))

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies in the folder, from one listing."""
        for name, entry in list_folder(self.url).items():
            kind: Any = entry["type"] if entry["type"] in ("file", "directory") else None
            yield RemotePath(f"{self.url}/{name}", kind, entry["size"])

    def rglob(self, _: str) -> Iterator[RemotePath]:
        """All files below, whatever the pattern."""
        for entry in self.iterdir():
            if entry.is_dir():
                yield from entry.rglob(_)
            else:
                yield entry

    def open(self, mode: str = "rb", *_: Any, **__: Any) -> Any:
        """The contents, fetched in one request; for reading bytes only."""
        if mode != "rb":
            raise ValueError(f"{self.url} can only be read as bytes ('rb'), not with {mode!r}")
        return io.BytesIO(self.read_bytes())

    def read_bytes(self) -> bytes:
        """The contents."""
        return read_bytes(self.url)

    def read_text(self, encoding: str | None = None) -> str:
        """The contents as text, UTF-8 unless said otherwise."""
        return self.read_bytes().decode(encoding or "utf-8")


def as_folder(location: Location) -> Path | RemotePath:
    """A path of this machine, or a URL with the same methods."""
    place = as_location(location)
    return place if isinstance(place, Path) else RemotePath(place)
