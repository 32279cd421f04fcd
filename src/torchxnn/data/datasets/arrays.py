"""Read images of any number of channels: NumPy arrays, bands of a picture, pages of a TIFF."""

from __future__ import annotations

from threading import Lock

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageSequence

from torchxnn.storage.paths import Stream

_FULL_RANGE = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}

_HEADER = Lock()
"""Held while a header is read: the parser of literals of Python 3.11 fails by chance, with a
`SystemError`, if two threads are in it at once."""


def load_array(stream: Stream) -> np.ndarray:
    """A `.npy` file, by any number of threads.

    Raises:
        ValueError: it is no such file, or holds Python objects.
    """
    with _HEADER:
        try:
            return np.asarray(np.load(stream, allow_pickle=False))
        except SystemError:  # another thread was in the parser for a reason of its own
            stream.seek(0)
            return np.asarray(np.load(stream, allow_pickle=False))


def in_full_range(values: np.ndarray) -> np.ndarray:
    """Values as float32: uint8 and uint16 from 0 to 1, all others as they are.

    Raises:
        ValueError: no real numbers.
    """
    if values.dtype.kind not in "biuf":
        raise ValueError(f"values of the type {values.dtype}; save real numbers")
    full = _FULL_RANGE.get(values.dtype.newbyteorder("="), 1.0)
    return values.astype(np.float32) / np.float32(full)


def read_array(stream: Stream, channels: int) -> Float[np.ndarray, "rows columns channels"]:
    """A `.npy` file (rows, columns), (rows, columns, C) or (C, rows, columns) as float32.

    uint8 and uint16 are divided by their full range; other numbers are taken as they are, so that
    mean and std are in their units. Grey values do for three channels.

    Raises:
        ValueError: another number of channels, or no finite real numbers.
    """
    pixels = in_full_range(load_array(stream))
    if not np.isfinite(pixels).all():
        raise ValueError("NaN or infinity; replace them")
    if pixels.ndim == 2 and channels in (1, 3):
        return pixels[:, :, np.newaxis].repeat(channels, axis=2)
    last, first = pixels.shape[-1:] == (channels,), pixels.shape[:1] == (channels,)
    if pixels.ndim != 3 or not (last or first):
        raise ValueError(f"an array {pixels.shape}; the network takes {channels} channel(s)")
    if last and first:
        raise ValueError(f"an array {pixels.shape}, whose channels may be the first or the last")
    return pixels if last else pixels.transpose(1, 2, 0)


def read_bands(stream: Stream, channels: int) -> Float[np.ndarray, "rows columns channels"]:
    """The bands of a picture, or the pages of a TIFF, as float32 from 0 to 1; not turned.

    Raises:
        ValueError: another number of bands, or neither 8 nor 16 bits.
    """
    with Image.open(stream) as image:
        pages = [np.asarray(page) for page in ImageSequence.Iterator(image)]
    pixels = np.dstack(pages)
    if pixels.dtype not in _FULL_RANGE:
        raise ValueError(f"bands of the type {pixels.dtype}; save a .npy array")
    if pixels.shape[2] != channels:
        raise ValueError(
            f"{pixels.shape[2]} band(s); the network takes {channels} channels, as a .npy array has"
        )
    return pixels.astype(np.float32) / np.float32(_FULL_RANGE[pixels.dtype])
