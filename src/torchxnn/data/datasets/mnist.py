"""MNIST in IDX files, gzipped or not: handwritten digits of 28 x 28 pixels.

LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition,
Proceedings of the IEEE 86(11), 1998, whose authors' page describes the IDX format.
"""

import gzip
import struct
import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import ClassVar, final

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from torchxnn.data.datasets.base import Sample
from torchxnn.data.datasets.official import OfficialDataset
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing

MNIST_PREPROCESSING = Preprocessing(
    size=28, resize="squash", mean=(0.1307, 0.1307, 0.1307), std=(0.3081, 0.3081, 0.3081)
)
"""The digits at their size, normalised by mean and deviation of the 60,000 training images."""

_PREFIXES = {"train": "train", "test": "t10k"}
_FOLDERS = (".", "raw", "MNIST/raw")
_UNSIGNED_BYTE = 0x08
_GZIP = b"\x1f\x8b"
_SUFFIXES = ("", ".gz")


@final
class MNIST(OfficialDataset):
    """The digits 0 to 9, or any data set in the same files.

    Reads `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte` (also written with a dot, `train-images.idx3-ubyte`), each with or
    without `.gz`, from `root`, `root/raw` or `root/MNIST/raw`. Images are held in memory as bytes.

    Args:
        root: the folder.
        preprocessing: how pictures become tensors; by default 28 x 28 pixels.
        split: "train" or "test" of the files, or "all".
        channels: 1 for networks that take grey images; 3 repeats the grey.

    Raises:
        DataError: if a file is missing, truncated or not as its header says, if images and labels
            differ in number, a label is above 9, or one channel is asked for and `preprocessing`
            treats the colours differently.
    """

    marks = tuple(
        frozenset({f"train-images{joint}idx3-ubyte{suffix}"})
        for joint in "-."
        for suffix in _SUFFIXES
    )
    options: ClassVar = {"channels": 3}

    def __init__(
        self,
        root: str | Path,
        preprocessing: Preprocessing = MNIST_PREPROCESSING,
        split: str = "all",
        channels: int = 1,
    ):
        super().__init__(root, preprocessing, split)
        if channels not in (1, 3):
            raise DataError(f"channels must be 1 or 3, got {channels}")
        differ = len(set(preprocessing.mean)) > 1 or len(set(preprocessing.std)) > 1
        if channels == 1 and differ:
            raise DataError(
                "one channel needs the same mean and std for red, green and blue, got "
                f"{preprocessing.mean} and {preprocessing.std}"
            )
        self.channels = channels
        self.classes = tuple(str(digit) for digit in range(10))
        read = [_read_half(self.root, half) for half in self.halves]
        self._images = tuple(image for images, _, _ in read for image in images)
        self.labels = tuple(label for _, labels, _ in read for label in labels)
        self.paths = tuple(path for _, _, paths in read for path in paths)

    def load(self, index: int) -> Sample:
        """The digit at an index; its path is the file and the position in it, from 0."""
        image = self.preprocessing(Image.fromarray(self._images[index]))
        return Sample(image[: self.channels].clone(), self.labels[index], self.paths[index])


def _read_half(
    root: Path, half: str
) -> tuple[UInt8[np.ndarray, "images height width"], Sequence[int], Sequence[str]]:
    image_path = _find(root, f"{_PREFIXES[half]}-images", 3)
    label_path = _find(root, f"{_PREFIXES[half]}-labels", 1)
    images, labels = read_idx(image_path, 3), read_idx(label_path, 1)
    if len(images) != len(labels):
        raise DataError(
            f"{image_path} has {len(images)} images, {label_path.name} {len(labels)} labels"
        )
    if images.size == 0:
        raise DataError(f"{image_path} has no images (its header says {images.shape})")
    if labels.max() > 9:
        position = int(np.argmax(labels > 9))
        raise DataError(f"{label_path}: label {position} is {labels[position]}, expected 0 to 9")
    paths = [f"{image_path.relative_to(root).as_posix()}#{index}" for index in range(len(images))]
    return images, labels.tolist(), paths


def _find(root: Path, name: str, dimensions: int) -> Path:
    for folder, joint, suffix in product(_FOLDERS, "-.", _SUFFIXES):
        path = root / folder / f"{name}{joint}idx{dimensions}-ubyte{suffix}"
        if path.is_file():
            return path
    raise DataError(
        f"{root} is not MNIST: there is no {name}-idx{dimensions}-ubyte, with or without .gz"
    )


def read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Unsigned bytes from an IDX file, gzipped or not (the content decides, not the name).

    The header is two zero bytes, the type (8 for unsigned bytes), the number of dimensions, and
    each size as a big-endian 32-bit integer; the values follow, the last dimension fastest.

    Raises:
        DataError: if the file cannot be read, is damaged, or its header and length disagree.
    """
    try:
        with path.open("rb") as stream:
            zipped = stream.read(2) == _GZIP
            stream.seek(0)
            data = gzip.GzipFile(fileobj=stream).read() if zipped else stream.read()
    except EOFError as error:
        raise DataError(f"cannot read {path}: the gzip file is truncated") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"cannot read {path}: the gzip file is damaged ({error})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    start = 4 + 4 * dimensions
    expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
    if data[:4] != expected or len(data) < start:
        raise DataError(
            f"{path} is not an IDX file of unsigned bytes with {dimensions} dimension(s): it must "
            f"start with {expected.hex(' ')} and {dimensions} size(s), got {data[:4].hex(' ')!r}"
        )
    sizes = struct.unpack(f">{dimensions}I", data[4:start])
    values = int(np.prod(sizes, dtype=object))
    if len(data) - start != values:
        kind = "truncated" if len(data) - start < values else "longer than its header says"
        raise DataError(
            f"{path} is {kind}: {' x '.join(map(str, sizes))} needs {values} bytes after the "
            f"header, there are {len(data) - start}"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(sizes)
