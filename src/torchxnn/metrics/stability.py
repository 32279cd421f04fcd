"""Whether a refit finds the same x-features, and whether they do the same work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from torchxnn.embeddings.exact import exact
from torchxnn.embeddings.matching import constant, feature_correlation, match_features, partial_out
from torchxnn.errors import DataError

SAME = 0.9
"""Correlation from which two x-features of one fit count as one concept; chains join, too."""

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
        concepts: how many concepts each fit has, where x-features that correlate at `SAME` or more
            are one and those that do not vary are none; empty where only similarities were given.
        once: the same as `value` over concepts instead of x-features, so that noisy copies of one
            number count once: the sum over matched concepts divided by the larger number of
            concepts of the two fits. None where only similarities were given.
    """

    value: float
    chance: float | None
    fits: tuple[tuple[int, int], ...]
    per_pair: tuple[float, ...]
    matched: tuple[tuple[float, ...], ...]
    matches: tuple[tuple[int, ...], ...]
    dead: tuple[tuple[int, ...], ...]
    concepts: tuple[int, ...] = ()
    once: float | None = None


def measure_stability(
    features: Sequence[Float[Tensor, "images features"]],
    seed: int = 0,
    without: Float[Tensor, " rows"] | None = None,
) -> Stability:
    """Match the x-features of all pairs of fits by the correlation of their values.

    Args:
        features: E of every fit, (M, n) each, on the same images in the same order; contributions
            instead if an x-feature that speaks against a class is not one that speaks for it. On
            the positives alone it says whether the same concepts are found; over all images every
            x-feature of a class correlates with every other, because it is on for that class.
        seed: of the shuffles of the chance level.
        without: (M,), what is taken out of every x-feature first (`partial_out`), such as the
            logit, with which contributions rise and fall whatever they are about. Shuffles keep it
            in its place.

    Raises:
        DataError: fewer than 2 fits, or other numbers of images or x-features.
        NonFiniteError: a value is NaN or infinite.

    Example:
        >>> measure_stability([xnn(images) for xnn in refits]).value
    """
    widths = {one.shape[1] for one in features}
    if len(widths) > 1:
        raise DataError(f"fits to match must have as many x-features each, got {sorted(widths)}")
    seen = [_left(one, without) for one in features]
    pairs = list(combinations(range(len(seen)), 2))
    similarities = [feature_correlation(seen[i], seen[j]) for i, j in pairs]
    generator = torch.Generator().manual_seed(seed)

    def shuffled(first: int, second: int) -> float:
        order = torch.randperm(len(seen[second]), generator=generator).to(seen[second].device)
        other = _left(seen[second][order], without)
        return _mean_matched(feature_correlation(seen[first], other))

    chance = [shuffled(i, j) for i, j in pairs for _ in range(_SHUFFLES)]
    concepts = [concept_values(one) for one in seen]
    once = [_matched_once(concepts[i], concepts[j]) for i, j in pairs]
    return _stability(
        pairs,
        similarities,
        chance=sum(chance) / max(1, len(chance)),
        dead=tuple(tuple(constant(one).nonzero().flatten().tolist()) for one in seen),
        concepts=tuple(one.shape[1] for one in concepts),
        once=sum(once) / max(1, len(once)),
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
    return _stability(pairs, similarities)


def concept_values(features: Float[Tensor, "images features"]) -> Float[Tensor, "images concepts"]:
    """One column per concept, (M, c) float64: the sum of the standardised x-features of each.

    X-features that correlate at `SAME` or more, also by way of others, are one concept; those that
    do not vary are none.

    Raises:
        DataError: no images.
        NonFiniteError: a value is NaN or infinite.
    """
    correlations = feature_correlation(features, features)
    alive = (~constant(features)).nonzero().flatten().cpu()
    same = (correlations >= SAME)[alive][:, alive]
    count, labels = connected_components(same.numpy(), directed=False)
    columns = features.detach().cpu().double()[:, alive]
    centred = columns - columns.mean(0)
    scaled = centred / centred.norm(dim=0)
    members = torch.nn.functional.one_hot(torch.as_tensor(labels).long(), max(1, count))
    return (scaled @ exact(members))[:, :count]


@dataclass(frozen=True, eq=False)
class Run:
    """What one fit makes of the images that rescale x-features, and of those that judge.

    Attributes:
        fitted: contributions on the training images, (N, n).
        seen: contributions on the test images, (M, n).
        reproduced: the reproduced logit of the test images, (M,); the sum of `seen` and a constant.
    """

    fitted: Float[Tensor, "training features"]
    seen: Float[Tensor, "images features"]
    reproduced: Float[Tensor, " images"]


@dataclass(frozen=True)
class Swap:
    """What a fit loses when an x-feature of another one takes the place of its own.

    Means over the x-features, each swapped alone.

    Attributes:
        r: correlation of the reproduced with the network's logit after the swap; higher is better.
        r_lost: how much higher it was before; lower is better.
        r2_lost: the same of R^2; lower is better.
    """

    r: float
    r_lost: float
    r2_lost: float


def functional_swap(
    first: Run, second: Run, matches: Sequence[int], logit: Float[Tensor, " images"]
) -> Swap:
    """Put the matched x-features of the second fit into the first, one by one.

    Two x-features may correlate little among the positives and still do the same work for the
    logit, or the other way round. The x-feature that comes in is scaled and shifted by least
    squares to the one that goes, on the training images.

    Args:
        first: the fit that loses an x-feature of its own.
        second: the fit whose x-features come in.
        matches: for each x-feature of the first, its match in the second.
        logit: the network's own, of the test images, (M,).

    Raises:
        DataError: numbers of images that differ.
        NonFiniteError: a value is NaN or infinite.
    """
    order = list(matches)
    own, other = exact(first.fitted), exact(second.fitted)[:, order]
    away, around = own - own.mean(0), other - other.mean(0)
    spread = around.square().sum(0)
    slope = torch.where(constant(other), 0.0, (away * around).sum(0) / spread)
    offset = own.mean(0) - slope * other.mean(0)
    come = exact(second.seen)[:, order] * slope + offset
    before = exact(first.reproduced).unsqueeze(1)
    after = before - exact(first.seen) + come
    truth = exact(logit).unsqueeze(1)
    r, kept = (float(feature_correlation(each, truth).mean()) for each in (before, after))
    return Swap(kept, r - kept, float((_r2(before, truth) - _r2(after, truth)).mean()))


def _r2(
    reproduced: Float[Tensor, "images fits"], logit: Float[Tensor, "images one"]
) -> Float[Tensor, " fits"]:
    return 1 - (reproduced - logit).square().sum(0) / (logit - logit.mean()).square().sum()


def _left(
    features: Float[Tensor, "images features"], without: Float[Tensor, " rows"] | None
) -> Float[Tensor, "images features"]:
    return features if without is None else partial_out(features, without)


def _mean_matched(similarity: Float[Tensor, "features others"]) -> float:
    match = match_features(similarity)
    return float(similarity[range(len(match)), match].mean())


def _matched_once(
    first: Float[Tensor, "images concepts"], second: Float[Tensor, "images others"]
) -> float:
    """Sum over the matched concepts of two fits, by the larger of their numbers; 0 for none."""
    fewer, more = sorted((first, second), key=lambda one: one.shape[1])
    if fewer.shape[1] == 0:
        return 0.0
    return _mean_matched(feature_correlation(fewer, more)) * fewer.shape[1] / more.shape[1]


def _stability(
    pairs: Sequence[tuple[int, int]],
    similarities: Sequence[Float[Tensor, "features features"]],
    chance: float | None = None,
    dead: tuple[tuple[int, ...], ...] = (),
    concepts: tuple[int, ...] = (),
    once: float | None = None,
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
        concepts=concepts,
        once=once,
    )
