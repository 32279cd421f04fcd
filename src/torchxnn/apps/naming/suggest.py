"""Names that the parts or objects of a data set suggest, with the evidence; people decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
        share: of the x-feature's relevance that lies in the part's cell (the pixels of the object
            that are nearer to it than to any other part) or on the object's mask, a fraction.
        ratio: share divided by that of a uniform map on the same images.
        images: images with a map on which the part is visible; the figures are means over them.
        score: relevance of the cell weighted by nearness to the part, see `pixel_weights_voronoi`,
            which suggestions are ranked by; None with masks, where it is the share.
    """

    name: str
    share: float
    ratio: float
    images: int
    score: float | None = None

    @property
    def evidence(self) -> str:
        """In words, as "42% of its relevance lies on it, 3.1 times a uniform map, 20 images"."""
        where = "lies on it" if self.score is None else "lies nearer to it than to any other part"
        count = f"{self.images} image{'s' * (self.images != 1)}"
        said = f"{self.share:.0%} of its relevance {where}, {self.ratio:.1f} times a uniform map"
        if self.score is None:
            return f"{said}, {count}"
        return f"{said}, {count}; ranked by its nearness-weighted score, {self.score:.2f}"


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
        At most 3 by falling score, each with at least 10% of the relevance and 1.5 times as much
        as a uniform map. What lies outside of the object is never suggested.
    """
    cells, scores = (RelevanceHistograms(1, names or ("nothing",)) for _ in range(2))
    graded, images = False, 0
    for heatmap, sample in zip(maps, samples, strict=True):
        weights = _weights(sample, len(names))
        if weights is not None and bool((heatmap > 0).any()):
            cells.update(heatmap[None, None], [weights.cells()])
            scores.update(heatmap[None, None], [weights])
            graded |= sample.masks is None
            images += 1
    if not images:
        return ()
    found = cells.result(resamples=_RESAMPLES)
    score = scores.result(resamples=_RESAMPLES).histogram[0]
    ranked = [
        Suggestion(name, share, share / chance, count, weighted if graded else None)
        for name, share, weighted, chance, count in zip(
            names, found.histogram[0], score, found.chance_histogram, found.measured, strict=True
        )
        if name != CONTEXT and share >= LEAST_SHARE and share >= LEAST_RATIO * chance > 0
    ]
    falling = sorted(ranked, key=lambda each: -(each.share if each.score is None else each.score))
    return tuple(falling[:SHOWN])


def _weights(sample: Sample, places: int) -> PixelWeights | None:
    size = (int(sample.image.shape[1]), int(sample.image.shape[2]))
    if sample.parts is not None and sample.box is not None:
        return pixel_weights_voronoi(sample.parts, sample.box, size)
    if sample.masks is not None:
        return pixel_weights_masks(sample.masks, places)
    return None
