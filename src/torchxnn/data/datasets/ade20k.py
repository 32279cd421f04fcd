"""ADE20K: scenes with object masks, as the full release or as the data of the 2016 challenge.

Zhou, Zhao, Puig, Xiao, Fidler, Barriuso and Torralba, Semantic Understanding of Scenes through the
ADE20K Dataset, International Journal of Computer Vision 127, 2019.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Integer

from torchxnn.data.datasets.ade20k_full import (
    FOLDERS,
    Picture,
    class_numbers,
    list_pictures,
    names_from_attributes,
    names_from_json,
)
from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.data.datasets.reading import (
    broken_line,
    check_files,
    find_absent,
    is_inside,
    parts_of_split,
    preprocess_with_mask,
    read_class_map,
    read_colour_map,
    read_pairs,
    read_text,
    select,
)
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing

_PARTS = {"ADE_train_": "train", "ADE_val_": "test"}


@final
class ADE20K(ImageDataset):
    """Scenes with the object class of every pixel; the layout is recognised.

    - "challenge", ADEChallengeData2016: `images/{training,validation}/NAME.jpg`,
      `annotations/{training,validation}/NAME.png` (1 to 150 as in `objectInfo150.txt`, 0 for other
      objects) and `sceneCategories.txt` (lines `NAME SCENE`).
    - "2016", the full release of 2016 or 2017: `images/{training,validation}/LETTER/SCENE/NAME.jpg`
      with `NAME_seg.png` and `NAME_atr.txt`.
    - "2021", the full release of 2021: `images/ADE/{training,validation}/GROUP/SCENE/NAME.jpg` with
      `NAME_seg.png` and `NAME.json`.

    In the full releases the scene is the folder below the group ("church/outdoor" or
    "casino__outdoor"), and pixels have the official class numbers, 1 to 3,688 in 2021.
    `Sample.masks` is moved into the preprocessed picture by nearest neighbour; 0 is no object of a
    known class. Only the object masks are read, not those of their parts.

    Args:
        root: the folder with these files.
        preprocessing: how pictures become tensors.
        split: "train" (training), "test" (validation) or "all".
        scenes: the scene categories to keep, in the order of the label indices, such as the classes
            of the explained network ("living room" matches living_room). One that has no picture
            here keeps its index, with a warning; by default all categories, sorted by name.

    Attributes:
        release: "challenge", "2016" or "2021".
        absent: the scene categories in `classes` without a picture in this split.

    Raises:
        DataError: if a file is missing, a line is broken, or none of the scenes is there; the
            message names file and line.
    """

    root: Path
    labels: tuple[int, ...]

    def __init__(
        self,
        root: str | Path,
        preprocessing: Preprocessing,
        split: str = "all",
        scenes: Sequence[str] | None = None,
    ):
        parts = parts_of_split(split)
        self.root = Path(root)
        self.release = _find_release(self.root)
        self.name = f"{self.root.name or self.root} ({split})"
        self.preprocessing = preprocessing
        self.split = split
        self._names: tuple[str, ...] | None = None
        if self.release == "challenge":
            self._names = _read_object_info(self.root / "objectInfo150.txt")
        everything = _list(self.root, self.release, parts)
        selection = select((picture.scene for _, picture in everything), scenes, str(self.root))
        self.classes = selection.classes
        self._pictures = tuple(
            picture
            for part, picture in everything
            if part in parts and picture.scene in selection.labels
        )
        self.labels = tuple(selection.labels[picture.scene] for picture in self._pictures)
        self.paths = tuple(picture.path for picture in self._pictures)
        check_files(self.root, self.paths)
        check_files(self.root, [picture.mask for picture in self._pictures], "masks")
        notes = [picture.notes for picture in self._pictures if picture.notes]
        check_files(self.root, notes, "texts that name the objects")
        self.absent = find_absent(self.classes, self.labels, self.name, scenes is not None)

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names by class number in `Sample.masks`, with "class N" where no name is known.

        A full release is searched when they are first asked for: the texts of all pictures of this
        data set, and some of their masks in that of 2016 (a minute for thousands of pictures).

        Raises:
            DataError: if such a file is broken; the message names it.
        """
        if self._names is None:
            search = names_from_json if self.release == "2021" else names_from_attributes
            self._names = search(self.root, self._pictures)
        return self._names

    def load(self, index: int) -> Sample:
        """Read the picture at an index, with its object masks."""
        picture = self._pictures[index]
        path = self.root / picture.mask
        image, masks = preprocess_with_mask(
            self.preprocessing, self.root / picture.path, self._read_mask(path), path
        )
        return Sample(image, self.labels[index], picture.path, masks=masks)

    def _read_mask(self, path: Path) -> Integer[np.ndarray, "height width"]:
        if self.release != "challenge":
            return class_numbers(read_colour_map(path))
        mask = read_class_map(path)
        if mask.max() >= len(self.object_names):
            raise DataError(
                f"{path} has class number {mask.max()}, objectInfo150.txt ends at "
                f"{len(self.object_names) - 1}"
            )
        return mask


