"""Read one DICOM image as pixel values from 0 to 1; needs the package pydicom."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float

from torchxnn.storage.paths import Stream

SUFFIXES = frozenset({".dcm", ".dicom"})
INSTALLED = find_spec("pydicom") is not None


def read_dicom(
    stream: Stream,
) -> Float[np.ndarray, "height width"] | Float[np.ndarray, "height width 3"]:
    """One image as float32 from 0 to 1, grey or red, green, blue.

    Grey values are rescaled by slope and intercept; the first window of the file maps them to 0
    to 1, or else the full range of the bits stored. MONOCHROME1, where high is dark, is inverted.

    Raises:
        ValueError: several frames, a palette, or a window that is not linear.
    """
    from pydicom import dcmread
    from pydicom.pixels import pixel_array

    data = dcmread(stream)
    if (frames := int(data.get("NumberOfFrames") or 1)) > 1:
        raise ValueError(f"{frames} frames; save each as an image, or the volume as .npy")
    kind = str(data.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        raise ValueError("the colours of a palette; save it as PNG")
    pixels = np.asarray(pixel_array(data))
    if pixels.ndim == 3:
        return pixels.astype(np.float32) / (2 ** int(data.BitsStored) - 1)
    grey = _windowed(data, pixels.astype(np.float64))
    return (1 - grey if kind == "MONOCHROME1" else grey).astype(np.float32)


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
