"""How the x-features contribute to a class among its own images, and which of them vary alike."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.embeddings.apply import Embedded
from torchxnn.embeddings.exact import exact
from torchxnn.embeddings.matching import feature_correlation, partial_out


@dataclass(frozen=True)
class AmongPositives:
    """The x-features on the positives of one target, against what typical other images get.

    Attributes:
        mean: (n,), mean anchored contribution in logits; a typical other image gets 0, so it says
            by how much the x-feature is larger on the class than elsewhere, or by its sign that it
            is not.
        spread: (n,), its standard deviation over the positives, in logits.
        variation: (n, n), correlation of the x-features' values over the positives with the logit
            taken out, since all that contribute to it rise and fall with it; an x-feature that does
            not vary has correlation 0 with the others, and 1 with itself as every one.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    variation: tuple[tuple[float, ...], ...]


def measure_among_positives(
    embedded: Embedded,
    logits: Float[Tensor, "samples targets"],
    positives: Bool[Tensor, "samples targets"],
) -> tuple[AmongPositives, ...]:
    """Means, spreads and correlations over the positives of every target.

    Args:
        embedded: of the training images, anchored.
        logits: the network's own of the targets, (M, k).
        positives: (M, k); each target has some.
    """
    return tuple(
        _measure(embedded.contributions[mine, k], embedded.features[mine], logits[mine, k])
        for k, mine in enumerate(positives.unbind(1))
    )


def _measure(
    contributions: Float[Tensor, "positives features"],
    features: Float[Tensor, "positives features"],
    logits: Float[Tensor, " positives"],
) -> AmongPositives:
    left, values = partial_out(features, logits), exact(contributions)
    variation = feature_correlation(left, left).fill_diagonal_(1.0)
    return AmongPositives(
        mean=tuple(values.mean(0).tolist()),
        spread=tuple(values.std(0, correction=0).tolist()),
        variation=tuple(tuple(row) for row in variation.tolist()),
    )
