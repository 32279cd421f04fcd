"""Read volumes: NumPy arrays, pages of a TIFF, frames of a DICOM file, NIfTI where nibabel is."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageSequence

from torchxnn.data.datasets import dicom
from torchxnn.data.datasets.arrays import in_full_range, load_array
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.paths import Stream

Volume = Float[np.ndarray, "channels slices rows columns"]

PAGED = frozenset({".tif", ".tiff"})
NIFTI = frozenset({".nii", ".nii.gz"})
NIFTI_INSTALLED = find_spec("nibabel") is not None
READABLE = frozenset(
    {".npy"}
    | PAGED
    | (dicom.SUFFIXES if dicom.INSTALLED else set())
    | (NIFTI if NIFTI_INSTALLED else set())
)
"""Endings of the files that are read as volumes, with what is installed here."""


def volume_reader(suffix: str, preprocessing: Preprocessing) -> Callable[[Stream], Volume]:
    """What reads a file of an ending as a volume for a network, float32."""
    if suffix in dicom.SUFFIXES:
        read: Callable[[Stream], np.ndarray] = partial(dicom.read_dicom, frames=True)
    elif suffix in NIFTI:
        read = partial(_read_nifti, packed=suffix.endswith(".gz"))
    else:
        read = _read_pages if suffix in PAGED else _read_array
    return partial(_read, read=read, preprocessing=preprocessing)


def _read(
    stream: Stream, read: Callable[[Stream], np.ndarray], preprocessing: Preprocessing
) -> Volume:
    """A volume with its channels first.

    Raises:
        ValueError: other channels, axes that may be meant in two ways, a single slice, or no
            finite numbers.
    """
    values = read(stream)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinity; replace them")
    volume = _channels_first(values, preprocessing.channels)
    _check_sides(volume.shape[1:], preprocessing)
    return np.array(volume, dtype=np.float32, order="C")  # writable, as PyTorch wants it


def _channels_first(values: np.ndarray, channels: int) -> np.ndarray:
    """(D, H, W), (C, D, H, W) or (D, H, W, C) as (C, D, H, W); grey does for three channels."""
    shape = values.shape
    first, last = shape[:1] == (channels,), shape[-1:] == (channels,)
    if values.ndim == 3 and channels in (1, 3):
        if channels == 3 and (first or last):
            raise ValueError(f"an array {shape}, which may be one slice of 3 channels; save 4 axes")
        return np.broadcast_to(values, (channels, *shape))
    if values.ndim != 4 or not (first or last):
        raise ValueError(
            f"an array {shape}; the network takes {channels} channel(s) of depth, height and width"
        )
    if first and last:
        raise ValueError(f"an array {shape}, whose channels may be the first or the last")
    return values if first else np.moveaxis(values, -1, 0)


def _check_sides(sides: tuple[int, ...], preprocessing: Preprocessing) -> None:
    depth, height, width = preprocessing.shape[1:]
    if sides[0] == 1 and depth > 1:
        raise ValueError(
            "one slice: put all slices of a volume into one file, as in .npy (depth, height, width)"
        )
    if sides != (depth, height, width) and sides == (height, width, depth):
        raise ValueError(
            f"the slices of {' x '.join(map(str, sides))} are last; move this axis to the front"
        )


def _read_array(stream: Stream) -> np.ndarray:
    return in_full_range(load_array(stream))


def _read_pages(stream: Stream) -> np.ndarray:
    """Pages (D, H, W) or (D, H, W, C): 8 and 16 bits by their full range, others as they are."""
    with Image.open(stream) as image:
        inverted = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
        if image.mode == "P" or (inverted and image.mode not in ("1", "L")):  # Pillow inverts these
            raise ValueError("a palette, or white at 0; save it as a .npy array")
        pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
    if len({page.shape for page in pages}) > 1:
        raise ValueError("pages of several sizes; a volume has slices of one")
    return in_full_range(np.stack(pages))


_PHOTOMETRIC = 262  # TIFF tag


def _read_nifti(stream: Stream, packed: bool) -> np.ndarray:
    """(Z, Y, X) or (C, Z, Y, X) of a file (X, Y, Z) or (X, Y, Z, C), with its slope, not turned."""
    from nibabel import Nifti1Image

    content = stream.read()
    image = Nifti1Image.from_bytes(gzip.decompress(content) if packed else content)
    return in_full_range(np.asanyarray(image.dataobj).T)
