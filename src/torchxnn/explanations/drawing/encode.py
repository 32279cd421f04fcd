"""Pixels as the bytes of an image file: the only place that compresses them."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def shrink(
    pixels: UInt8[np.ndarray, "height width 3"], longest: int
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Make an image smaller, in its own proportions, until its longer side has `longest` pixels.

    A smaller image is returned as it is.
    """
    if max(pixels.shape[:2]) <= longest:
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(image)


def encode(
    pixels: UInt8[np.ndarray, "height width 3"],
    quality: int,
    longest: int | None = None,
    kind: Literal["webp", "jpeg"] = "webp",
) -> bytes:
    """The bytes of a WebP or JPEG file, without what cameras put into files.

    Args:
        pixels: (H, W, 3), red, green and blue.
        quality: 0 to 100.
        longest: the longer side is made smaller to this many pixels; None keeps the size.
        kind: of file.
    """
    from PIL import WebPImagePlugin  # noqa: F401 - or Pillow loads the plugins of all formats

    stream = io.BytesIO()
    image = Image.fromarray(pixels if longest is None else shrink(pixels, longest))
    image.save(stream, format=kind, quality=quality)
    return stream.getvalue()
