"""Places365: photographs of 365 scene categories, or some of them.

Zhou, Lapedriza, Khosla, Oliva and Torralba, Places: A 10 Million Image Database for Scene
Recognition, IEEE Transactions on Pattern Analysis and Machine Intelligence 40(6), 2018.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import final

from torchxnn.data.datasets.base import Sample
from torchxnn.data.datasets.images import read_image
from torchxnn.data.datasets.official import SelectableDataset, select
from torchxnn.data.datasets.reading import broken_line, is_inside, read_pairs, read_table
from torchxnn.errors import DataError

PLACES_ROOMS = (
    "bathroom",
    "bedroom",
    "conference_room",
    "dining_room",
    "home_office",
    "hotel_room",
    "kitchen",
    "living_room",
    "office",
    "waiting_room",
)
"""The ten room categories of the paper, section 4.2, under their official Places365 names."""

_LISTS = {"train": "places365_train_standard.txt", "test": "places365_val.txt"}
_FOLDERS = {
    "train": ("data_256", "data_256_standard", "data_large", "data_large_standard"),
    "test": ("val_256", "val_large"),
}
_SPLIT_NAMES = {"train": "train", "eval": "test", "val": "test", "test": "test"}


@final
class Places365(SelectableDataset):
    """Photographs of places: the official Places365-Standard layout, or a folder of rooms.

    The official layout has `categories_places365.txt` (lines `/k/kitchen 203`),
    `places365_train_standard.txt` (lines `/k/kitchen/00000001.jpg 203`, below `data_256`,
    `data_large`, or these names with `_standard`) and `places365_val.txt` (lines
    `Places365_val_00000001.jpg 165`, in `val_256` or `val_large`). Its test images have no labels,
    so the test split is its validation part. The folder of rooms has `labels.csv` (columns file,
    class, split; "eval" and "val" are the test split) and `images/FILE`.

    The arguments are those of `SelectableDataset`; the classes are categories, such as
    `PLACES_ROOMS`, of which each must exist. "living room", "living_room" and "/l/living_room" are
    the same. In the official layout all of them are in the official order.

    Attributes:
        layout: "standard" or "rooms".

    Raises:
        DataError: if a file is missing, a line is broken, or a category does not exist; the
            message names file and line.
    """

    marks = (frozenset({"categories_places365.txt"}),)

    def _read(self, classes: Sequence[str] | None) -> None:
        self.layout = _find_layout(self.root)
        if self.layout == "standard":
            self.classes, pictures = _read_standard(self.root, self.halves, classes)
        else:
            pictures = self._keep(_read_rooms(self.root / "labels.csv"), classes, required=True)
        self._settle(pictures)

    def load(self, index: int) -> Sample:
        """Read and preprocess the picture at an index from 0 to len - 1."""
        image = self.preprocessing(read_image(self.root / self.paths[index]))
        return Sample(image, self.labels[index], self.paths[index])


def _find_layout(root: Path) -> str:
    if (root / "categories_places365.txt").is_file():
        return "standard"
    if (root / "labels.csv").is_file():
        return "rooms"
    raise DataError(
        f"{root} is not Places365: there is neither categories_places365.txt (with "
        f"{', '.join(_LISTS.values())} and the folders data_256 and val_256) nor labels.csv (with "
        "images/)"
    )


def _read_standard(
    root: Path, halves: Iterable[str], wanted: Sequence[str] | None
) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    categories = _read_categories(root / "categories_places365.txt")
    classes, numbers = select(categories, wanted, root, required=True)
    if wanted is None:  # the official order, which is almost but not quite that of the names
        classes = tuple(categories)
        numbers = {name: index for index, name in enumerate(categories)}
    labels = [numbers.get(name) for name in categories]
    pictures = []
    for half in halves:
        folder = _find_folder(root, half)
        path = root / _LISTS[half]
        for line, file, word in read_pairs(path, "a file and a category number"):
            label = labels[int(word)] if word.isdecimal() and int(word) < len(labels) else -1
            if label is None:  # of a category left out: most of 1.8 million lines
                continue
            if label < 0 or not is_inside(file.lstrip("/")):
                raise broken_line(path, line, "a file and a category number", f"{file} {word}")
            pictures.append((f"{folder}/{file.lstrip('/')}", label))
    return classes, pictures


def _read_categories(path: Path) -> list[str]:
    """Names without the letter folder; the index is the official number."""
    names: list[str] = []
    for line, name, number in read_pairs(path, "a category and its number"):
        letter = name[:3]
        if number != str(len(names)) or len(name) < 4 or letter[::2] != "//":
            raise broken_line(
                path, line, f"a category such as /k/kitchen and number {len(names)}", name
            )
        names.append(name[3:])
    return names


def _find_folder(root: Path, half: str) -> str:
    for folder in _FOLDERS[half]:
        if (root / folder).is_dir():
            return folder
    raise DataError(f"{root} has no folder {' or '.join(_FOLDERS[half])} for its {half} images")


def _read_rooms(path: Path) -> list[tuple[str, str, str]]:
    """File below the root, class and half of the split of every picture."""
    rows: dict[str, tuple[str, str, str]] = {}
    for line, row in read_table(path, ("file", "class", "split")):
        file, name, half = row["file"], row["class"], _SPLIT_NAMES.get(row["split"])
        if not is_inside(file) or not name:
            raise broken_line(path, line, "a file below images/ and a class", f"{file},{name}")
        if half is None:
            raise broken_line(
                path, line, f"one of {', '.join(_SPLIT_NAMES)} as split", row["split"]
            )
        if file in rows:
            raise DataError(f"{path}, line {line}: {file} is there twice")
        rows[file] = f"images/{file}", name, half
    return list(rows.values())
