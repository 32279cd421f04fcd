"""Read the text files, class maps and lists of pictures that official layouts are made of."""

import csv
import difflib
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64, Integer, UInt8
from PIL import Image
from torch import Tensor

from torchxnn.data.datasets.images import (
    UnreadableImageError,
    check_image,
    quiet_pillow,
    read_image,
)
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.preprocessing import Preprocessing

SPLITS = {"train": ("train",), "test": ("test",), "all": ("train", "test")}
_LABEL_MODES = ("L", "P", "I", "I;16", "I;16B", "I;16L")


def parts_of_split(split: str) -> tuple[str, ...]:
    """The official parts that "train", "test" or "all" stands for.

    Raises:
        DataError: if it is none of the three.
    """
    if split not in SPLITS:
        raise DataError(f"split must be 'train', 'test' or 'all', got {split!r}")
    return SPLITS[split]


def read_text(path: Path, fallback: str | None = None) -> str:
    """The text of a file in UTF-8, or in the `fallback` encoding where it is not.

    Raises:
        DataError: if the file cannot be read or is no text; the message names it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if fallback is None or b"\x00" in data:
            raise DataError(f"cannot read {path}: not a text file") from error
        return data.decode(fallback, errors="replace")


def read_pairs(path: Path, expected: str) -> Iterator[tuple[int, str, str]]:
    """Lines `FIRST REST` as (line number from 1, first, rest); blank lines are left out.

    Args:
        path: the file.
        expected: what a line should be, for the message.

    Raises:
        DataError: if the file cannot be read, is empty, or a line has one word.
    """
    empty = True
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split(maxsplit=1)
        if not words:
            continue
        if len(words) != 2:
            raise broken_line(path, number, expected, line)
        empty = False
        yield number, words[0], words[1].strip()
    if empty:
        raise DataError(f"{path} is empty")


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with a header as (line number, values by name of the column).

    Raises:
        DataError: if the file cannot be read, has no rows, lacks one of `columns`, or a row does
            not have as many values as the header.
    """
    reader = csv.DictReader(read_text(path).splitlines(), strict=True)
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path}, line 1: there is no column {missing[0]!r} (expected {', '.join(columns)})"
        )
    empty = True
    try:
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    f"{path}, line {reader.line_num}: expected {len(reader.fieldnames or ())} "
                    "values as in the header"
                )
            empty = False
            yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    if empty:
        raise DataError(f"{path} has no rows")


def broken_line(path: Path, number: int, expected: str, line: str) -> DataError:
    """The error for a line that is not as expected."""
    return DataError(f"{path}, line {number}: expected {expected}, got {line[:80]!r}")


def is_inside(path: str) -> bool:
    """Whether a relative path stays in the folder that it is relative to."""
    return not Path(path).is_absolute() and ".." not in Path(path).parts and path != ""


def read_names(path: Path) -> tuple[str, ...]:
    """Names of object classes from lines `NUMBER NAME`, numbered from 0 without a gap.

    Raises:
        DataError: if the file cannot be read or a number is out of order.
    """
    names: list[str] = []
    for number, index, name in read_pairs(path, "a number and a name"):
        if index != str(len(names)):
            raise broken_line(path, number, f"class number {len(names)}", f"{index} {name}")
        names.append(name)
    return tuple(names)


def check_files(root: Path, paths: Sequence[str], kind: str = "images") -> None:
    """See that files are there; every folder is listed once, which is fast for very many files.

    Raises:
        DataError: if some are missing; the message counts them and names the first.
    """
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


@dataclass(frozen=True)
class Selection:
    """Which classes of a data set are kept, and in which order.

    Attributes:
        classes: in the order of the label indices.
        labels: class index by the name that the data set uses; names left out are not in it.
    """

    classes: tuple[str, ...]
    labels: dict[str, int]


