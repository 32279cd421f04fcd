"""Caltech-UCSD Birds-200-2011 in its official layout: classes, split, boxes and parts.

Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, technical report CNS-TR-2011-001, 2011.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from torchxnn.data.datasets.base import Sample
from torchxnn.data.datasets.images import read_image
from torchxnn.data.datasets.official import OfficialDataset
from torchxnn.data.datasets.reading import is_inside, read_text
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing


@final
class CUB(OfficialDataset):
    """The birds with their 15 parts, or any data set in the same layout.

    Reads `images.txt`, `image_class_labels.txt`, `train_test_split.txt`, `classes.txt`,
    `bounding_boxes.txt`, `parts/parts.txt`, `parts/part_locs.txt` and `images/`. Classes are in the
    order of their numbers in `classes.txt`, counted from 0 (number 48 is class 47).
    Parts and boxes are moved into the preprocessed picture.

    Args:
        root: the folder with these files, or the one above (`CUB_200_2011` is then looked for); see
            `OfficialDataset` for `preprocessing` and `split`.

    Attributes:
        ids: the official number of every picture.
        part_names: in the order of the rows of `Sample.parts`.

    Raises:
        DataError: if a file is missing or a line is broken; the message names file and line.
    """

    marks = (frozenset({"images.txt"}), frozenset({"CUB_200_2011"}))

    def __init__(self, root: str | Path, preprocessing: Preprocessing, split: str = "all"):
        super().__init__(_find_root(Path(root)), preprocessing, split)
        files = _by_id(self.root / "images.txt", (_relative_path,))
        classes = _by_id(self.root / "classes.txt", (str,))
        labels = _by_id(self.root / "image_class_labels.txt", (int,), known=files)
        training = _by_id(self.root / "train_test_split.txt", (_flag,), known=files)
        boxes = _by_id(self.root / "bounding_boxes.txt", (_number,) * 4, known=files)
        numbers = {number: index for index, number in enumerate(sorted(classes))}
        self.classes = tuple(classes[number][0] for number in sorted(classes))
        for image, (number,) in labels.items():
            if number not in numbers:
                raise DataError(
                    f"{self.root / 'image_class_labels.txt'}: image {image} has class {number}, "
                    "which classes.txt does not list"
                )
        self.ids = tuple(
            image for image in files if ("train" if training[image][0] else "test") in self.halves
        )
        self._settle((f"images/{files[image][0]}", numbers[labels[image][0]]) for image in self.ids)
        self._boxes = torch.tensor([boxes[image] for image in self.ids]).reshape(-1, 4)
        self.part_names, self._parts = _read_parts(self.root / "parts", self.ids, files)

    def load(self, index: int) -> Sample:
        """Read the picture at an index, with its parts and box."""
        picture = read_image(self.root / self.paths[index])
        frame = self.preprocessing.frame(picture.width, picture.height)
        return Sample(
            image=self.preprocessing(picture),
            label=self.labels[index],
            path=self.paths[index],
            parts=frame.parts(self._parts[index]),
            box=frame.box(self._boxes[index]),
        )


def _find_root(root: Path) -> Path:
    for folder in (root, root / "CUB_200_2011"):
        if (folder / "images.txt").is_file():
            return folder
    raise DataError(
        f"{root} is not CUB-200-2011: there is no images.txt (expected images.txt, classes.txt, "
        "image_class_labels.txt, train_test_split.txt, bounding_boxes.txt, parts/ and images/)"
    )


def _read_parts(
    folder: Path, images: Sequence[int], known: dict[int, Any]
) -> tuple[tuple[str, ...], Tensor]:
    names = _by_id(folder / "parts.txt", (str,))
    rows = {number: row for row, number in enumerate(sorted(names))}
    positions = {image: position for position, image in enumerate(images)}
    parts = torch.zeros(len(images), len(rows), 3)
    seen = torch.zeros(len(images), len(rows), dtype=torch.bool)
    path = folder / "part_locs.txt"
    for line, (image, part, x, y, visible) in _lines(path, (int, int, _number, _number, _flag)):
        if part not in rows or image not in known:
            raise DataError(f"{path}, line {line}: there is no image {image} or no part {part}")
        if image in positions:
            seen[positions[image], rows[part]] = True
            if visible:
                parts[positions[image], rows[part]] = torch.tensor([x, y, 1.0])
    if not seen.all():
        position, row = (~seen).nonzero()[0].tolist()
        raise DataError(
            f"{path}: image {images[position]} has no line for part {sorted(rows)[row]}"
        )
    return tuple(names[number][0] for number in sorted(names)), parts


def _by_id(
    path: Path, kinds: Sequence[Callable[[str], Any]], known: dict[int, Any] | None = None
) -> dict[int, tuple[Any, ...]]:
    """Lines `ID VALUE ...`; with `known`, exactly these identities must be there."""
    table: dict[int, tuple[Any, ...]] = {}
    for line, (identity, *values) in _lines(path, (int, *kinds)):
        if identity in table:
            raise DataError(f"{path}, line {line}: number {identity} is there twice")
        if known is not None and identity not in known:
            raise DataError(f"{path}, line {line}: images.txt does not list image {identity}")
        table[identity] = tuple(values)
    for identity in known or ():
        if identity not in table:
            raise DataError(f"{path}: there is no line for image {identity}")
    if not table:
        raise DataError(f"{path} is empty")
    return table


def _lines(path: Path, kinds: Sequence[Callable[[str], Any]]) -> list[tuple[int, list[Any]]]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        # Part names have blanks in them, so the last value takes the rest of the line.
        words = line.split(maxsplit=len(kinds) - 1)
        try:
            values = [kind(word.strip()) for kind, word in zip(kinds, words, strict=True)]
        except ValueError as error:
            raise DataError(
                f"{path}, line {number}: expected {len(kinds)} values, got {line[:80]!r}"
            ) from error
        rows.append((number, values))
    return rows


def _number(word: str) -> float:
    if not math.isfinite(value := float(word)):
        raise ValueError(word)
    return value


def _flag(word: str) -> bool:
    if word not in ("0", "1"):
        raise ValueError(word)
    return word == "1"


def _relative_path(word: str) -> str:
    if not is_inside(word):
        raise ValueError(word)
    return word
