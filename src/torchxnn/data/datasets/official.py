"""Data sets in the layout and with the split of their authors: what the loaders have in common."""

import warnings
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from torchxnn.data.class_names import comparable
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.errors import DataError, XNNWarning, near_ones
from torchxnn.models.preprocessing import Preprocessing

Item = TypeVar("Item")
SPLITS = {"train": ("train",), "test": ("test",), "all": ("train", "test")}


class OfficialDataset(ImageDataset):
    """A labelled data set in a local folder, in the layout of its authors.

    The constructor of a loader takes (root, preprocessing, split); it begins with this one and ends
    with `_settle`.

    Args:
        root: the folder.
        preprocessing: how pictures become tensors.
        split: "train" or "test" of the official split, or "all".

    Attributes:
        marks: names in the root folder that tell this layout from any other: all of one set.
        options: what else the constructor is given for a network of colour images.
        split: as it was given.
        halves: what it stands for: "train", "test" or both.

    Raises:
        DataError: `split` is none of the three.
    """

    marks: ClassVar[tuple[frozenset[str], ...]]
    options: ClassVar[Mapping[str, Any]] = {}
    root: Path
    labels: tuple[int, ...]

    def __init__(self, root: str | Path, preprocessing: Preprocessing, split: str) -> None:
        if split not in SPLITS:
            raise DataError(f"split must be 'train', 'test' or 'all', got {split!r}")
        self.root = Path(root)
        self.name = f"{self.root.name or self.root} ({split})"
        self.preprocessing = preprocessing
        self.split, self.halves = split, SPLITS[split]

    @property
    def absent(self) -> tuple[str, ...]:
        """The names in `classes` without a picture in this split."""
        there = set(self.labels)
        return tuple(name for index, name in enumerate(self.classes) if index not in there)

    def _settle(self, found: Iterable[tuple[str, int]], **beside: Iterable[str]) -> None:
        """Take over path below the root and label index of every picture; see that all is there.

        `beside` are other files that must be there, by what they are.

        Raises:
            DataError: there is no picture at all, or files are missing.
        """
        pictures = list(found)
        self.paths = tuple(path for path, _ in pictures)
        self.labels = tuple(label for _, label in pictures)
        for kind, paths in {"images": self.paths, **beside}.items():
            _check_files(self.root, tuple(paths), kind.replace("_", " "))
        if not pictures:
            kept = ", ".join(self.classes[:5]) + (", ..." if len(self.classes) > 5 else "")
            raise DataError(f"{self.name} has no images of {kept}")


class SelectableDataset(OfficialDataset):
    """An official data set of which some classes can be taken; a loader implements `_read`.

    Args:
        root: as in `OfficialDataset`, like `preprocessing` and `split`.
        classes: the classes to keep, in the order of the label indices, such as those of the
            explained network ("living room" matches living_room). One that has no picture here
            keeps its index, with a warning; by default all classes, sorted by name.
    """

    def __init__(
        self,
        root: str | Path,
        preprocessing: Preprocessing,
        split: str = "all",
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__(root, preprocessing, split)
        self._read(classes)
        if self.absent and classes is not None:
            warnings.warn(
                f"{self.name} has no images of {', '.join(self.absent)}; the other classes keep "
                "their indices",
                XNNWarning,
                stacklevel=2,
            )

    @abstractmethod
    def _read(self, classes: Sequence[str] | None) -> None:
        """Read the layout below `root`, set `classes` and settle the pictures."""

    def _keep(
        self,
        found: Iterable[tuple[Item, str, str]],
        classes: Sequence[str] | None,
        required: bool = False,
    ) -> list[tuple[Item, int]]:
        """Set `classes`; what is kept of both halves (item, class, half), with label indices."""
        rows = list(found)
        names = (name for _, name, _ in rows)
        self.classes, labels = select(names, classes, self.root, required)
        return [
            (item, labels[name])
            for item, name, half in rows
            if half in self.halves and name in labels
        ]


def _check_files(root: Path, paths: Sequence[str], kind: str) -> None:
    """See that files are there; every folder is listed once, which is fast for very many files."""
    folders = defaultdict(list)
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders[folder].append(name)
    missing = []
    for folder, names in folders.items():
        try:
            there = {entry.name for entry in (root / folder).iterdir()}
        except OSError:
            there = set()
        missing += [f"{folder}/{name}" for name in names if name not in there]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} {kind} are missing in {root}; the first is "
            f"{missing[0]}"
        )


def select(
    found: Iterable[str], wanted: Sequence[str] | None, where: object, required: bool = False
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Keep some of the classes of a data set, in a given order; see `comparable` for equal names.

    Args:
        found: the names that the data set uses.
        wanted: the names to keep, in the order of the label indices; None keeps all, sorted.
        where: names the data set in messages.
        required: whether every wanted class must be there; otherwise one of them is enough.

    Returns:
        The classes in the order of the label indices, and the class index by the name that the data
        set uses, without the names that are left out.

    Raises:
        DataError: if `wanted` is empty, repeats a class, or names classes that are not there.
    """
    names = sorted(set(found))
    if wanted is None:
        return tuple(names), {name: index for index, name in enumerate(names)}
    if isinstance(wanted, str) or not wanted:
        raise DataError(f"give the classes of {where} as a list of names, got {wanted!r}")
    numbers: dict[str, int] = {}
    for index, name in enumerate(wanted):
        if numbers.setdefault(comparable(name), index) != index:
            raise DataError(f"the class {name!r} is given twice")
    keys = {name: comparable(name) for name in names}
    labels = {name: numbers[key] for name, key in keys.items() if key in numbers}
    absent = [name for index, name in enumerate(wanted) if index not in labels.values()]
    if absent and (required or not labels):
        near = near_ones(comparable(absent[0]), keys.values())
        raise DataError(f"{where} has no class {absent[0]!r}{near}")
    return tuple(wanted), labels
