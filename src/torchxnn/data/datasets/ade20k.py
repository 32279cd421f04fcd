"""ADE20K: scenes with object masks, as the full release or as the data of the 2016 challenge.

Zhou, Zhao, Puig, Xiao, Fidler, Barriuso and Torralba, Semantic Understanding of Scenes through the
ADE20K Dataset, International Journal of Computer Vision 127, 2019.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from torchxnn.data.datasets.base import Sample
from torchxnn.data.datasets.official import SelectableDataset
from torchxnn.data.datasets.reading import (
    broken_line,
    is_inside,
    read_class_map,
    read_colour_map,
    read_pairs,
    read_text,
    sample_with_mask,
)
from torchxnn.errors import DataError

_FOLDERS = {"train": "training", "test": "validation"}
_ENCODING = "latin-1"  # of the few texts that are not UTF-8
_VOTES = 3  # pictures that must agree on a name before pictures are skipped for it
_ATTRIBUTES = 'INSTANCE # LEVEL # OCCLUDED # CLASS # NAME # "ATTRIBUTES"'
_STARTS = {"ADE_train_": "train", "ADE_val_": "test"}


@dataclass(frozen=True)
class _Picture:
    """One picture of ADE20K: paths relative to the root, and its scene.

    Attributes:
        path: the photograph.
        mask: its class numbers.
        scene: the scene category.
        notes: the text that names its objects; empty in the challenge data.
    """

    path: str
    mask: str
    scene: str
    notes: str = ""


@final
class ADE20K(SelectableDataset):
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
    known class. Only the object masks are read, not those of their components.

    In `NAME_seg.png` of a full release, R // 10 * 256 + G is the number of the object class and B
    tells instances apart. The index files (`index_ade20k.mat`, `index_ade20k.pkl`) are not read: a
    pickle can run any code.

    The arguments are those of `SelectableDataset`; the split "test" is the validation part, and the
    classes are scene categories.

    Attributes:
        release: "challenge", "2016" or "2021".

    Raises:
        DataError: if a file is missing, a line is broken, or none of the scenes is there; the
            message names file and line.
    """

    marks = (
        frozenset({"sceneCategories.txt"}),
        frozenset({"objectInfo150.txt"}),
        frozenset({"index_ade20k.mat"}),
        frozenset({"index_ade20k.pkl"}),
    )

    def _read(self, classes: Sequence[str] | None) -> None:
        self.release = _find_release(self.root)
        self._names: tuple[str, ...] | None = None
        if self.release == "challenge":
            self._names = _read_object_info(self.root / "objectInfo150.txt")
        everything = _list(self.root, self.release, self.halves)
        found = self._keep(((each, each.scene, half) for half, each in everything), classes)
        self._pictures = tuple(picture for picture, _ in found)
        self._settle(
            ((picture.path, label) for picture, label in found),
            masks=(picture.mask for picture in self._pictures),
            texts_that_name_the_objects=(each.notes for each in self._pictures if each.notes),
        )

    @property
    def object_names(self) -> tuple[str, ...]:
        """Names by class number in `Sample.masks`, with "class N" where no name is known.

        A full release is searched when they are first asked for: the texts of all pictures of this
        data set, and some of their masks in that of 2016 (a minute for thousands of pictures).

        Raises:
            DataError: if such a file is broken; the message names it.
        """
        if self._names is None:
            search = _names_from_json if self.release == "2021" else _names_from_attributes
            self._names = search(self.root, self._pictures)
        return self._names

    def load(self, index: int) -> Sample:
        """Read the picture at an index, with its object masks."""
        path = self.root / self._pictures[index].mask
        return sample_with_mask(self, index, self._read_mask(path), path)

    def _read_mask(self, path: Path) -> Integer[np.ndarray, "height width"]:
        if self.release != "challenge":
            return class_numbers(read_colour_map(path))
        return read_class_map(path, len(self.object_names), "objectInfo150.txt")


def _find_release(root: Path) -> str:
    if (root / "sceneCategories.txt").is_file() or (root / "objectInfo150.txt").is_file():
        return "challenge"
    if (root / "images" / "ADE").is_dir():
        return "2021"
    if any((root / "images" / folder).is_dir() for folder in _FOLDERS.values()):
        return "2016"
    raise DataError(
        f"{root} is not ADE20K: there is neither sceneCategories.txt (ADEChallengeData2016) nor "
        "images/training (full release of 2016) nor images/ADE/training (full release of 2021)"
    )


def _list(root: Path, release: str, halves: Sequence[str]) -> list[tuple[str, _Picture]]:
    """Every picture with its half of the split, so that classes do not depend on the split."""
    if release == "challenge":
        return list(_read_scenes(root / "sceneCategories.txt"))
    images, suffix = ("images/ADE", ".json") if release == "2021" else ("images", "_atr.txt")
    there = [
        half
        for half, folder in _FOLDERS.items()
        if half in halves or (root / images / folder).is_dir()
    ]
    return [
        (half, picture) for half in there for picture in _list_pictures(root, images, half, suffix)
    ]


def _read_scenes(path: Path) -> Iterable[tuple[str, _Picture]]:
    seen = set()
    for line, name, scene in read_pairs(path, "a picture and its scene"):
        half = next((half for start, half in _STARTS.items() if name.startswith(start)), None)
        if half is None or not is_inside(name) or "/" in name:
            raise broken_line(path, line, "ADE_train_NUMBER or ADE_val_NUMBER and a scene", name)
        if name in seen:
            raise DataError(f"{path}, line {line}: {name} is there twice")
        seen.add(name)
        place = f"{_FOLDERS[half]}/{name}"
        yield half, _Picture(f"images/{place}.jpg", f"annotations/{place}.png", scene)


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


