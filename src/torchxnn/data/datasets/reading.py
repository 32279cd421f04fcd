"""Read the text files, class maps and lists of pictures that official layouts are made of."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from torchxnn.data.datasets.base import Sample
from torchxnn.data.datasets.images import (
    UnreadableImageError,
    check_image,
    quiet_pillow,
    read_image,
)
from torchxnn.data.datasets.official import OfficialDataset
from torchxnn.errors import DataError

_LABEL_MODES = ("L", "P", "I", "I;16", "I;16B", "I;16L")


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

    `expected` says what a line should be, for the message.

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


def read_class_list(path: Path) -> tuple[str, ...]:
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


def read_class_map(path: Path, known: int, listed_in: str) -> Integer[np.ndarray, "height width"]:
    """The class number of every pixel, from a picture with one channel of integers.

    Classes are numbers below `known`; `listed_in` is the file that lists them, for the message.

    Raises:
        UnreadableImageError: if it is missing, broken, or has colours.
        DataError: if a class number is not among the known ones.
    """
    pixels = _read_pixels(path, _LABEL_MODES, "one channel of class numbers").astype(np.int32)
    if pixels.max() >= known:
        raise DataError(f"{path} has class number {pixels.max()}, {listed_in} ends at {known - 1}")
    return pixels


def read_colour_map(path: Path, others: Sequence[str] = ()) -> UInt8[np.ndarray, "height width 3"]:
    """Red, green and blue of every pixel as they are, from a picture in which they are codes.

    `others` are taken, too: "P", colours of a palette; "RGBA", whose alpha is left out.

    Raises:
        UnreadableImageError: if it is missing, broken, or not of three channels of 8 bits.
    """
    return _read_pixels(path, ("RGB", *others), "red, green and blue of 8 bits", colours=True)


def _read_pixels(
    path: Path, modes: Sequence[str], expected: str, colours: bool = False
) -> np.ndarray:
    # Unlike a photograph, it is neither blended nor turned: the numbers are data.
    with quiet_pillow():
        try:
            with Image.open(path) as image:
                image.load()
                mode = image.mode
                pixels = np.asarray(image.convert("RGB") if colours else image)
        except Exception as error:  # Pillow's decoders raise almost anything on a broken file
            reason = check_image(path) or type(error).__name__
            raise UnreadableImageError(path, reason) from error
    if mode not in modes:
        raise UnreadableImageError(path, f"expected {expected}, got mode {mode}")
    return pixels


def sample_with_mask(
    dataset: OfficialDataset, index: int, mask: Integer[np.ndarray, "height width"], mask_path: Path
) -> Sample:
    """Read the picture at an index and lay its class map into the same frame.

    Raises:
        DataError: if the picture cannot be read or is not as large as the class map.
    """
    picture = dataset.root / dataset.paths[index]
    image = read_image(picture)
    if mask.shape != (image.height, image.width):
        raise DataError(
            f"{mask_path} has {mask.shape[1]} x {mask.shape[0]} pixels, its picture {picture} "
            f"{image.width} x {image.height}"
        )
    frame = dataset.preprocessing.frame(image.width, image.height)
    pixels, label = dataset.preprocessing(image), dataset.labels[index]
    return Sample(pixels, label, dataset.paths[index], masks=frame.mask(mask))
