"""Which images a class's pages show."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.apps.atlas.config import AtlasConfig
from torchxnn.apps.report.build import choose_examples, top_images


@dataclass(frozen=True)
class FeatureImages:
    """Rows of the data that one x-feature's page shows.

    Attributes:
        top: where it is largest, descending.
        spaced: positives on which it is active, evenly spaced from its largest value down.
        against: where it speaks most against what the network decided, descending.
    """

    top: tuple[int, ...]
    spaced: tuple[int, ...]
    against: tuple[int, ...]


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

    @property
    def rows(self) -> tuple[int, ...]:
        """All of them, ascending."""
        found = {self.typical, *self.examples}
        for each in self.features:
            found |= {*each.top, *each.spaced, *each.against}
        return tuple(sorted(found))


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
    right = positives & decided
    inside = (right if bool(right.any()) else positives).nonzero().flatten()
    order = inside[logits[inside].argsort(descending=True, stable=True)]
    examples = choose_examples(logits, positives, config.examples) if config.examples else ()
    objection = torch.where(decided.unsqueeze(1), -contributions, contributions)
    return ClassImages(
        typical=int(order[len(order) // 2]),
        examples=examples,
        features=tuple(
            FeatureImages(
                top=top_images(features[:, i], config.top),
                spaced=_spaced(features[:, i], positives, config.spaced),
                against=top_images(objection[:, i], config.against) if config.against else (),
            )
            for i in range(features.shape[1])
        ),
    )


def _spaced(
    feature: Float[Tensor, " rows"], positives: Bool[Tensor, " rows"], count: int
) -> tuple[int, ...]:
    """Positives on which an x-feature is active, evenly spaced by its value."""
    active = (positives & (feature > 0)).nonzero().flatten()
    order = active[feature[active].argsort(descending=True, stable=True)]
    steps = torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()
    return tuple(order[steps].tolist())
