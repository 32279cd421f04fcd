"""Read a DICOM image, or one of several frames, as values from 0 to 1; needs pydicom."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float

from torchxnn.storage.paths import Stream

SUFFIXES = frozenset({".dcm", ".dicom"})
INSTALLED = find_spec("pydicom") is not None


def read_dicom(
    stream: Stream, frames: bool = False
) -> Float[np.ndarray, "*frames height width"] | Float[np.ndarray, "*frames height width 3"]:
    """One image as float32 from 0 to 1, grey or red, green, blue; or all frames of a file.

    Grey values are rescaled by slope and intercept; the first window of the file maps them to 0
    to 1, or else the full range of the bits stored. MONOCHROME1, where high is dark, is inverted.

    Args:
        stream: of the file.
        frames: read a volume, whose slices are the frames in the order of the file, (D, H, W) or
            (D, H, W, 3).

    Raises:
        ValueError: several frames where an image is wanted, values or windows of single frames, a
            palette, or a window that is not linear.
    """
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    data = dcmread(stream)
    if (count := int(data.get("NumberOfFrames") or 1)) > 1 and not frames:
        raise ValueError(f"{count} frames; save each as an image, or give a network of volumes")
    if frames:
        _refuse_values_of_frames(data)
    kind = str(data.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        raise ValueError("the colours of a palette; save it as PNG")
    pixels = np.asarray(pixel_array(data))
    if frames and count == 1:
        pixels = pixels[np.newaxis]
    if int(data.get("SamplesPerPixel", 1)) > 1:
        return pixels.astype(np.float32) / (2 ** int(data.BitsStored) - 1)
    grey = _windowed(data, pixels.astype(np.float64))
    return (1 - grey if kind == "MONOCHROME1" else grey).astype(np.float32)


def _refuse_values_of_frames(data: Any) -> None:
    """Enhanced DICOM may have a slope and a window for every frame."""
    names = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
    groups = [group for name in names for group in data.get(name) or ()]
    values = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
    if any(name in group for group in groups for name in values):
        raise ValueError("slopes or windows of single frames; save it as .npy, with them applied")


def _windowed(data: Any, stored: np.ndarray) -> np.ndarray:
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    if "ModalityLUTSequence" in data or "VOILUTSequence" in data:
        raise ValueError("a look-up table for its values; save it with them applied")
    if data.get("WindowCenter") is None or data.get("WindowWidth") is None:
        bits, signed = int(data.BitsStored), bool(data.get("PixelRepresentation", 0))
        low = -(2 ** (bits - 1)) if signed else 0
        return (stored - low) / (2**bits - 1)
    function = str(data.get("VOILUTFunction", "LINEAR"))
    centre, width = _first(data.WindowCenter), _first(data.WindowWidth)
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    elif function != "LINEAR_EXACT":
        raise ValueError(f"a window of the kind {function}; save it with the window applied")
    return ((stored * slope + intercept - centre) / width + 0.5).clip(0, 1)


def _first(value: Any) -> float:
    """Of a value that a file may give several times."""
    return float(value if isinstance(value, (int, float, str)) else value[0])
