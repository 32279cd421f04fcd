"""Images of a few coloured shapes, drawn from a seed: everything about them is known.

They are what `models.planted` was built for. A class shows the things that its logit is the sum of
more often than other images do, things that belong together on the same images, and one that its
logit ignores. Distractors are of a colour and a shape that the network knows, but not together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Real, UInt8
from torch import Tensor

from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.errors import DataError
from torchxnn.models.planted import (
    ALWAYS,
    CLASSES,
    COLOURS,
    PREPROCESSING,
    SHAPES,
    SIZE,
    THING_NAMES,
    THINGS,
    TOGETHER,
    WINDOW,
    Thing,
    shape_mask,
)

_SPLITS = ("train", "test")
OFTEN = 0.8
"""How often an image of a class shows what speaks for it, and the thing that is spurious there."""
AGAINST = 0.3
"""How often an image of a class shows what speaks against it."""
ELSEWHERE = 0.15
"""How often an image shows any other thing."""
SHARED = 0.8
"""How often one draw decides on two things that occur together."""

DISTRACTORS = tuple(
    thing
    for colour in COLOURS
    for shape in SHAPES
    if shape != "floor" and (thing := Thing(colour, shape)) not in THINGS
)
"""Things that no detector answers to; an image shows none, one or two."""

_CELLS = 3  # per row and column
_CELL = 22  # pixels
_LEFT = (SIZE - _CELLS * _CELL) // 2
_JITTER = 2
_FLOOR_ROW = 73
_OPACITY = (0.85, 1.0)
_TEXTURE = 2 * SIZE  # side of the texture that backgrounds are cut from
_FLOOR = THING_NAMES.index(ALWAYS)
_MASKS = np.stack([shape_mask(shape).numpy() for shape in SHAPES])
_COVERED = _MASKS >= 0.5


@final
class PlantedShapes(ImageDataset):
    """Images of 76 x 76 pixels with values from 0 to 1, each made when it is asked for.

    The same arguments give the same images. `Sample.masks` has the number of the thing that each
    pixel belongs to, from 1; distractors have the number after the last thing's. `Sample.parts` are
    the middles of the things.

    Args:
        images: how many; a third of each class.
        seed: of everything.
        split: "test" images are other ones of the same kind.

    Attributes:
        present: (M, P), which image shows which thing of `THING_NAMES`.
        boxes: (M, P, 4), x, y, width and height of each thing; 0 where it is not.
        object_names: by number in `Sample.masks`.
        part_names: of the things.

    Raises:
        DataError: no images, or no such split.
    """

    def __init__(self, images: int = 2000, seed: int = 0, split: str = "train") -> None:
        if images < 1:
            raise DataError(f"there must be at least 1 planted image, got {images}")
        if split not in _SPLITS:
            raise DataError(f"split must be train or test, got {split!r}")
        self.name = f"planted shapes ({split})"
        self.classes = tuple(each.name for each in CLASSES)
        self.preprocessing = PREPROCESSING
        self.paths = tuple(f"{split}/{index:05d}" for index in range(images))
        self.part_names = THING_NAMES
        self.object_names = ("background", *THING_NAMES, "distractor")
        generator = np.random.default_rng([seed, _SPLITS.index(split)])
        labels = generator.permutation(images) % len(CLASSES)
        self.labels: tuple[int, ...] = tuple(labels.tolist())
        self._draw_scenes(labels, generator)

    def _draw_scenes(self, labels: Any, generator: np.random.Generator) -> None:
        """What is where: things in the first slots, in their order, then two distractors."""
        images, things = len(labels), len(THINGS) - 1  # the floor has a place of its own
        chance = generator.random((images, things))
        for first, second in TOGETHER:
            one, other = THING_NAMES.index(first), THING_NAMES.index(second)
            shared = generator.random(images) < SHARED
            chance[shared, other] = chance[shared, one]
        shown = chance < _probabilities()[labels]
        strangers = generator.integers(0, 3, images)[:, None] > np.arange(2)
        on = np.concatenate([shown, strangers], 1)
        # of more things than there are cells, chance leaves some out, distractors first
        order = np.where(on, generator.random(on.shape), 2.0)
        order[:, things:] += 1.0
        rank = order.argsort(1).argsort(1)
        self._on = on & (rank < _CELLS**2)
        free = generator.permuted(np.tile(np.arange(_CELLS**2), (images, 1)), axis=1)
        cell = np.take_along_axis(free, np.minimum(rank, _CELLS**2 - 1), 1)
        jitter = generator.integers(-_JITTER, _JITTER + 1, (images, on.shape[1], 2))
        corner = np.stack([cell // _CELLS * _CELL, cell % _CELLS * _CELL + _LEFT], 2)
        self._centres = corner + _CELL // 2 + jitter  # row, column
        kinds = np.tile(np.arange(things), (images, 1))
        stranger = generator.integers(0, len(DISTRACTORS), (images, 2)) + len(THINGS)
        self._kinds = np.concatenate([kinds, stranger], 1)
        self._opacity = generator.uniform(*_OPACITY, on.shape)
        self._brightness = generator.uniform(0.4, 0.6, images)
        self._texture = _draw_texture(generator)
        self._offset = generator.integers(0, _TEXTURE - SIZE, (images, 2))

    @property
    def present(self) -> Bool[Tensor, "images things"]:
        """Which image shows which thing."""
        shown = torch.from_numpy(self._on[:, : len(THINGS) - 1])
        return torch.cat([shown, torch.ones(len(shown), 1, dtype=torch.bool)], 1)

    @property
    def boxes(self) -> Float[Tensor, "images things 4"]:
        """Where the things are: x, y, width, height in pixels, 0 where a thing is not."""
        found = torch.zeros(len(self), len(THINGS), 4)
        corner = torch.from_numpy(self._centres[:, : len(THINGS) - 1] - WINDOW // 2).flip(2)
        found[:, :_FLOOR, :2] = corner.float()
        found[:, :_FLOOR, 2:] = WINDOW
        found[:, _FLOOR] = torch.tensor([0.0, _FLOOR_ROW - 2, SIZE, 5])
        return found * self.present.unsqueeze(2)

    def render(
        self, indices: Sequence[int], without: Sequence[int] | None = None
    ) -> Float[Tensor, "images 3 height width"]:
        """Images by index, all else equal without one thing each.

        Args:
            indices: of the images, (B,).
            without: the number of the thing in `THING_NAMES` that is left out of each, (B,); the
                image is what it is if it does not show it. None leaves nothing out.
        """
        index = np.asarray(indices, dtype=np.int64)
        left_out = np.full(len(index), -1) if without is None else np.asarray(without)
        pictures = self._background(index)
        floor = np.where(left_out == _FLOOR, 0.0, 1.0)[:, None, None, None]
        low = pictures[:, _FLOOR_ROW - WINDOW // 2 :]
        cover = _MASKS[SHAPES.index("floor")][: low.shape[1], :1, None] * floor
        low += cover * (np.array(COLOURS["cyan"]) - low)
        for slot in range(self._on.shape[1]):
            kept = (left_out != slot) | (slot >= _FLOOR)  # nobody leaves a distractor out
            at = np.flatnonzero(self._on[index, slot] & kept)
            rows, columns = self._window(index[at], slot)
            colour, shape = _LOOKS[self._kinds[index[at], slot]].T
            cover = _MASKS[shape] * self._opacity[index[at], slot][:, None, None]
            place = at[:, None, None], rows, columns
            pictures[place] += cover[..., None] * (_RGB[colour][:, None, None, :] - pictures[place])
        quantised = (pictures * 255).round() / 255  # what a file of 8 bits would hold
        return torch.from_numpy(quantised.astype(np.float32)).permute(0, 3, 1, 2).contiguous()

    def mask(self, index: int) -> Int64[Tensor, "height width"]:
        """The number of the thing of every pixel; see `Sample.masks`."""
        found = np.zeros((SIZE, SIZE), dtype=np.int64)
        found[_FLOOR_ROW - 2 : _FLOOR_ROW + 3] = _FLOOR + 1
        for slot in np.flatnonzero(self._on[index]).tolist():
            rows, columns = self._window(np.array([index]), slot)
            shape = _LOOKS[self._kinds[index, slot]][1]
            number = slot + 1 if slot < _FLOOR else len(THINGS) + 1
            here = found[rows[0], columns[0]]
            found[rows[0], columns[0]] = np.where(_COVERED[shape], number, here)
        return torch.from_numpy(found)

    def load(self, index: int) -> Sample:
        """Draw the image at an index."""
        middles = torch.zeros(len(THINGS), 3)
        middles[:_FLOOR, :2] = torch.from_numpy(self._centres[index, :_FLOOR]).flip(1).float()
        middles[_FLOOR, :2] = torch.tensor([SIZE / 2, _FLOOR_ROW])
        middles[:, 2] = 1.0
        return Sample(
            self.render([index])[0],
            self.labels[index],
            self.paths[index],
            parts=middles * self.present[index].unsqueeze(1),
            masks=self.mask(index),
        )

    def _window(
        self, index: Int64[np.ndarray, " images"], slot: int
    ) -> tuple[Int64[np.ndarray, "images window 1"], Int64[np.ndarray, "images 1 window"]]:
        around = np.arange(WINDOW) - WINDOW // 2
        centre = self._centres[index, slot]
        return centre[:, 0, None, None] + around[:, None], centre[:, 1, None, None] + around

    def _background(
        self, index: Int64[np.ndarray, " images"]
    ) -> Real[np.ndarray, "images height width 3"]:
        top, left = self._offset[index].T[:, :, None] + np.arange(SIZE)
        grey = self._texture[top[:, :, None], left[:, None, :]]
        grey = grey + self._brightness[index][:, None, None]
        return np.repeat(grey[..., None], 3, axis=3)


def picture_of_thing(thing: int) -> UInt8[np.ndarray, "height width 3"]:
    """A thing of `THING_NAMES` alone on grey."""
    look = THINGS[thing]
    cover = _MASKS[SHAPES.index(look.shape)][..., None]
    pixels = 0.5 + cover * (np.array(COLOURS[look.colour]) - 0.5)
    return (pixels * 255).round().astype(np.uint8)


_RGB = np.array(list(COLOURS.values()))
_LOOKS = np.array(
    [
        (list(COLOURS).index(thing.colour), SHAPES.index(thing.shape))
        for thing in (*THINGS, *DISTRACTORS)
    ]
)
"""Colour and shape of every kind of thing."""


def _probabilities() -> Real[np.ndarray, "classes things"]:
    """How often an image of a class shows a thing, but for the floor."""
    return np.array(
        [
            [
                OFTEN
                if each.weights.get(name, 0.0) > 0 or name == each.spurious
                else AGAINST
                if name in each.weights
                else ELSEWHERE
                for name in THING_NAMES
                if name != ALWAYS
            ]
            for each in CLASSES
        ]
    )


def _draw_texture(generator: np.random.Generator) -> Real[np.ndarray, "side side"]:
    """Soft patches and grain around 0, at most 0.15 in size."""
    coarse = torch.from_numpy(generator.standard_normal((1, 1, 18, 18)))
    soft = torch.nn.functional.interpolate(coarse, (_TEXTURE, _TEXTURE), mode="bilinear")
    grain = generator.standard_normal((_TEXTURE, _TEXTURE))
    found: Real[np.ndarray, "side side"] = (0.05 * soft[0, 0].numpy() + 0.02 * grain).clip(
        -0.15, 0.15
    )
    return found
