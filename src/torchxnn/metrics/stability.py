"""Whether a refit with another seed finds the same x-features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.embeddings.matching import constant, feature_correlation, match_features
from torchxnn.errors import DataError

_SHUFFLES = 20


@dataclass(frozen=True)
class Stability:
    """Agreement of the x-features of several fits, matched pair by pair of fits.

    Attributes:
        value: mean matched similarity over all pairs of fits and all n x-features; higher is
            better, 1 if every fit finds the same x-features up to order (and, for correlations of
            E, up to scale).
        chance: the same after the images of one fit of each pair were shuffled, which the matching
            keeps above 0; mean of 20 seeded shuffles. None where only similarities were given.
        fits: the two fits of every pair.
        per_pair: mean matched similarity of every pair.
        matched: similarity of every x-feature of the first fit to its match in the second.
        matches: index of that match.
        dead: x-features of every fit that do not vary and so correlate with nothing; empty where
            only similarities were given.
    """

    value: float
    chance: float | None
    fits: tuple[tuple[int, int], ...]
    per_pair: tuple[float, ...]
    matched: tuple[tuple[float, ...], ...]
    matches: tuple[tuple[int, ...], ...]
    dead: tuple[tuple[int, ...], ...]


def measure_stability(
    features: Sequence[Float[Tensor, "images features"]], seed: int = 0
) -> Stability:
    """Match the x-features of all pairs of fits by the correlation of their values.

    Args:
        features: E of every fit, (M, n) each, on the same images in the same order. On the
            positives alone it says whether the same concepts are found; over all images every
            x-feature of a class correlates with every other, because it is on for that class.
        seed: of the shuffles of the chance level.

    Raises:
        DataError: fewer than 2 fits, or other numbers of images or x-features.
        NonFiniteError: a value is NaN or infinite.

    Example:
        >>> measure_stability([xnn(images) for xnn in refits]).value
    """
    widths = {one.shape[1] for one in features}
    if len(widths) > 1:
        raise DataError(f"fits to match must have as many x-features each, got {sorted(widths)}")
    pairs = list(combinations(range(len(features)), 2))
    similarities = [feature_correlation(features[i], features[j]) for i, j in pairs]
    generator = torch.Generator().manual_seed(seed)
    chance = [
        _shuffled(features[i], features[j], generator) for i, j in pairs for _ in range(_SHUFFLES)
    ]
    return _stability(
        pairs,
        similarities,
        chance=sum(chance) / max(1, len(chance)),
        dead=tuple(tuple(constant(one).nonzero().flatten().tolist()) for one in features),
    )


def stability_of(similarities: Sequence[Float[Tensor, "features features"]]) -> Stability:
    """Match the x-features of all pairs of fits by given similarities.

    To match by the correlation of maps, give the maps of all R fits to one `MapCovariance` of R n
    x-features; the blocks of `correlation(covariance)` are the similarities: (n, n) of the pairs of
    fits (0, 1), (0, 2), ..., (1, 2), ...; rows belong to the first of the pair.

    Raises:
        DataError: not a number of pairs, or no x-features.
        NonFiniteError: a similarity is NaN or infinite.
    """
    fits = 2
    while fits * (fits - 1) // 2 < len(similarities):
        fits += 1
    pairs = list(combinations(range(fits), 2))
    if len(pairs) != len(similarities):
        raise DataError(
            f"{len(similarities)} similarities are not those of all pairs of some number of fits "
            "(2 fits have 1, 3 have 3, 4 have 6, 5 have 10)"
        )
    return _stability(pairs, similarities, chance=None, dead=())


def _stability(
    pairs: Sequence[tuple[int, int]],
    similarities: Sequence[Float[Tensor, "features features"]],
    chance: float | None,
    dead: tuple[tuple[int, ...], ...],
) -> Stability:
    if not pairs:
        raise DataError("stability needs at least 2 fits")
    matches = tuple(match_features(similarity) for similarity in similarities)
    matched = tuple(
        tuple(float(similarity[row, column]) for row, column in enumerate(match))
        for similarity, match in zip(similarities, matches, strict=True)
    )
    per_pair = tuple(sum(row) / len(row) for row in matched)
    return Stability(
        value=sum(per_pair) / len(per_pair),
        chance=chance,
        fits=tuple(pairs),
        per_pair=per_pair,
        matched=matched,
        matches=matches,
        dead=dead,
    )


def _shuffled(
    first: Float[Tensor, "images features"],
    second: Float[Tensor, "images features"],
    generator: torch.Generator,
) -> float:
    order = torch.randperm(len(second), generator=generator).to(second.device)
    similarity = feature_correlation(first, second[order])
    match = match_features(similarity)
    return float(similarity[range(len(match)), match].mean())
