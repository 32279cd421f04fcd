"""Names that the parts or objects of a data set suggest, with the evidence; people decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.data.datasets.base import ImageDataset, ImageSubset, Sample
from torchxnn.metrics.locality import RelevanceHistograms
from torchxnn.metrics.part_weights import (
    CONTEXT,
    PixelWeights,
    pixel_weights_masks,
    pixel_weights_voronoi,
)

SHOWN, LEAST_SHARE, LEAST_RATIO = 3, 0.10, 1.5
_RESAMPLES = 2  # the interval is not used


@dataclass(frozen=True)
class Suggestion:
    """A part or object on which an x-feature's relevance lies.

    Attributes:
        name: of the part.
        share: of the x-feature's relevance, a fraction.
        ratio: share divided by that of a uniform map on the same images.
        images: images that were measured.
    """

    name: str
    share: float
    ratio: float
    images: int

    @property
    def evidence(self) -> str:
        """In words: "42% of its relevance lies on it, 3.1 times a uniform map, 20 images"."""
        return (
            f"{self.share:.0%} of its relevance lies on it, {self.ratio:.1f} times a uniform map, "
            f"{self.images} images"
        )


def place_names(dataset: ImageDataset) -> tuple[str, ...]:
    """Names of the parts (with the context as last) or objects of a data set; empty without."""
    while isinstance(dataset, ImageSubset):
        dataset = dataset.dataset
    parts = getattr(dataset, "part_names", None)
    if parts:
        return (*parts, CONTEXT)
    return tuple(getattr(dataset, "object_names", ())[1:])  # number 0 is void


def suggest(
    maps: Sequence[Float[Tensor, "height width"]], samples: Sequence[Sample], names: tuple[str, ...]
) -> tuple[Suggestion, ...]:
    """The places with most relevance of one x-feature, if it is more than a uniform map has there.

    The images, with a map each, have parts and box, or masks; others are left out. `names` are
    those of `place_names`.

    Returns:
        At most 3 by falling share, each with at least 10% of the relevance and 1.5 times as much
        as a uniform map. What lies outside of the object is never suggested.
    """
    histograms, images = RelevanceHistograms(1, names or ("nothing",)), 0
    for heatmap, sample in zip(maps, samples, strict=True):
        weights = _weights(sample, len(names))
        if weights is not None and bool((heatmap > 0).any()):
            histograms.update(heatmap[None, None], [weights])
            images += 1
    if not images:
        return ()
    found = histograms.result(resamples=_RESAMPLES)
    share = torch.tensor(found.histogram[0]).nan_to_num()
    chance = torch.tensor(found.chance_histogram).nan_to_num()
    share, chance = share / share.sum().clamp(min=1e-12), chance / chance.sum().clamp(min=1e-12)
    ranked = [
        Suggestion(name, float(s), float(s / c), images)
        for name, s, c in zip(names, share, chance, strict=True)
        if name != CONTEXT and s >= LEAST_SHARE and c > 0 and s / c >= LEAST_RATIO
    ]
    return tuple(sorted(ranked, key=lambda each: -each.share)[:SHOWN])


def _weights(sample: Sample, places: int) -> PixelWeights | None:
    size = (int(sample.image.shape[1]), int(sample.image.shape[2]))
    if sample.parts is not None and sample.box is not None:
        return pixel_weights_voronoi(sample.parts, sample.box, size)
    if sample.masks is not None:
        return pixel_weights_masks(sample.masks, places)
    return None
