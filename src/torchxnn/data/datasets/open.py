"""Open a folder of whatever layout, and settle what its labels mean for the model."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.progress import Progress
from torch.utils.data import DataLoader

from torchxnn.data.datasets.base import ImageDataset, make_loader
from torchxnn.data.datasets.cub import CUB
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.outputs import check_targets, count_classes
from torchxnn.models.preprocessing import Preprocessing, Resize
from torchxnn.storage.remote_path import as_folder


@dataclass(frozen=True)
class DataConfig:
    """How images are read.

    Attributes:
        layout: "folder" is class folders, or images without labels; "cub" is CUB-200-2011; "auto"
            looks.
        split: part of a data set that has an official split; by default its training part to fit
            and its test part for everything else.
        size: height and width of the model's input in pixels; None takes what the model expects.
        resize: "squash" to the square or "crop" its centre; None takes what the model expects.
        images_per_pass: images per forward pass of the explained model.
        workers: processes that read images ahead.
    """

    layout: Literal["auto", "folder", "cub"] = "auto"
    split: Literal["train", "test", "all"] | None = None
    size: int | None = None
    resize: Resize | None = None
    images_per_pass: int = 32
    workers: int = 0

    def preprocessing(self, default: Preprocessing) -> Preprocessing:
        """The model's own preprocessing with the given size and resizing."""
        changes: dict[str, Any] = {}
        if self.size is not None:
            changes |= {"size": self.size, "shorter_side": None}
        if self.resize is not None:
            changes |= {"resize": self.resize, "shorter_side": None}
        return replace(default, **changes)

    def loader(self, dataset: ImageDataset) -> DataLoader[Any]:
        """Batches of the data set in its order."""
        return make_loader(dataset, self.images_per_pass, self.workers)


@dataclass(frozen=True, eq=False)
class OpenedData:
    """A data set whose labels, if it has any, are indices of the model's outputs.

    Attributes:
        dataset: without labels if its class folders do not belong to the model's outputs.
        class_names: names of the model's outputs, if known.
    """

    dataset: ImageDataset
    class_names: tuple[str, ...] | None


def open_dataset(
    root: str | Path,
    preprocessing: Preprocessing,
    config: DataConfig,
    outputs: int,
    class_names: Sequence[str] | None,
    default_split: Literal["train", "test"],
    progress: Progress | None = None,
) -> OpenedData:
    """Open a folder of images for a model.

    Class folders are labels if their names are among the model's class names, or, if those are not
    known, if there are as many folders as outputs (sorted by name, as torchvision does). Otherwise
    the images are used without labels, with a warning, and the model's own predictions decide what
    is a positive.

    Args:
        root: the folder, or an fsspec URL of one with class folders.
        preprocessing: how images become tensors.
        config: layout, split and so on.
        outputs: number of the model's outputs.
        class_names: their names, if known.
        default_split: of data sets with an official split.
        progress: shows the check of the files.

    Raises:
        DataError: no such folder, no images, nothing readable.
    """
    names = None if class_names is None else tuple(class_names)
    folder = as_folder(root)
    if config.layout == "cub" or (config.layout == "auto" and (folder / "images.txt").is_file()):
        if not isinstance(folder, Path):
            raise DataError(f"{folder} is in the layout of CUB, which is read from local folders")
        cub = CUB(folder, preprocessing, config.split or default_split)
        if len(cub.classes) != outputs:
            raise DataError(
                f"{root} has {len(cub.classes)} classes, the model {outputs} outputs; "
                "use a model that was trained on these classes"
            )
        return OpenedData(cub, cub.classes)
    folders = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    folders = [name for name in folders if not name.startswith(".")]
    if names is not None and folders and set(folders) <= set(names):
        labelled = ImageFolder(root, preprocessing, classes=names, progress=progress)
        return OpenedData(labelled, names)
    if folders and len(folders) == count_classes(outputs) and names is None:
        labelled = ImageFolder(root, preprocessing, progress=progress)
        return OpenedData(labelled, labelled.classes)
    dataset = ImageFolder(root, preprocessing, labelled=False, progress=progress)
    if folders:
        warnings.warn(
            f"the {len(folders)} class folder(s) of {root} do not belong to the model's {outputs} "
            "output(s), so labels are not used: the model's own predictions decide what is a "
            "positive",
            XNNWarning,
            stacklevel=2,
        )
    return OpenedData(dataset, names)


def find_target(text: str, outputs: int, class_names: Sequence[str] | None) -> int:
    """Index of a class given as an index or a name.

    Raises:
        DataError: out of range, or no such name; the message lists the nearest.
    """
    names = list(class_names or ())
    if outputs == 1 and len(names) == 2 and text in names:
        if text == names[1]:
            return 0
        raise DataError(f"the model's single logit speaks for {names[1]!r}, not for {text!r}")
    if text in names:
        return names.index(text)
    if text.lstrip("-").isdigit():
        index = int(text)
        check_targets([index], outputs)
        return index
    if not names:
        raise DataError(f"target {text!r}: the class names are not known, give an index from 0")
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.3) or names[:3]
    raise DataError(f"no class {text!r}; nearest: {', '.join(repr(name) for name in close)}")
