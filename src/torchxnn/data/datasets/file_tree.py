"""List the files below a folder of images: which are images, and which others are left out.

Every file is looked at once, and locally not even that: the folder's own listing says what it is.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from torchxnn.data.datasets.images import NEEDS, READABLE, begins_as_image, suffix_of
from torchxnn.errors import DataError
from torchxnn.storage.paths import Place, list_folder

_NOTES = frozenset(
    {".cfg", ".css", ".csv", ".db", ".doc", ".docx", ".htm", ".html", ".ini", ".ipynb", ".js"}
    | {".json", ".log", ".lnk", ".md", ".md5", ".pdf", ".py", ".rst", ".rtf", ".sh", ".sha256"}
    | {".toml", ".tmp", ".tsv", ".txt", ".url", ".xls", ".xlsx", ".xml", ".yaml", ".yml"}
)
"""Kinds of files that lie beside images and are none: nobody misses them."""

_NOTE_NAMES = frozenset({"authors", "checksums", "copying", "license", "makefile", "readme"})


@dataclass(frozen=True)
class Found:
    """A file or a folder in a folder.

    Attributes:
        path: from the folder that was listed first, with "/" between its parts.
        size: bytes, as object storage lists them; None of a local file and of a folder.
        is_folder: whether it is one; a link counts as what it leads to.
        kinds: endings of the files that are images.
        holds_image: whether a local file without an ending begins as images do.
    """

    path: str
    size: int | None
    is_folder: bool
    kinds: frozenset[str] = READABLE
    holds_image: bool = False

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The extension in lower case with its dot; empty if there is none."""
        return suffix_of(self.name)

    @property
    def is_image(self) -> bool:
        """Whether it is a file with the extension of an image, or none and its contents."""
        return not self.is_folder and (self.suffix in self.kinds or self.holds_image)


def entries(folder: Place, above: str = "", kinds: frozenset[str] = READABLE) -> list[Found]:
    """What lies in a folder by name, but for hidden things; `above` begins every path.

    `kinds` are the endings of the files that are images; see `images.readable`.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        found = list(_local(folder) if isinstance(folder, Path) else _remote(folder))
    except OSError as error:
        raise DataError(f"cannot list the folder {folder}: {error.strerror}") from error
    listed = [
        Found(above + name, size, is_folder, kinds)
        for name, size, is_folder in sorted(found)
        if not name.startswith(".") and name != "__MACOSX"
    ]
    if not isinstance(folder, Path) or not kinds >= READABLE:
        return listed
    return [
        replace(file, holds_image=begins_as_image(folder / file.name)) if _is_bare(file) else file
        for file in listed
    ]


def _is_bare(file: Found) -> bool:
    return not (file.is_folder or file.suffix or _is_note(file))


def walk(
    folder: Place, above: str = "", root: Place | None = None, kinds: frozenset[str] = READABLE
) -> Iterator[Found]:
    """Every file below a folder, sorted by path; hidden ones are not. `kinds` as in `entries`.

    A link to a folder further up, up to `root`, is not followed: it would lead round in circles.
    """
    links = frozenset() if root is None else frozenset({root.resolve()})
    found = _walk(folder, above, links, kinds)
    yield from sorted(found, key=lambda file: file.path.split("/"))


def _walk(
    folder: Place, above: str, links: frozenset[Place], kinds: frozenset[str]
) -> Iterator[Found]:
    here = folder.resolve()
    if here in links:
        return
    for entry in entries(folder, above, kinds):
        if entry.is_folder:
            yield from _walk(folder / entry.name, f"{entry.path}/", links | {here}, kinds)
        else:
            yield entry


def _local(folder: Path) -> Iterator[tuple[str, int | None, bool]]:
    with os.scandir(folder) as listing:
        for entry in listing:
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that leads to itself
                is_folder = False
            yield entry.name, None, is_folder


def _remote(folder: Place) -> Iterator[tuple[str, int | None, bool]]:
    for entry, size in list_folder(folder).items():
        yield entry.name, size, size is None


def left_out(files: Iterable[Found]) -> str:
    """Files that no reader here takes, counted by extension; empty if there are none.

    As in ".heic 3 (needs pip install pillow-heif), .psd 1". Notes beside the images, such as text
    and tables, do not count.
    """
    kinds = Counter(
        file.suffix or "without an extension"
        for file in files
        if not file.is_image and file.suffix not in _NOTES and not _is_note(file)
    )
    ways = {kind: f" (needs {NEEDS[kind]})" if kind in NEEDS else "" for kind in kinds}
    return ", ".join(f"{kind} {count}{ways[kind]}" for kind, count in kinds.most_common())


def _is_note(file: Found) -> bool:
    return not file.suffix and file.name.lower() in _NOTE_NAMES


def what_is_there(root: Place, looked_for: frozenset[str] = READABLE) -> str:
    """The kinds of files below a folder in which no image was found, for messages."""
    kinds = Counter(file.suffix or "no extension" for file in walk(root))
    if not kinds:
        return "it is empty"
    shown = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3))
    way_out = "; --arrays reads .npy files" if ".npy" in kinds and ".npy" not in looked_for else ""
    return f"it has {shown}; looked for {' '.join(sorted(looked_for))}{way_out}"
