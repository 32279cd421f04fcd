"""Files on this machine or in object storage: a path, or a URL that fsspec understands.

Local files appear whole or not at all (a temporary file, fsync, rename); remote ones are written
with one put, which is as whole in every object store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from torchxnn.errors import DataError
from torchxnn.storage.files import replace_file

Location = str | Path
"""A path of this machine, or a URL such as s3://bucket/folder."""


def as_location(location: Location) -> Location:
    """A `Path` for what lies on this machine, a URL without a slash at the end for the rest."""
    text = str(location)
    if text.startswith(("file://", "local://")):
        return Path(text.partition("://")[2])
    if isinstance(location, Path) or "://" not in text:
        return Path(location)
    protocol, _, path = text.rpartition("://")
    return f"{protocol}://{path.rstrip('/')}"


def child(folder: Location, name: str) -> Location:
    """The location of something in a folder."""
    return folder / name if isinstance(folder, Path) else f"{folder}/{name}"


def file_sizes(folder: Location) -> dict[str, int]:
    """Names and sizes in bytes of what lies in a folder; subfolders count 0, hidden files too.

    No such folder, or a file in its place, gives an empty dictionary.
    """
    if isinstance(folder, Path):
        if not folder.is_dir():
            return {}
        return {entry.name: _size(entry) for entry in folder.iterdir()}
    return {name: int(entry["size"] or 0) for name, entry in list_folder(folder).items()}


def list_folder(folder: str) -> dict[str, dict[str, Any]]:
    """What fsspec says about everything in a remote folder, by name; no folder gives nothing."""
    system, path = file_system(folder)
    system.invalidate_cache(path)
    try:
        entries = system.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    paths = {entry["name"].strip("/"): entry for entry in entries}
    paths.pop(path.strip("/"), None)  # a folder's own marker, or a file listed as itself
    return {each.rpartition("/")[2]: entry for each, entry in paths.items()}


def _size(file: Path) -> int:
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:  # a temporary file that was renamed meanwhile
        return 0


def file_size(file: Location) -> int:
    """Size of one file in bytes; 0 if there is none."""
    if isinstance(file, Path):
        return _size(file)
    system, path = file_system(file)
    try:
        return int(system.size(path) or 0)
    except FileNotFoundError:
        return 0


def read_bytes(file: Location, start: int = 0, stop: int | None = None) -> bytes:
    """A file, or a part of it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if isinstance(file, Path):
        with file.open("rb") as stream:
            stream.seek(start)
            return stream.read(-1 if stop is None else stop - start)
    system, path = file_system(file)
    return system.cat_file(path, start=start, end=stop)


def read_heads(folder: Location, names: Sequence[str], length: int) -> list[bytes]:
    """The first bytes of several files, in one go where the storage can; of a missing one none."""
    if not isinstance(folder, Path):
        system, root = file_system(folder)
        paths = [f"{root}/{name}" for name in names]
        heads = system.cat_ranges(paths, [0] * len(paths), [length] * len(paths), on_error="return")
        return [head if isinstance(head, bytes) else b"" for head in heads]
    heads = []
    for name in names:
        try:
            heads.append(read_bytes(folder / name, 0, length))
        except FileNotFoundError:
            heads.append(b"")
    return heads


def write_bytes(file: Location, content: Iterable[Any], prefix: str = ".torchxnn-") -> None:
    """Write a file in one step; missing parent folders are made.

    Args:
        file: where.
        content: bytes or buffers, one after the other.
        prefix: of the temporary file's name, which ends in .tmp; only local files have one.

    Raises:
        OSError: the file cannot be written; an old one is as it was.
    """
    if isinstance(file, Path):
        replace_file(file, content, prefix)
        return
    system, path = file_system(file)
    system.pipe_file(path, b"".join(content))


def remove_file(file: Location) -> None:
    """Remove a file; none is fine."""
    if isinstance(file, Path):
        file.unlink(missing_ok=True)
        return
    system, path = file_system(file)
    if system.exists(path):
        system.rm_file(path)


def file_system(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URL, and the path within it.

    Raises:
        DataError: the kind of URL is not known, or its package is not installed.
    """
    try:
        return url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(
            f"{url} cannot be opened: {error} (object storage needs fsspec's package for it, such "
            "as s3fs, gcsfs or adlfs)"
        ) from error
