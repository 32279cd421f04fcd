"""Altered copies of pictures: an XNN learns from the network's outputs, so they cost no labels."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.data.datasets.base import ImageDataset, ImageSubset, Sample
from torchxnn.data.positives import split_kinds
from torchxnn.errors import DataError

SMALLEST_CROP = 0.25
"""Least share of the picture's area that a copy shows."""
LARGEST_BLEND = 0.5
"""Largest share of another picture in a copy."""


@final
class AugmentedImages(ImageDataset):
    """Copies of every picture: a random part, perhaps mirrored, perhaps blended with another one.

    A network knows the pictures that it was trained on too well: nearly all of its logits there are
    extreme. Copies on which it is less sure teach an XNN the values between. Each shows a random
    part of 25% to 100% of the area (sides 3:4 to 4:3), resized to the network's input; half of them
    are mirrored, half blended with up to 50% of another picture. Parts are large and blends weak as
    often as not. The same seed gives the same copies.

    With `originals` the pictures themselves come first, then all first copies, and so on: index i
    belongs to picture i modulo their number. A copy carries the label of its picture; parts, boxes
    and masks are left out.

    Args:
        dataset: the pictures.
        copies: altered copies per picture, at least 1.
        originals: whether the pictures themselves come first.
        seed: of the alterations.

    Raises:
        DataError: fewer than 1 copy, or an empty data set.
    """

    def __init__(
        self, dataset: ImageDataset, copies: int, *, originals: bool = True, seed: int = 0
    ) -> None:
        if copies < 1:
            raise DataError(f"copies must be at least 1, got {copies}")
        if len(dataset) == 0:
            raise DataError(f"{dataset.name} has no images")
        self.dataset = dataset
        self.originals = originals
        self.seed = seed
        times = copies + originals
        self.name = f"{dataset.name}, {copies} altered copies"
        self.classes = dataset.classes
        self.preprocessing = dataset.preprocessing
        self.paths = dataset.paths * times
        self.labels = None if dataset.labels is None else dataset.labels * times

    def load(self, index: int) -> Sample:
        """Read a picture and alter it."""
        copy, picture = divmod(index, len(self.dataset))
        sample = self.dataset[picture]
        if self.originals and copy == 0:
            return replace(sample, parts=None, box=None, masks=None)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        image = alter(sample.image, generator)
        other, blended, share = torch.rand(3, generator=generator).tolist()
        if blended < 0.5:
            second = alter(self.dataset[int(other * len(self.dataset))].image, generator)
            image = image.lerp(second, LARGEST_BLEND * share)
        return replace(sample, image=image, parts=None, box=None, masks=None)


@final
class HeldOutCopies(ImageDataset):
    """Pictures with altered copies, first all that is fitted, then all that is held out.

    A share of every class is held out, so that no copy of a held-out picture is fitted.

    Args:
        dataset: the pictures.
        copies: altered copies per picture.
        held_out: share of each class, in (0, 1); at least one picture if it has two.
        seed: of the choice and of the alterations.

    Attributes:
        parts: training and held-out pictures, each with altered copies of their own.
        picture: (M,) which picture of `dataset` each image shows.
        copy: (M,) 0 for the picture itself, then 1 for its first copy and so on.
        held_out: (M,) whether the image belongs to the held-out part.

    Raises:
        DataError: fewer than 1 copy, or too few pictures to hold any out.
    """

    def __init__(self, dataset: ImageDataset, copies: int, held_out: float, seed: int = 0) -> None:
        self.dataset = dataset
        self.share = held_out
        self.seed = seed
        labels = dataset.labels
        kinds = torch.zeros(len(dataset)) if labels is None else torch.tensor(labels)
        chosen = split_kinds(kinds.long(), held_out, seed)
        if not bool(chosen.any()):
            raise DataError(f"{dataset.name} has too few images of every class to hold any out")
        halves = [mask.nonzero().flatten() for mask in (~chosen, chosen)]
        train, validation = (
            AugmentedImages(ImageSubset(dataset, half.tolist()), copies, seed=seed)
            for half in halves
        )
        self.parts = train, validation
        times = torch.arange(copies + 1)
        self.picture = torch.cat([half.repeat(copies + 1) for half in halves])
        self.copy = torch.cat([times.repeat_interleave(len(half)) for half in halves])
        self.held_out = torch.arange(len(self.picture)) >= len(self.parts[0])
        self.name = self.parts[0].name
        self.classes = dataset.classes
        self.preprocessing = dataset.preprocessing
        self.paths = tuple(path for part in self.parts for path in part.paths)
        self.labels = None if labels is None else tuple(labels[i] for i in self.picture.tolist())

    def load(self, index: int) -> Sample:
        """Read an image of either part."""
        train, validation = self.parts
        return train[index] if index < len(train) else validation[index - len(train)]


def alter(
    image: Float[Tensor, "channels *pixels"], generator: torch.Generator
) -> Float[Tensor, "channels *pixels"]:
    """Crop to a random part, resize it back, and mirror it half of the time.

    All slices of a volume alike, in height and width.
    """
    from torchvision.transforms.v2.functional import resized_crop

    height, width = image.shape[-2:]
    area, ratio, right, down, mirror = torch.rand(5, generator=generator).tolist()
    size = SMALLEST_CROP + (1 - SMALLEST_CROP) * area
    stretch = (4 / 3) ** (2 * ratio - 1)
    wide = min(width, round(width * (size * stretch) ** 0.5))
    high = min(height, round(height * (size / stretch) ** 0.5))
    left, top = round(right * (width - wide)), round(down * (height - high))
    part = resized_crop(image, top, left, high, wide, [height, width], antialias=True)
    return part.flip(-1) if mirror < 0.5 else part
