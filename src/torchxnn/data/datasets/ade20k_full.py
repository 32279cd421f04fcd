"""The full ADE20K release on disk: where pictures, class numbers and names are.

The releases of 2016 and 2017 have `images/{training,validation}/LETTER/SCENE/NAME.jpg` with
`NAME_seg.png` and `NAME_atr.txt`; the release of 2021 has
`images/ADE/{training,validation}/GROUP/SCENE/NAME.jpg` with `NAME_seg.png` and `NAME.json`. In
`NAME_seg.png`, R // 10 * 256 + G is the number of the object class and B tells instances apart. The
index files (`index_ade20k.mat`, `index_ade20k.pkl`) are not read: a pickle can run any code.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from torchxnn.data.datasets.reading import broken_line, read_colour_map, read_text
from torchxnn.errors import DataError

FOLDERS = {"train": "training", "test": "validation"}
_ENCODING = "latin-1"  # of the few texts that are not UTF-8
_VOTES = 3  # pictures that must agree on a name before pictures are skipped for it
_ATTRIBUTES = 'INSTANCE # LEVEL # OCCLUDED # CLASS # NAME # "ATTRIBUTES"'


@dataclass(frozen=True)
class Picture:
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


def list_pictures(root: Path, images: str, parts: Iterable[str], suffix: str) -> list[Picture]:
    """Every picture of the full release, sorted by path.

    Args:
        root: the folder of the release.
        images: the folder of the splits below it, "images" or "images/ADE".
        parts: "train", "test" or both.
        suffix: of the texts that name the objects, "_atr.txt" or ".json".

    Raises:
        DataError: if the folder of a split is missing, or a picture is not in a scene folder.
    """
    pictures = []
    for part in parts:
        top = root / images / FOLDERS[part]
        if not top.is_dir():
            raise DataError(f"{root} has no folder {images}/{FOLDERS[part]}")
        found = []
        for folder, below, files in os.walk(top):
            # The release of 2021 has a folder of instance masks for every picture.
            below[:] = [name for name in below if not name.startswith((".", "ADE_"))]
            names = [name for name in files if name.endswith(".jpg") and name[0] != "."]
            scene = "/".join(Path(folder).relative_to(top).parts[1:])
            if names and not scene:
                raise DataError(
                    f"{Path(folder) / min(names)} is not in a scene folder (expected "
                    f"{images}/{FOLDERS[part]}/GROUP/SCENE/NAME.jpg)"
                )
            stems = (f"{Path(folder).relative_to(root).as_posix()}/{name[:-4]}" for name in names)
            found += [Picture(f"{s}.jpg", f"{s}_seg.png", scene, f"{s}{suffix}") for s in stems]
        pictures += sorted(found, key=lambda picture: picture.path)
    return pictures


def class_numbers(
    colours: UInt8[np.ndarray, "height width 3"],
) -> Int32[np.ndarray, "height width"]:
    """The number of the object class of every pixel, R // 10 * 256 + G; 0 is none."""
    wide = colours.astype(np.int32)
    return wide[..., 0] // 10 * 256 + wide[..., 1]


def names_from_json(root: Path, pictures: Sequence[Picture]) -> tuple[str, ...]:
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


def names_from_attributes(root: Path, pictures: Sequence[Picture]) -> tuple[str, ...]:
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
    """Class names of the objects (not of their parts) by instance number, from `NAME_atr.txt`.

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
