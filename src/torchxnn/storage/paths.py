"""Files on this machine or in object storage: a `Path`, or a `UPath` for a URL of fsspec.

Local files appear whole or not at all (a temporary file, fsync, rename); remote ones are written
with one put, which is as whole in every object store.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

from upath import UPath

from torchxnn.errors import DataError
from torchxnn.storage.files import replace_file

Place = Path | UPath
"""What lies on this machine, and what does not."""

Location = str | Place
"""What people give: a path of this machine, or a URL such as s3://bucket/folder."""


def as_place(location: Location) -> Place:
    """A `Path` for what lies on this machine, a `UPath` for the rest.

    Raises:
        DataError: the kind of URL is not known, or its package is not installed.
    """
    text = str(location)
    if text.startswith(("file://", "local://")):
        return Path(text.partition("://")[2])
    if "://" not in text:
        return Path(text)
    try:
        place = location if isinstance(location, UPath) else UPath(text.rstrip("/"))
        place.fs  # noqa: B018 # looks its package up
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{location} cannot be opened: {error} (object storage needs fsspec's package for it, "
            "such as s3fs, gcsfs or adlfs)"
        ) from error
    return place


def list_folder(folder: Place) -> dict[Place, int | None]:
    """What lies in a folder, hidden files too: bytes of each file, None for a folder in it.

    In object storage it is one request, whatever was listed before.

    Raises:
        OSError: there is no such folder, or it cannot be read.
    """
    if isinstance(folder, Path):
        return {entry: _size(entry) for entry in folder.iterdir()}
    folder.fs.invalidate_cache(folder.path)
    found = {each["name"].strip("/"): each for each in folder.fs.ls(folder.path, detail=True)}
    found.pop(folder.path.strip("/"), None)  # a folder's own marker, or a file listed as itself
    return {
        folder / path.rpartition("/")[2]: None
        if each["type"] == "directory"
        else int(each["size"] or 0)
        for path, each in found.items()
    }


def file_sizes(folder: Place) -> dict[str, int]:
    """Names and sizes in bytes of what lies in a folder; subfolders count 0, hidden files too.

    No such folder, or a file in its place, gives an empty dictionary.
    """
    try:
        return {entry.name: size or 0 for entry, size in list_folder(folder).items()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def file_size(file: Place) -> int:
    """Size of one file in bytes; 0 if there is none."""
    if isinstance(file, Path):
        return _size(file) or 0
    try:
        return int(file.fs.size(file.path) or 0)
    except FileNotFoundError:
        return 0


def _size(file: Path) -> int | None:
    try:
        found = file.stat()
    except FileNotFoundError:  # a temporary file that was renamed meanwhile
        return 0
    return None if stat.S_ISDIR(found.st_mode) else found.st_size


Stream = IO[bytes] | io.BytesIO
"""An opened file, or its bytes in memory."""


def read_bytes(file: Place, start: int = 0, stop: int | None = None) -> bytes:
    """A file, or a part of it; in object storage it is one request.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not isinstance(file, Path):
        return file.fs.cat_file(file.path, start=start, end=stop)
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read(-1 if stop is None else stop - start)


def read_heads(folder: Place, names: Sequence[str], length: int) -> list[bytes]:
    """The first bytes of several files, in one go where the storage can; of a missing one none."""
    if not isinstance(folder, Path):
        paths = [(folder / name).path for name in names]
        heads = folder.fs.cat_ranges(
            paths, [0] * len(paths), [length] * len(paths), on_error="return"
        )
        return [head if isinstance(head, bytes) else b"" for head in heads]
    heads = []
    for name in names:
        try:
            heads.append(read_bytes(folder / name, 0, length))
        except FileNotFoundError:
            heads.append(b"")
    return heads


def write_bytes(file: Place, content: Iterable[Any], prefix: str = ".torchxnn-") -> None:
    """Write bytes or buffers, one after the other, in one step; missing parent folders are made.

    `prefix` begins the temporary file's name, which ends in .tmp; only local files have one.

    Raises:
        OSError: the file cannot be written; an old one is as it was.
    """
    if isinstance(file, Path):
        replace_file(file, content, prefix)
    else:
        file.fs.pipe_file(file.path, b"".join(content))
