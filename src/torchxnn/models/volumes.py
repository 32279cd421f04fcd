"""How the values of a volume are resized to what a network of volumes takes.

Volumes have a depth beside height and width, (C, D, H, W), such as the slices of a CT scan. Their
voxels count, not the millimetres between them: a volume whose slices lie far apart is resampled
before it is given, if the network was trained so.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

MODES = {"bilinear": "bilinear", "bicubic": "bicubic", "nearest": "nearest-exact"}
"""What PyTorch calls the ways of resizing that volumes know."""


def resize_volume(
    volume: Float[np.ndarray, "channels slices rows columns"],
    size: tuple[int, ...],
    interpolation: str,
    covered: tuple[int, ...] | None,
) -> Float[Tensor, "channels depth height width"]:
    """A volume of depth x height x width voxels; linear in all three, antialiased where it shrinks.

    Args:
        volume: float32.
        size: depth, height and width of the result.
        interpolation: a key of `MODES`; of three dimensions, so "bilinear" is trilinear.
        covered: the volume is resized in its own proportions until it covers these sides, and the
            centre of `size` is cut out of it; None resizes straight to `size`.
    """
    sides = size if covered is None else _covering(volume.shape[1:], covered)
    # Linear filters are separable: first every slice, then the depth of all columns of voxels.
    depth, height, width = sides
    slices = _resize(torch.from_numpy(volume), (height, width), interpolation)
    columns = _resize(slices.flatten(2).unsqueeze(1), (depth, height * width), interpolation)
    return _centre(columns.reshape(-1, *sides), size).contiguous()


def _resize(planes: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """Planes (N, M, height, width) of another size."""
    if planes.shape[2:] == size:
        return planes
    antialias = interpolation != "nearest"
    return F.interpolate(planes, size, mode=MODES[interpolation], antialias=antialias)


def _covering(own: tuple[int, ...], covered: tuple[int, ...]) -> tuple[int, ...]:
    scale = max(wanted / there for wanted, there in zip(covered, own, strict=True))
    pairs = zip(covered, own, strict=True)
    return tuple(max(wanted, round(scale * there)) for wanted, there in pairs)


def _centre(volume: Tensor, size: tuple[int, ...]) -> Tensor:
    for axis, length in enumerate(size, 1):
        volume = volume.narrow(axis, (volume.shape[axis] - length) // 2, length)
    return volume
