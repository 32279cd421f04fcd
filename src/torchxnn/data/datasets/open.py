"""Open a folder of whatever layout, and settle what its labels mean for the model."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.progress import Progress

from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.ade20k import ADE20K
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.datasets.class_order import (
    by_value,
    composed,
    order_of_folders,
    read_class_map,
    unknown_folder,
)
from torchxnn.data.datasets.cub import CUB
from torchxnn.data.datasets.file_tree import Found, entries
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.datasets.funnybirds import FunnyBirds
from torchxnn.data.datasets.mnist import MNIST
from torchxnn.data.datasets.nyu import NYUDepth
from torchxnn.data.datasets.official import OfficialDataset, SelectableDataset
from torchxnn.data.datasets.places365 import Places365
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.outputs import check_targets, count_classes
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.paths import Location, Place, as_place

DATASETS: dict[str, type[OfficialDataset]] = {
    "cub": CUB,
    "nyu": NYUDepth,
    "places": Places365,
    "ade20k": ADE20K,
    "mnist": MNIST,
    "funnybirds": FunnyBirds,
}
"""The official layouts by the names that users pass; a new one is one file and one line here."""


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
    root: Location,
    preprocessing: Preprocessing,
    config: DataConfig,
    outputs: int,
    class_names: Sequence[str] | None,
    default_split: Literal["train", "test"],
    progress: Progress | None = None,
    labelled: bool = True,
) -> OpenedData:
    """Open a folder of images for a model.

    Class folders are labels if their names are among the model's class names, or, if those are not
    known, if there are as many folders as outputs: by value where they are numbers, else sorted
    as text (as torchvision does). A class map says otherwise. Folders that do not fit are used
    without labels, with a warning: the model's own predictions decide what is a positive.

    Args:
        root: the folder, or an fsspec URL of one with class folders.
        preprocessing: how images become tensors.
        config: layout, class map, split and so on.
        outputs: number of the model's outputs.
        class_names: their names, if known.
        default_split: of data sets with an official split.
        progress: shows the check of the files.
        labelled: False takes every image below the folder, without a label, as networks whose
            output is a value need it.

    Raises:
        DataError: no such folder, no images, nothing readable, a class map that does not fit, or
            the parts of a split where class folders should be.
    """
    names = None if class_names is None else tuple(class_names)
    folder = as_place(root)
    if not labelled:
        images = ImageFolder(folder, preprocessing, labelled=False, progress=progress)
        return OpenedData(images, names)
    found = entries(folder) if folder.is_dir() else []
    layout = config.layout if config.layout != "auto" else _recognise({p.name for p in found})
    if layout in DATASETS:
        if config.class_map is not None:
            raise DataError(
                f"{root} is in the layout of {layout}, which has no use for a class map"
            )
        return _open_official(
            layout, folder, preprocessing, config.split or default_split, outputs, names
        )
    return _open_folder(folder, found, preprocessing, config, outputs, names, progress)


def _open_folder(
    folder: Place,
    found: Sequence[Found],
    preprocessing: Preprocessing,
    config: DataConfig,
    outputs: int,
    names: tuple[str, ...] | None,
    progress: Progress | None,
) -> OpenedData:
    folders, classes = [each.name for each in found if each.is_folder], count_classes(outputs)
    mapped = config.class_map is not None
    if config.class_map is not None:
        names = read_class_map(config.class_map, classes)
    order = order_of_folders(folders, names, classes, mapped) if folders else None
    if order is None or names is None:
        _refuse_splits(folder, folders)
    if order is None and mapped and folders:
        name, near = unknown_folder(folders, names or ())
        raise DataError(f"{folder / name} is none of the classes of {config.class_map}{near}")
    if order is not None:
        if names is None:
            _say_which_order(folder, order.classes)
        labelled = ImageFolder(folder, preprocessing, order=order, progress=progress)
        return OpenedData(labelled, labelled.classes)
    dataset = ImageFolder(folder, preprocessing, labelled=False, progress=progress)
    if folders:
        warnings.warn(
            f"the {len(folders)} class folder(s) of {folder} do not belong to the model's "
            f"{outputs} output(s), so labels are not used: the model's own predictions decide what "
            "is a positive; a class map says which folder is which output (--class-map FILE)",
            XNNWarning,
            stacklevel=3,
        )
    return OpenedData(dataset, names)


_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing", "dev"}


def _refuse_splits(folder: Place, folders: Sequence[str]) -> None:
    """The parts of a split are no classes, and would be explained as if they were."""
    if folders and {name.casefold() for name in folders} <= _SPLITS:
        inside = [entries(folder / name) for name in folders]
        if all(any(each.is_folder for each in part) for part in inside):
            raise DataError(
                f"{folder} holds {', '.join(sorted(folders))}, which are parts of a split and no "
                f"classes; give one of them: {folder / folders[0]}"
            )


def _say_which_order(folder: Place, classes: Sequence[str]) -> None:
    """Numbers sort in two ways, and a network may have been trained with the other one."""
    if list(classes) != sorted(classes):
        warnings.warn(
            f"the class folders of {folder} are numbers and taken in their order, 2 before 10; if "
            "the network was trained with labels sorted as text (torchvision's ImageFolder), its "
            "outputs are in another order: give a class map (--class-map FILE)",
            XNNWarning,
            stacklevel=4,
        )
    elif list(classes) != by_value(classes):
        warnings.warn(
            f"the class folders of {folder} end in numbers and are sorted as text ({classes[0]}, "
            f"{classes[1]}, {classes[2]}, ...), as torchvision's ImageFolder does; if the "
            "network was trained with labels in the order of the numbers, its outputs are in "
            "another order: give a class map (--class-map FILE)",
            XNNWarning,
            stacklevel=4,
        )


def _recognise(entries: set[str]) -> str:
    """The layout that the names in a folder give away; class folders if they tell nothing."""
    for layout, loader in DATASETS.items():
        if any(marks <= entries for marks in loader.marks):
            return layout
    return "folder"


def _open_official(
    layout: str,
    folder: Place,
    preprocessing: Preprocessing,
    split: str,
    outputs: int,
    names: tuple[str, ...] | None,
) -> OpenedData:
    if not isinstance(folder, Path):
        raise DataError(f"{folder} is in the layout of {layout}, which is read from local folders")
    if preprocessing.depth is not None:
        raise DataError(
            f"{folder} is in the layout of {layout}, which has images, and the network takes "
            "volumes: give a folder of volumes, or --layout folder if it is one"
        )
    loader = DATASETS[layout]
    if issubclass(loader, SelectableDataset):
        dataset: OfficialDataset = loader(folder, preprocessing, split, names)
    else:
        dataset = loader(folder, preprocessing, split, **loader.options)
    if len(dataset.classes) != count_classes(outputs):
        raise DataError(
            f"{folder} has {len(dataset.classes)} classes, the model {outputs} outputs; "
            "use a model that was trained on these classes"
        )
    return OpenedData(dataset, dataset.classes)


def find_target(text: str, outputs: int, class_names: Sequence[str] | None) -> int:
    """Index of a class given as an index or a name.

    Raises:
        DataError: out of range, or no such name; the message lists the nearest.
    """
    names, text = [composed(name) for name in class_names or ()], composed(text)
    if outputs == 1 and len(names) == 2 and text in names:
        if text == names[1]:
            return 0
        raise DataError(f"the model's single logit speaks for {names[1]!r}, not for {text!r}")
    if text in names:
        return names.index(text)
    if re.fullmatch("-?[0-9]+", text):
        index = int(text)
        check_targets([index], outputs)
        return index
    if not names:
        raise DataError(f"target {text!r}: the class names are not known, give an index from 0")
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.3) or names[:3]
    raise DataError(f"no class {text!r}; nearest: {', '.join(repr(name) for name in close)}")
