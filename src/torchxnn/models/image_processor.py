"""What an image processor of transformers does, as a `Preprocessing`, or that it cannot be said.

The settings are read, and what they may mean is then tried: every class of processors gives them a
meaning of its own (a crop that some take of a side enlarged by 256 / 224, others by `crop_pct`), so
the reading that gives the same tensors counts, and without one the processor is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from torchxnn.errors import DataError, ModelError
from torchxnn.models.preprocessing import Preprocessing

_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Filters by the numbers that Pillow gives them."""

_PROBES = ((640, 480), (300, 420))
_TOLERANCE = 0.02
"""Mean difference of a smooth picture's tensors, as a share of their spread, that rounding alone
explains; another size or a swapped colour makes five times as much and more."""


def preprocessing_of(processor: Any, spec: str) -> Preprocessing:
    """How an image processor prepares images for a network.

    Args:
        processor: of transformers.
        spec: the network's name, for messages.

    Raises:
        ModelError: it does something that `Preprocessing` has no word for; the message names it.
    """
    try:
        readings = _readings(processor)
        differences = _differences(processor, readings)
    except (DataError, _NotSaidError) as error:
        raise _refusal(processor, spec, str(error)) from error
    least = min(differences)
    if not least <= _TOLERANCE:
        raise _refusal(processor, spec, f"its tensors differ from what it says by {least:.2g}")
    return readings[differences.index(least)]


class _NotSaidError(ValueError):
    """Something that an image processor does and `Preprocessing` has no word for."""


def _refusal(processor: Any, spec: str, why: str) -> ModelError:
    return ModelError(
        f"the image processor of {spec} ({type(processor).__name__}) cannot be followed: {why}; "
        "give preprocessing= (load_model), or a factory whose network has an attribute "
        "`preprocessing`"
    )


def _readings(processor: Any) -> list[Preprocessing]:
    """What the settings may mean, which every class of processors decides for itself."""

    def has(name: str, default: Any = None) -> Any:
        value = getattr(processor, name, None)
        return default if value is None else value

    for name in ("do_pad", "do_thumbnail", "size_divisor", "do_flip_channel_order"):
        if has(name, False):
            raise _NotSaidError(f"{name} is set")
    if not has("do_resize", True):
        raise _NotSaidError("do_resize is off, so images keep their sizes")
    number = int(has("resample", 2))
    if number not in _FILTERS:
        raise _NotSaidError(f"it resamples with Pillow's filter {number}")
    normal = has("do_normalize", True)
    mean = has("image_mean", [0.0] * 3) if normal else [0.0] * 3
    std = has("image_std", [1.0] * 3) if normal else [1.0] * 3
    if has("include_top", False):  # EfficientNet's divides a second time
        std = [value * value for value in std]
    scale = 255 * has("rescale_factor", 1 / 255) if has("do_rescale", True) else 255.0
    colours: dict[str, Any] = {
        "mean": tuple(value / scale for value in mean),
        "std": tuple(value / scale for value in std),
        "interpolation": _FILTERS[number],
        "floor_crop": True,
    }
    return [Preprocessing(**geometry, **colours) for geometry in _geometries(has)]


def _geometries(has: Any) -> list[dict[str, Any]]:
    """Size, way of resizing and shorter side; the first reading is the usual one."""
    size, crop = dict(has("size", {})), dict(has("crop_size", {}))
    cropped, share = has("do_center_crop", False), has("crop_pct")
    side = size.get("shortest_edge")
    if side is None:
        whole = _sides(size)
        target = _sides(crop) if cropped else whole
        if target[0] * whole[1] != target[1] * whole[0]:
            raise _NotSaidError(f"it resizes to {whole} and crops {target} of that")
        enlarged = None if target == whole else min(whole)
        return [{"size": target, "resize": "squash", "shorter_side": enlarged}]
    if share is None and not cropped:
        raise _NotSaidError("it crops nothing, so images keep their proportions")
    target = _sides(crop) if cropped else (side, side)
    shorter = [side, int(side * 256 / 224), *([int(side / share)] if share else [])]
    crops = [
        {"size": target, "resize": "crop", "shorter_side": each}
        for each in dict.fromkeys(shorter)
        if each >= min(target)
    ]
    return [*crops, {"size": target, "resize": "squash"}]


def _sides(size: dict[str, Any]) -> tuple[int, int]:
    height, width = size.get("height"), size.get("width")
    if not isinstance(height, int) or not isinstance(width, int):
        raise _NotSaidError(f"its size is {size}")
    return height, width


def _differences(processor: Any, readings: list[Preprocessing]) -> list[float]:
    """Of every reading, the largest mean difference to the processor's tensors of a picture."""
    worst = [0.0] * len(readings)
    for width, height in _PROBES:
        picture = _smooth(width, height)
        theirs = processor(images=picture, return_tensors="pt")["pixel_values"][0]
        for number, reading in enumerate(readings):
            ours = reading(picture)
            if theirs.shape != ours.shape:
                raise _NotSaidError(
                    f"it makes {tuple(theirs.shape)} of a picture, and says {tuple(ours.shape)}"
                )
            worst[number] = max(worst[number], float(_spread(theirs, ours)))
    return worst


def _spread(theirs: Tensor, ours: Tensor) -> Tensor:
    """Mean difference, as a share of how much the tensor varies."""
    return (theirs.float() - ours).abs().mean() / ours.std().clamp(min=1e-6)


def _smooth(width: int, height: int) -> Image.Image:
    """A picture that is different left and right, above and below, and in each colour."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(4 * x + y), np.cos(3 * y - 2 * x), np.sin(6 * x * y + 1)]
    return Image.fromarray(((np.stack(waves, -1) + 1) * 120).astype(np.uint8))
