"""Which images a class's pages show."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.apps.atlas.config import AtlasConfig
from torchxnn.apps.gallery import FeatureImages, choose_examples, choose_for_feature, choose_typical


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
        contributions: (M, n), v E to the target that each x-feature matters most for.
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
