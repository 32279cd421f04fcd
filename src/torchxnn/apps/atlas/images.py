"""Which images of one class are shown, and as WebP files, made smaller until they fit a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from torchxnn.apps.atlas.config import AtlasConfig
from torchxnn.apps.gallery import (
    FeatureImages,
    choose_examples,
    choose_for_feature,
    choose_typical,
    heatmaps,
)
from torchxnn.attribution.base import contrast_mass
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.errors import DataError
from torchxnn.explanations.alike import correlate
from torchxnn.explanations.card import strength
from torchxnn.explanations.drawing.encode import encode, shrink
from torchxnn.explanations.drawing.overlay import intensities, overlay
from torchxnn.xnn import XNN

AT_ONCE = 4  # images per pass of the model
STEPS = ((1.0, 78), (0.9, 68), (0.8, 58), (0.65, 50), (0.5, 40))
"""Shares of the side and qualities of WebP that are tried in turn."""

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class ClassImages:
    """Rows of the data that a class's pages show.

    Attributes:
        typical: a positive with the median logit, if possible one that the network gets right.
        examples: positives from the highest logit to the lowest, and the nearest other image.
        features: per x-feature.
    """

    typical: int
    examples: tuple[int, ...]
    features: tuple[FeatureImages, ...]


def choose_images(
    logits: Float[Tensor, " rows"],
    positives: Bool[Tensor, " rows"],
    decided: Bool[Tensor, " rows"],
    features: Float[Tensor, "rows features"],
    contributions: Float[Tensor, "rows features"],
    config: AtlasConfig,
) -> ClassImages:
    """Choose the images of one class.

    Args:
        logits: (M,) of the first target.
        positives: (M,), images of the class; at least one.
        decided: (M,), whether the network predicts the class.
        features: E, (M, n).
        contributions: (M, n), to the target that each x-feature matters most for.
        config: how many.
    """
    counts = config.top, config.spaced, config.against
    return ClassImages(
        typical=choose_typical(logits, positives, decided),
        examples=choose_examples(logits, positives, config.examples),
        features=tuple(
            choose_for_feature(
                features[:, i], contributions[:, i], positives, decided, counts, repeat=True
            )
            for i in range(features.shape[1])
        ),
    )


def image_name(row: int) -> str:
    """File of an image."""
    return f"p{row}.webp"


def map_name(row: int, feature: int) -> str:
    """File of an x-feature's map on an image."""
    return f"m{row}-{feature + 1}.webp"


def feature_page(feature: int) -> str:
    """File of an x-feature's page."""
    return f"x-feature-{feature + 1}.html"


def draw_images(
    xnn: XNN, dataset: ImageDataset, wanted: Mapping[int, Sequence[int]], side: int
) -> tuple[dict[str, Picture], dict[int, Float[np.ndarray, "features features"]], dict[str, str]]:
    """Images and maps by file name, how far maps agree, and in words how strong each is.

    One pass of the model per image gives the maps of all x-features. How far they agree is kept per
    image, as drawn; one whose map is not needed has correlation 0 with the others.

    Args:
        xnn: fitted.
        dataset: of the images.
        wanted: per row the x-features whose maps are needed; may be none.
        side: of the longer side, in pixels.
    """
    seen = dataset.preprocessing.picture
    drawn = {
        image_name(row): shrink(seen(dataset[row].image), side) for row in wanted if not wanted[row]
    }
    strengths: dict[str, str] = {}
    mapped = sorted(row for row in wanted if wanted[row])
    agreement = {}
    for row, sample, maps in heatmaps(xnn, dataset, mapped, AT_ONCE):
        image = seen(sample.image)
        drawn[image_name(row)] = shrink(image, side)
        shown = intensities([maps[feature].float().numpy() for feature in wanted[row]])
        for feature, intensity in zip(wanted[row], shown, strict=True):
            drawn[map_name(row, feature)] = shrink(overlay(image, intensity), side)
            mass = float(contrast_mass(maps[None])[0, feature])
            strengths[map_name(row, feature)] = strength(mass)
        agreement[row] = np.eye(len(maps))
        agreement[row][np.ix_(wanted[row], wanted[row])] = correlate(shown)
    return drawn, agreement, strengths


def encode_images(drawn: Mapping[str, Picture], room: int) -> dict[str, bytes]:
    """All of them as WebP in at most so many bytes, as large and as good as fits.

    Raises:
        DataError: they do not fit even at the smallest size.
    """
    size, side = 0, max((len(pixels) for pixels in drawn.values()), default=0)
    for share, quality in STEPS:
        longest = round(side * share)
        files = {name: encode(pixels, quality, longest) for name, pixels in drawn.items()}
        size = sum(map(len, files.values()))
        if size <= room:
            return files
    raise DataError(
        f"{len(drawn)} images take {size / 1e6:.2f} MB at the smallest size, and there is room "
        f"for {max(0, room) / 1e6:.2f}: show fewer images or raise the limit"
    )
