"""Any folder of images or volumes: class folders, or a flat folder without labels."""

import os
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

from rich.progress import Progress

from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.data.datasets.class_order import (
    ClassOrder,
    in_order,
    order_of_folders,
    places_by_name,
    unknown_folder,
)
from torchxnn.data.datasets.file_tree import Found, entries, left_out, walk, what_is_there
from torchxnn.data.datasets.images import (
    READABLE,
    check_input,
    count_pages,
    quiet_pillow,
    read_input,
    readable,
)
from torchxnn.errors import DataError, SkippedImagesWarning
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.paths import Location, Place, as_place

_NAMED = 5  # skipped images that the warning names; `.skipped` has them all


@dataclass(frozen=True)
class SkippedImage:
    """A picture that was left out: its path relative to the root, and why."""

    path: str
    reason: str


@final
class ImageFolder(ImageDataset):
    """Pictures in class folders: `root/CLASS/anything.jpg`; volumes, where the network takes them.

    The root is a folder, or an fsspec URL of one such as s3://bucket/folder. Classes are in the
    order of the folders' names: by value where all are whole numbers (2 before 10), else as text.

    Every picture is decoded once, cheaply, when the data set is made. Those that cannot be read are
    left out *then*, with one counted warning, so that indices, labels and paths agree from
    the first to the last read. A file that breaks afterwards is an error that names it. A class
    whose folder has no readable picture stays in the list of classes: class indices never shift.
    Hidden files and folders are ignored; folders inside a class folder are searched too. Files of
    kinds that nothing here reads are counted in a warning by their extension.

    Args:
        root: the folder.
        preprocessing: how pictures become tensors.
        labelled: False takes every picture below `root`, without labels.
        classes: the class names that the network knows, in its order, where the folder has only
            some of them; by default the names of the class folders.
        order: the place of every class folder among the classes, where names alone do not tell.
        check: False trusts the files (no decoding at the start, for very large folders); one that
            cannot be read is then an error when its turn comes.
        progress: shows how far the check is.

    Attributes:
        skipped: the pictures that were left out.
        remote_sizes: bytes of every picture as a remote folder lists them; None in a local one.

    Raises:
        DataError: if the folder is missing or empty, has no class folders, has a class folder whose
            name is not in `classes`, or none of its pictures can be read.
    """

    def __init__(
        self,
        root: Location,
        preprocessing: Preprocessing,
        *,
        labelled: bool = True,
        classes: Sequence[str] | None = None,
        order: ClassOrder | None = None,
        check: bool = True,
        progress: Progress | None = None,
    ):
        self._folder = as_place(root)
        self.root = self._folder if isinstance(self._folder, Path) else None
        self.name = self._folder.name or str(self._folder)
        self.preprocessing, self._kinds = preprocessing, readable(preprocessing)
        if not self._folder.is_dir():
            kind = "is not a folder" if self._folder.exists() else "does not exist"
            raise DataError(f"{self._folder} {kind}")
        folders = class_folders(self._folder, self._kinds) if labelled else ()
        if labelled:
            order = order or _order(self._folder, folders, classes)
        every = self._files(folders) if labelled else list(walk(self._folder, kinds=self._kinds))
        files = {file.path: file.size for file in every if file.is_image}
        if not files:
            one = "" if preprocessing.depth is None else "; a volume is one file of all its slices"
            there = what_is_there(self._folder, self._kinds)
            raise DataError(f"{self._folder} has no {preprocessing.unit}s ({there}){one}")
        self.skipped = self._check(list(files), progress) if check else ()
        broken = {image.path for image in self.skipped}
        self.paths = tuple(path for path in files if path not in broken)
        sizes = tuple(files[path] or 0 for path in self.paths)
        self.remote_sizes = sizes if self.root is None else None
        self.classes = order.classes if order else ()
        self.labels = places_by_name(order.places, self.paths) if order else None
        lying = entries(self._folder, kinds=self._kinds) if labelled else []
        beside = [file for file in lying if not file.is_folder]
        self._warn(len(files), left_out([*every, *beside]), [f.name for f in beside if f.is_image])

    def _files(self, folders: Sequence[str]) -> list[Found]:
        root = self._folder
        return [
            file for name in folders for file in walk(root / name, f"{name}/", root, self._kinds)
        ]

    def load(self, index: int) -> Sample:
        """Read and preprocess the picture at an index from 0 to len - 1."""
        path = self.paths[index]
        image = read_input(self._folder / path, self.preprocessing, warn=False)
        return Sample(image, None if self.labels is None else self.labels[index], path)

    def _check(self, paths: list[str], progress: Progress | None) -> tuple[SkippedImage, ...]:
        files = (self._folder / path for path in paths)
        with quiet_pillow(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            reasons: Iterable[str | None] = threads.map(
                partial(check_input, preprocessing=self.preprocessing), files
            )
            if progress:
                reasons = progress.track(reasons, len(paths), description="Checking images")
            skipped = tuple(
                SkippedImage(path, reason)
                for path, reason in zip(paths, reasons, strict=True)
                if reason is not None
            )
        if len(skipped) == len(paths):
            raise DataError(
                f"none of the {len(paths)} {self.preprocessing.unit}s in {self._folder} can be "
                f"read; the first, "
                f"{skipped[0].path}: {skipped[0].reason}"
            )
        return skipped

    def _with_pages(self) -> list[str]:
        """The TIFF files of several pages, where pages are not channels."""
        if self.preprocessing.takes_arrays:
            return []
        return [path for path in self.paths if count_pages(self._folder / path) > 1]

    def _warn(self, found: int, others: str, beside: Sequence[str]) -> None:
        remarks, unit = [], self.preprocessing.unit
        if self.skipped:
            named = ", ".join(f"{image.path} ({image.reason})" for image in self.skipped[:_NAMED])
            more = ", ..." if len(self.skipped) > _NAMED else ""
            remarks.append(
                f"{len(self.skipped)} of {found} {unit}s could not be read and were left out: "
                f"{named}{more}"
            )
        if paged := self._with_pages():
            remarks.append(
                f"{len(paged)} TIFF file(s) have several pages, of which the first is read: "
                f"{', '.join(paged[:_NAMED])}{', ...' if len(paged) > _NAMED else ''}"
            )
        if others:
            remarks.append(
                f"{self._folder} has files that are not read and were left out: {others}"
            )
        if beside:
            remarks.append(
                f"{len(beside)} {unit}s beside the class folders were left out: "
                f"{', '.join(beside[:_NAMED])}{', ...' if len(beside) > _NAMED else ''}"
            )
        for remark in remarks:
            warnings.warn(remark, SkippedImagesWarning, stacklevel=3)


def class_folders(root: Place, kinds: frozenset[str] = READABLE) -> tuple[str, ...]:
    """The names of the folders in a folder, in the order of the classes.

    Raises:
        DataError: there are none.
    """
    found = entries(root, kinds=kinds)
    folders = [entry.name for entry in found if entry.is_folder]
    if not folders and any(entry.is_image for entry in found):
        raise DataError(
            f"{root} has images but no class folders; sort them into one folder per class, or read "
            "them without labels (labelled=False)"
        )
    if not folders:
        raise DataError(f"{root} has no class folders ({what_is_there(root, kinds)})")
    return in_order(folders)


def _order(root: Place, folders: Sequence[str], classes: Sequence[str] | None) -> ClassOrder:
    """The places of class folders among the given classes, or else in their own order."""
    count = len(folders if classes is None else classes)
    order = order_of_folders(folders, classes, count)
    if order is None:
        name, near = unknown_folder(folders, classes or ())
        raise DataError(f"{root / name} is none of the {count} classes given{near}")
    return order