def _find_release(root: Path) -> str:
    if (root / "sceneCategories.txt").is_file() or (root / "objectInfo150.txt").is_file():
        return "challenge"
    if (root / "images" / "ADE").is_dir():
        return "2021"
    if any((root / "images" / folder).is_dir() for folder in FOLDERS.values()):
        return "2016"
    raise DataError(
        f"{root} is not ADE20K: there is neither sceneCategories.txt (ADEChallengeData2016) nor "
        "images/training (full release of 2016) nor images/ADE/training (full release of 2021)"
    )


def _list(root: Path, release: str, parts: Sequence[str]) -> list[tuple[str, Picture]]:
    """Every picture with its part of the split, so that classes do not depend on the split."""
    if release == "challenge":
        return list(_read_scenes(root / "sceneCategories.txt"))
    images, suffix = ("images/ADE", ".json") if release == "2021" else ("images", "_atr.txt")
    there = [
        part
        for part, folder in FOLDERS.items()
        if part in parts or (root / images / folder).is_dir()
    ]
    return [
        (part, picture)
        for part in there
        for picture in list_pictures(root, images, (part,), suffix)
    ]


def _read_scenes(path: Path) -> Iterable[tuple[str, Picture]]:
    seen = set()
    for line, name, scene in read_pairs(path, "a picture and its scene"):
        part = next((part for start, part in _PARTS.items() if name.startswith(start)), None)
        if part is None or not is_inside(name) or "/" in name:
            raise broken_line(path, line, "ADE_train_NUMBER or ADE_val_NUMBER and a scene", name)
        if name in seen:
            raise DataError(f"{path}, line {line}: {name} is there twice")
        seen.add(name)
        place = f"{FOLDERS[part]}/{name}"
        yield part, Picture(f"images/{place}.jpg", f"annotations/{place}.png", scene)


def _read_object_info(path: Path) -> tuple[str, ...]:
    """Names by class number; the columns are separated by tabs and have a header."""
    lines = read_text(path).splitlines()
    header = [word.strip() for word in lines[0].split("\t")] if lines else []
    if "Idx" not in header or "Name" not in header:
        raise DataError(f"{path}, line 1: expected a header with Idx and Name, separated by tabs")
    index, name = header.index("Idx"), header.index("Name")
    names = ["other"]
    for number, line in enumerate(lines[1:], start=2):
        words = [word.strip() for word in line.split("\t")]
        if words == [""]:
            continue
        if len(words) != len(header) or words[index] != str(len(names)) or not words[name]:
            raise broken_line(path, number, f"class number {len(names)} with its name", line)
        names.append(words[name])
    if len(names) == 1:
        raise DataError(f"{path} has no classes")
    return tuple(names)
