"""Any folder of images: class folders, or a flat folder without labels."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import final

from rich.progress import Progress

from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.data.datasets.images import check_image, quiet_pillow, read_image
from torchxnn.errors import DataError, SkippedImagesWarning, near_ones
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.paths import Location, Place, as_place, list_folder

EXTENSIONS = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
_NAMED = 5  # skipped images that the warning names; `.skipped` has them all


@dataclass(frozen=True)
class SkippedImage:
    """A picture that was left out: its path relative to the root, and why."""

    path: str
    reason: str


@final
class ImageFolder(ImageDataset):
    """Pictures in class folders: `root/CLASS/anything.jpg`, classes sorted by name.

    The root is a folder, or an fsspec URL of one such as s3://bucket/folder.

    Every picture is decoded once, cheaply, when the data set is made. Those that cannot be read are
    left out *then*, with one counted warning, so that indices, labels and paths agree from
    the first to the last read. A file that breaks afterwards is an error that names it. A class
    whose folder has no readable picture stays in the list of classes: class indices never shift.
    Hidden files and folders are ignored; folders inside a class folder are searched too.

    Args:
        root: the folder.
        preprocessing: how pictures become tensors.
        labelled: False takes every picture below `root`, without labels.
        classes: the class names that the network knows, in its order, where the folder has only
            some of them; by default the names of the class folders, sorted.
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
        check: bool = True,
        progress: Progress | None = None,
    ):
        self._folder = as_place(root)
        self.root = self._folder if isinstance(self._folder, Path) else None
        self.name = self._folder.name or str(self._folder)
        self.preprocessing = preprocessing
        if not self._folder.is_dir():
            kind = "is not a folder" if self._folder.exists() else "does not exist"
            raise DataError(f"{self._folder} {kind}")
        folders = _class_folders(self._folder) if labelled else []
        self.classes = _class_names(self._folder, folders, classes)
        if labelled:
            files = {file: size for folder in folders for file, size in image_files(folder)}
        else:
            files = dict(image_files(self._folder))
        if not files:
            raise DataError(f"{self._folder} has no images ({_what_is_there(self._folder)})")
        self.skipped = self._check(list(files), progress) if check else ()
        left_out = {image.path for image in self.skipped}
        found = {_below(file, self._folder): size for file, size in files.items()}
        self.paths = tuple(path for path in found if path not in left_out)
        sizes = tuple(found[path] for path in self.paths)
        self.remote_sizes = sizes if self.root is None else None
        numbers = {name: index for index, name in enumerate(self.classes)}
        self.labels = (
            tuple(numbers[Path(path).parts[0]] for path in self.paths) if labelled else None
        )
        self._warn(len(files))

    def load(self, index: int) -> Sample:
        """Read and preprocess the picture at an index from 0 to len - 1."""
        path = self.paths[index]
        image = self.preprocessing(read_image(self._folder / path))
        return Sample(image, None if self.labels is None else self.labels[index], path)

    def _check(self, files: list[Place], progress: Progress | None) -> tuple[SkippedImage, ...]:
        with quiet_pillow(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            reasons: Iterable[str | None] = threads.map(check_image, files)
            if progress:
                reasons = progress.track(reasons, len(files), description="Checking images")
            skipped = tuple(
                SkippedImage(_below(file, self._folder), reason)
                for file, reason in zip(files, reasons, strict=True)
                if reason is not None
            )
        if len(skipped) == len(files):
            raise DataError(
                f"none of the {len(files)} images in {self._folder} can be read; the first, "
                f"{skipped[0].path}: {skipped[0].reason}"
            )
        return skipped

    def _warn(self, found: int) -> None:
        remarks = []
        if self.skipped:
            named = ", ".join(f"{image.path} ({image.reason})" for image in self.skipped[:_NAMED])
            more = ", ..." if len(self.skipped) > _NAMED else ""
            remarks.append(
                f"{len(self.skipped)} of {found} images could not be read and were left out: "
                f"{named}{more}"
            )
        beside = [file for file, size in _entries(self._folder) if _is_image(file, size)]
        if self.labels is not None and beside:
            remarks.append(
                f"{len(beside)} images beside the class folders were left out: "
                f"{', '.join(file.name for file in beside[:_NAMED])}"
                f"{', ...' if len(beside) > _NAMED else ''}"
            )
        for remark in remarks:
            warnings.warn(remark, SkippedImagesWarning, stacklevel=3)


def _below(file: Place, folder: Place) -> str:
    return file.relative_to(folder).as_posix()  # type: ignore[arg-type] # both of one kind


def image_files(folder: Place) -> Iterator[tuple[Place, int]]:
    """Every picture below a folder with its size in bytes, sorted by path; hidden ones are not."""
    yield from sorted(_walk(folder, frozenset()), key=lambda found: tuple(found[0].parts))


def _walk(folder: Place, above: frozenset[Place]) -> Iterator[tuple[Place, int]]:
    here = folder.resolve()
    if here in above:  # a symbolic link to a folder further up
        return
    for entry, size in _entries(folder):
        if size is None:
            yield from _walk(entry, above | {here})
        elif _is_image(entry, size):
            yield entry, size


def _entries(folder: Place) -> list[tuple[Place, int | None]]:
    """What lies in a folder by name, but for hidden things: its size, or None for a folder."""
    try:
        entries = list_folder(folder)
    except OSError as error:
        raise DataError(f"cannot list the folder {folder}: {error.strerror}") from error
    shown = [e for e in entries.items() if not e[0].name.startswith(".")]
    return sorted((e for e in shown if e[0].name != "__MACOSX"), key=lambda entry: entry[0].name)


def _is_image(file: Place, size: int | None) -> bool:
    return size is not None and file.suffix.lower() in EXTENSIONS


def _class_folders(root: Place) -> list[Place]:
    entries = _entries(root)
    folders = [entry for entry, size in entries if size is None]
    if not folders and any(_is_image(*entry) for entry in entries):
        raise DataError(
            f"{root} has images but no class folders; sort them into one folder per class, or read "
            "them without labels (labelled=False)"
        )
    if not folders:
        raise DataError(f"{root} has no class folders ({_what_is_there(root)})")
    return folders


def _class_names(
    root: Place, folders: list[Place], classes: Sequence[str] | None
) -> tuple[str, ...]:
    names = tuple(folder.name for folder in folders)
    if classes is None:
        return names
    repeated = [name for name, count in Counter(classes).items() if count > 1]
    if repeated:
        raise DataError(f"the class name {repeated[0]!r} is given twice")
    for name in names:
        if name not in classes:
            near = near_ones(name, classes)
            raise DataError(f"{root / name} is none of the {len(classes)} classes given{near}")
    return tuple(classes)


def _what_is_there(root: Place) -> str:
    suffixes = Counter(
        file.suffix.lower() or "no extension" for file in root.rglob("*") if file.is_file()
    )
    if not suffixes:
        return "it is empty"
    kinds = ", ".join(f"{count} x {suffix}" for suffix, count in suffixes.most_common(3))
    return f"it has {kinds}; looked for {' '.join(sorted(EXTENSIONS))}"