def select(
    found: Iterable[str], wanted: Sequence[str] | None, where: str, required: bool = False
) -> Selection:
    """Keep some of the classes of a data set, in a given order.

    Names are compared without regard to case and to whether words are joined by blanks, hyphens,
    slashes or underscores; the letter folder of Places365 ("/k/kitchen") is dropped.

    Args:
        found: the names that the data set uses.
        wanted: the names to keep, in the order of the label indices; None keeps all, sorted.
        where: names the data set in messages.
        required: whether every wanted class must be there; otherwise one of them is enough.

    Raises:
        DataError: if `wanted` is empty, repeats a class, or names classes that are not there.
    """
    names = sorted(set(found))
    if wanted is None:
        return Selection(tuple(names), {name: index for index, name in enumerate(names)})
    if isinstance(wanted, str) or not wanted:
        raise DataError(f"give the classes of {where} as a list of names, got {wanted!r}")
    numbers: dict[str, int] = {}
    for index, name in enumerate(wanted):
        if numbers.setdefault(_plain(name), index) != index:
            raise DataError(f"the class {name!r} is given twice")
    labels = {name: numbers[_plain(name)] for name in names if _plain(name) in numbers}
    absent = [name for index, name in enumerate(wanted) if index not in labels.values()]
    if absent and (required or not labels):
        near = difflib.get_close_matches(_plain(absent[0]), [_plain(name) for name in names], n=3)
        hint = f"; near ones: {', '.join(near)}" if near else ""
        raise DataError(f"{where} has no class {absent[0]!r}{hint}")
    return Selection(tuple(wanted), labels)


def find_absent(
    classes: Sequence[str], labels: Sequence[int], name: str, chosen: bool
) -> tuple[str, ...]:
    """Classes without a picture, with a warning that names them if the user chose them.

    Raises:
        DataError: if there is no picture at all.
    """
    if not labels:
        kept = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
        raise DataError(f"{name} has no images of {kept}")
    there = set(labels)
    absent = tuple(name for index, name in enumerate(classes) if index not in there)
    if absent and chosen:
        warnings.warn(
            f"{name} has no images of {', '.join(absent)}; the other classes keep their indices",
            XNNWarning,
            stacklevel=3,
        )
    return absent


def _plain(name: str) -> str:
    name = re.sub(r"^/[a-z]/", "", name.strip().lower())
    return re.sub(r"[\s/_-]+", "_", name).strip("_")


def read_class_map(path: Path) -> Integer[np.ndarray, "height width"]:
    """The class number of every pixel, from a picture with one channel of integers.

    Raises:
        UnreadableImageError: if it is missing, broken, or has colours.
    """
    pixels = _read_pixels(path, _LABEL_MODES, "one channel of class numbers")
    return pixels.astype(np.int32)


def read_colour_map(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Red, green and blue of every pixel as they are, from a picture in which they are codes.

    Raises:
        UnreadableImageError: if it is missing, broken, or not of three channels of 8 bits.
    """
    return _read_pixels(path, ("RGB",), "red, green and blue of 8 bits")


def _read_pixels(path: Path, modes: Sequence[str], expected: str) -> np.ndarray:
    # Unlike a photograph, it is neither converted nor turned: the numbers are data.
    with quiet_pillow():
        try:
            with Image.open(path) as image:
                image.load()
                mode, pixels = image.mode, np.asarray(image)
        except Exception as error:  # Pillow's decoders raise almost anything on a broken file
            reason = check_image(path) or type(error).__name__
            raise UnreadableImageError(path, reason) from error
    if mode not in modes:
        raise UnreadableImageError(path, f"expected {expected}, got mode {mode}")
    return pixels


def preprocess_with_mask(
    preprocessing: Preprocessing,
    picture: Path,
    mask: Integer[np.ndarray, "height width"],
    mask_path: Path,
) -> tuple[Float[Tensor, "3 size size"], Int64[Tensor, "size size"]]:
    """Read a picture and lay its class map into the same frame.

    Raises:
        DataError: if the picture cannot be read or is not as large as the class map.
    """
    image = read_image(picture)
    if mask.shape != (image.height, image.width):
        raise DataError(
            f"{mask_path} has {mask.shape[1]} x {mask.shape[0]} pixels, its picture {picture} "
            f"{image.width} x {image.height}"
        )
    return preprocessing(image), preprocessing.frame(image.width, image.height).mask(mask)
