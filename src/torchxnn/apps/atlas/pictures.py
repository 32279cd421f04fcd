"""The pictures of one class as WebP files, made smaller until the class fits its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from torchxnn.apps.gallery import heatmaps
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.encode import encode, shrink
from torchxnn.explanations.drawing.overlay import intensities, overlay
from torchxnn.xnn import XNN

AT_ONCE = 4  # images per pass of the model
STEPS = ((1.0, 78), (0.9, 68), (0.8, 58), (0.65, 50), (0.5, 40))
"""Shares of the side and qualities of WebP that are tried in turn."""

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Photographs by row, and maps by (row, x-feature), as arrays.

    Attributes:
        photographs: by row.
        maps: by row and 0-based x-feature, laid over the photograph.
    """

    photographs: Mapping[int, Picture]
    maps: Mapping[tuple[int, int], Picture]


def photograph_name(row: int) -> str:
    """File of a photograph."""
    return f"p{row}.webp"


def map_name(row: int, feature: int) -> str:
    """File of an x-feature's map on a photograph."""
    return f"m{row}-{feature + 1}.webp"


def draw_pictures(
    xnn: XNN, dataset: ImageDataset, wanted: Mapping[int, Sequence[int]], side: int
) -> Pictures:
    """Photographs and maps; one pass of the model per image gives the maps of all x-features.

    Args:
        xnn: fitted.
        dataset: where the photographs are.
        wanted: per row the x-features whose maps are needed; may be none.
        side: height and width in pixels.
    """
    picture = dataset.preprocessing.picture
    images = {row: shrink(picture(dataset[row].image), side) for row in wanted if not wanted[row]}
    maps: dict[tuple[int, int], Picture] = {}
    mapped = sorted(row for row in wanted if wanted[row])
    for row, sample, found in heatmaps(xnn, dataset, mapped, AT_ONCE):
        whole = picture(sample.image)
        images[row] = shrink(whole, side)
        for feature in wanted[row]:
            (intensity,) = intensities([found[feature].float().numpy()])
            maps[row, feature] = shrink(overlay(whole, intensity), side)
    return Pictures(images, maps)


def encode_pictures(pictures: Pictures, room: int) -> tuple[dict[str, bytes], int]:
    """All pictures as WebP in at most so many bytes, as large and as good as fits.

    Returns:
        Contents by file name, and the side in pixels.

    Raises:
        DataError: they do not fit even at the smallest size.
    """
    named = {photograph_name(row): picture for row, picture in pictures.photographs.items()}
    named |= {map_name(*at): picture for at, picture in pictures.maps.items()}
    size, side = 0, max((len(picture) for picture in named.values()), default=0)
    for share, quality in STEPS:
        longest = round(side * share)
        files = {name: encode(each, quality, longest) for name, each in named.items()}
        size = sum(map(len, files.values()))
        if size <= room:
            return files, longest
    raise DataError(
        f"{len(named)} pictures take {size / 1e6:.2f} MB at the smallest size, and there is room "
        f"for {max(0, room) / 1e6:.2f}: show fewer images or raise the limit"
    )