# --- the full releases


def _list_pictures(root: Path, images: str, half: str, suffix: str) -> list[_Picture]:
    """Every picture of one half of a full release, sorted by path."""
    top = root / images / _FOLDERS[half]
    if not top.is_dir():
        raise DataError(f"{root} has no folder {images}/{_FOLDERS[half]}")
    found = []
    for folder, below, files in os.walk(top):
        # The release of 2021 has a folder of instance masks for every picture.
        below[:] = [name for name in below if not name.startswith((".", "ADE_"))]
        names = [name for name in files if name.endswith(".jpg") and name[0] != "."]
        scene = "/".join(Path(folder).relative_to(top).parts[1:])
        if names and not scene:
            raise DataError(
                f"{Path(folder) / min(names)} is not in a scene folder (expected "
                f"{images}/{_FOLDERS[half]}/GROUP/SCENE/NAME.jpg)"
            )
        stems = (f"{Path(folder).relative_to(root).as_posix()}/{name[:-4]}" for name in names)
        found += [_Picture(f"{s}.jpg", f"{s}_seg.png", scene, f"{s}{suffix}") for s in stems]
    return sorted(found, key=lambda picture: picture.path)


def class_numbers(
    colours: UInt8[np.ndarray, "height width 3"],
) -> Int32[np.ndarray, "height width"]:
    """The number of the object class of every pixel, R // 10 * 256 + G; 0 is none."""
    wide = colours.astype(np.int32)
    return wide[..., 0] // 10 * 256 + wide[..., 1]


def _names_from_json(root: Path, pictures: Sequence[_Picture]) -> tuple[str, ...]:
    """Names by class number from the texts of the 2021 release, which give both.

    Raises:
        DataError: if a text is missing or broken; the message names the file and the object.
    """
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    for picture in pictures:
        for number, name in _read_json(root / picture.notes):
            votes[number][name] += 1
    return _elect(votes)


def _read_json(path: Path) -> list[tuple[int, str]]:
    try:
        objects: Any = json.loads(read_text(path, _ENCODING))["annotation"]["object"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        reason = (
            f"line {error.lineno}: {error.msg}" if isinstance(error, ValueError) else "no objects"
        )
        raise DataError(
            f"{path} does not have annotation, object as in ADE20K: {reason}"
        ) from error
    if isinstance(objects, dict):  # a list of one, as MATLAB writes it
        objects = [objects]
    found = []
    for position, item in enumerate(objects if isinstance(objects, list) else [objects]):
        number = item.get("name_ndx") if isinstance(item, dict) else None
        if not isinstance(number, int) or not isinstance(item.get("name"), str):
            raise DataError(f"{path}: object {position} has no number name_ndx or no name")
        if number > 0:
            found.append((number, item["name"].strip()))
    return found


def _names_from_attributes(root: Path, pictures: Sequence[_Picture]) -> tuple[str, ...]:
    """Names by class number from the texts and masks of the releases of 2016 and 2017.

    A text names the instances of a picture, its mask has the class number of each; instances are
    matched by their order (the official reader does so), in pictures in which the text names as
    many objects as the mask shows, and the majority decides. Pictures all of whose names are known
    from three others are skipped, so that few masks are decoded.

    Raises:
        DataError: if a text or a mask is missing or broken.
    """
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    seen: Counter[str] = Counter()
    for picture in pictures:
        named = read_attributes(root / picture.notes)
        if all(seen[name] >= _VOTES for name in named.values()):
            continue
        for number, name in match_instances(read_colour_map(root / picture.mask), named).items():
            votes[number][name] += 1
            seen[name] += 1
    return _elect(votes)


def read_attributes(path: Path) -> dict[int, str]:
    """Class names of the objects (not of their components) by instance number, from `NAME_atr.txt`.

    Raises:
        DataError: if it is missing or a line is broken; the message names the line.
    """
    named: dict[int, str] = {}
    for number, line in enumerate(read_text(path, _ENCODING).splitlines(), start=1):
        if not line.strip():
            continue
        words = [word.strip() for word in line.split("#", 5)]
        if len(words) != 6 or not (words[0].isdecimal() and words[1].isdecimal() and words[3]):
            raise broken_line(path, number, _ATTRIBUTES, line)
        if words[1] == "0":
            if int(words[0]) in named:
                raise DataError(f"{path}, line {number}: object {words[0]} is there twice")
            named[int(words[0])] = words[3]
    return named


def match_instances(
    colours: UInt8[np.ndarray, "height width 3"], named: dict[int, str]
) -> dict[int, str]:
    """Names by class number in one picture; empty where text and mask cannot be matched surely."""
    numbers, instances = class_numbers(colours), colours[..., 2]
    values = [value for value in np.unique(instances) if value]
    if sorted(named) != list(range(1, len(values) + 1)):
        return {}
    found: dict[int, str] = {}
    for rank, value in enumerate(values, start=1):
        codes = np.unique(numbers[instances == value])
        if len(codes) != 1 or found.setdefault(int(codes[0]), named[rank]) != named[rank]:
            return {}
    return {} if len(set(found.values())) < len(found) else found


def _elect(votes: dict[int, Counter[str]]) -> tuple[str, ...]:
    names = ["other"] + [f"class {number}" for number in range(1, max(votes, default=0) + 1)]
    for number, counts in votes.items():
        if number:
            names[number] = counts.most_common(1)[0][0]
    return tuple(names)
