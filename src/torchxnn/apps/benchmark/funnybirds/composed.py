"""Pictures of birds without some parts or without a background object: rendered, or else composed.

The official release renders every test picture with every subset of its parts and without each
background object; smaller copies have only those without one part and without all. What is not
rendered is composed: the pixels of a removed part, and three around it for its outline, come from
the rendering without it; a background object is painted over with the colour of the background,
which is uniform. There are no shadows.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from scipy.ndimage import maximum_filter

from torchxnn.data.datasets.funnybirds import BODY, PARTS, FunnyBirds
from torchxnn.data.datasets.images import read_image
from torchxnn.errors import DataError

DIFFERS = 30
"""Two pixels differ if a colour differs by more than so many of 255 levels; outlines do, WebP's
noise does not."""

_OUTLINE = 3  # pixels around a thing that can belong to its black outline
_UNIFORM = 0.5  # share of the background that must have one colour to be painted with it

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True, eq=False)
class _Layer:
    """A part that goes: the rendering without it, where it can be seen, and how pixels change."""

    picture: Picture
    region: Bool[np.ndarray, "height width"]
    change: Int64[np.ndarray, "height width"]


@final
class Scene:
    """One test picture and what it looks like without parts or objects.

    Args:
        birds: the test pictures.
        index: which of them.

    Raises:
        DataError: a picture cannot be read, or has another size than the picture itself; on first
            need also: a rendering without one part, or the part map, is missing.
    """

    def __init__(self, birds: FunnyBirds, index: int):
        self.birds, self.index = birds, index
        self.whole = self._read(birds.paths[index])
        self._layers: dict[str, _Layer] = {}
        self._numbers: Int64[np.ndarray, "height width"] | None = None

    @property
    def numbers(self) -> Int64[np.ndarray, "height width"]:
        """What every pixel shows, by the numbers of `FunnyBirds.object_names`."""
        if self._numbers is None:
            numbers = self.birds.part_map(self.index)
            self._check_size(numbers, "its part map")
            self._numbers = numbers
        return self._numbers

    def with_parts(self, kept: Collection[str]) -> tuple[Picture, bool]:
        """The picture with some of its parts, and whether it was composed."""
        if len(kept) == len(PARTS):
            return self.whole, False
        path = self.birds.rendering(self.index, kept)
        return (self.compose(kept), True) if path is None else (self._read(path), False)

    def compose(self, kept: Collection[str], bare: bool = True) -> Picture:
        """Compose the picture with some of its parts, whether or not it was rendered.

        Where the surroundings of several removed parts overlap, the rendering without all parts is
        shown, if no kept part is near; else the rendering whose pixel differs most.

        Args:
            kept: the parts that are not removed.
            bare: False composes from the renderings without one part alone.
        """
        removed = [part for part in PARTS if part not in kept]
        layers = {part: self._layer(part) for part in PARTS}
        changes = np.stack([np.zeros_like(self.numbers), *(layers[p].change for p in removed)])
        sources = np.stack([self.whole, *(layers[p].picture for p in removed)])
        rows, columns = np.indices(self.numbers.shape)
        picture = sources[changes.argmax(axis=0), rows, columns]
        path = self.birds.rendering(self.index, ()) if bare else None
        if path is not None:
            several = sum(layers[part].region.astype(int) for part in removed) > 1
            for part in kept:
                several &= ~layers[part].region
            picture[several] = self._read(path)[several]
        return picture

    def without_object(self, number: int) -> tuple[Picture, bool]:
        """The picture without a background object, and whether it was composed.

        One that hides nothing and is not seen leaves the picture as it is. Painting over it shows
        nothing of what lies behind it but the background.
        """
        path = self.birds.without_background_object(self.index, number)
        if path is not None:
            return self._read(path), False
        if not (self.numbers == (own := BODY + 1 + number)).any():
            return self.whole, False
        picture = self.whole.copy()
        picture[self._region(own) & np.isin(self.numbers, (0, own))] = self._background()
        return picture, True

    def _background(self) -> UInt8[np.ndarray, "3"]:
        pixels = self.whole[self.numbers == 0]
        if len(pixels) == 0:
            raise DataError(f"{self.birds.paths[self.index]} shows no background to paint with")
        colour = np.median(pixels, axis=0).astype(np.uint8)
        alike = np.abs(pixels.astype(np.int16) - colour).max(axis=1) <= DIFFERS
        if alike.mean() < _UNIFORM:
            raise DataError(
                f"the background of {self.birds.paths[self.index]} has not one colour, so objects "
                "cannot be painted over; use a copy of the data with background_interventions"
            )
        return colour

    def _region(self, number: int) -> Bool[np.ndarray, "height width"]:
        return maximum_filter(self.numbers == number, 2 * _OUTLINE + 1)

    def _layer(self, part: str) -> _Layer:
        if part not in self._layers:
            path = self.birds.rendering(self.index, [other for other in PARTS if other != part])
            if path is None:
                raise DataError(
                    f"{self.birds.paths[self.index]} without its {part} is missing in "
                    f"{self.birds.root}"
                )
            picture, region = self._read(path), self._region(PARTS.index(part) + 1)
            change = np.abs(picture.astype(np.int64) - self.whole).max(axis=2)
            self._layers[part] = _Layer(picture, region, change * region)
        return self._layers[part]

    def _read(self, path: str) -> Picture:
        picture = np.asarray(read_image(self.birds.root / path))
        if hasattr(self, "whole"):
            self._check_size(picture, path)
        return picture

    def _check_size(self, other: np.ndarray, name: str) -> None:
        if other.shape[:2] != self.whole.shape[:2]:
            raise DataError(
                f"{self.birds.paths[self.index]} has {self.whole.shape[1]} x {self.whole.shape[0]} "
                f"pixels, {name} {other.shape[1]} x {other.shape[0]}"
            )


@dataclass(frozen=True)
class CompositionError:
    """How far composed pictures are from renderings, where the truth is known; lower is better.

    The picture without all parts is composed from those without one part, and compared with its
    rendering.

    Attributes:
        difference: mean absolute difference, in levels of 255.
        differing: share of pixels that differ.
        whole_difference: the same between the whole picture and the rendering, for scale.
        whole_differing: share of pixels in which these differ.
        images: how many pictures were compared.
    """

    difference: float
    differing: float
    whole_difference: float
    whole_differing: float
    images: int


def composition_error(birds: FunnyBirds, indices: Collection[int]) -> CompositionError:
    """Measure compositions on some test pictures.

    Raises:
        DataError: there is no picture, or a rendering without one part or all is missing.
    """
    rows = []
    for index in indices:
        scene = Scene(birds, index)
        truth, composed = scene.with_parts(())
        if composed:
            raise DataError(f"{birds.paths[index]} is not rendered without its parts")
        pictures = scene.compose((), bare=False), scene.whole
        rows.append([value for picture in pictures for value in _differences(picture, truth)])
    if not rows:
        raise DataError("the error of compositions needs at least one picture")
    near, differing, far, whole_differing = np.mean(rows, axis=0).tolist()
    return CompositionError(near, differing, far, whole_differing, len(rows))


def _differences(one: Picture, other: Picture) -> tuple[float, float]:
    gap = np.abs(one.astype(np.int16) - other)
    return float(gap.mean()), float((gap.max(axis=2) > DIFFERS).mean())
