"""Carry names of x-features over to a refitted XNN, where the same x-feature was found again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.errors import DataError
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.metrics.stability import feature_correlation, match_features

THRESHOLD = 0.7
"""Correlation from which a matched x-feature counts as the same."""

MINIMUM_IMAGES = 10


@dataclass(frozen=True)
class Match:
    """An x-feature of an earlier fit, and the one that it was matched with.

    Attributes:
        old: 0-based x-feature of the earlier fit.
        new: 0-based x-feature of the new fit; None if it has fewer x-features and none was left.
        correlation: of their values on the images; 0 without a match.
        name: agreed name of the old one; empty if it had none.
        adopted: whether its judgements were carried over.
    """

    old: int
    new: int | None
    correlation: float
    name: str
    adopted: bool


@dataclass(frozen=True)
class Adoption:
    """What became of the names of an earlier fit.

    Attributes:
        matches: one per x-feature of the earlier fit.
        threshold: correlation that was needed.
        images: number of images that were compared.
    """

    matches: tuple[Match, ...]
    threshold: float
    images: int

    @property
    def lost(self) -> tuple[Match, ...]:
        """x-features with an agreed name that were not found again."""
        return tuple(match for match in self.matches if match.name and not match.adopted)

    def summary(self) -> str:
        """One line per x-feature of the earlier fit."""
        lines = []
        for match in self.matches:
            name = match.name or "no agreed name"
            found = "no x-feature left" if match.new is None else f"x-feature {match.new + 1}"
            kept = "carried over" if match.adopted else f"not carried over (below {self.threshold})"
            kept = kept if match.new is not None else "not carried over"
            lines.append(
                f"x-feature {match.old + 1} ({name}) -> {found}, correlation "
                f"{match.correlation:.2f}: {kept}"
            )
        return "\n".join(lines)


def carry_over(
    names: FeatureNames,
    old: Float[Tensor, "images old"],
    new: Float[Tensor, "images new"],
    threshold: float = THRESHOLD,
) -> tuple[FeatureNames, Adoption]:
    """Match two fits' x-features, and keep the records of those that are the same.

    The assignment makes the sum of correlations largest (`metrics.match_features`); a pair below
    the threshold is not the same x-feature and keeps nothing.

    Args:
        names: of the earlier fit.
        old: its x-features E on some images, best positives: over all images every x-feature of a
            class correlates with every other.
        new: those of the new fit on the same images.
        threshold: in (0, 1].

    Returns:
        The names of the new fit, and what became of each old x-feature.

    Raises:
        DataError: fewer than 10 images, or a threshold out of range.
    """
    if not 0 < threshold <= 1:
        raise DataError(f"threshold is {threshold}; a correlation above 0 and at most 1 is needed")
    if len(old) < MINIMUM_IMAGES:
        raise DataError(
            f"{len(old)} image(s) are too few to tell whether x-features are the same; give at "
            f"least {MINIMUM_IMAGES} positives"
        )
    found = feature_correlation(old, new)
    size = max(found.shape)
    square = torch.zeros(size, size, dtype=found.dtype)  # what is matched with padding is left out
    square[: found.shape[0], : found.shape[1]] = found
    matches = []
    for i, j in enumerate(match_features(square)[: names.n_features]):
        there = j < found.shape[1]
        value = float(found[i, j]) if there else 0.0
        matches.append(Match(i, j if there else None, value, names.agreed(i), value >= threshold))
    kept = {m.old: m for m in matches if m.adopted and m.new is not None}
    return (
        _renumbered(names, kept, new.shape[1]),
        Adoption(tuple(matches), threshold, len(old)),
    )


def _renumbered(names: FeatureNames, kept: dict[int, Match], n_features: int) -> FeatureNames:
    judgements, actions = [], []
    for judgement in names.judgements:
        if judgement.feature in kept:
            match = kept[judgement.feature]
            origin = (
                f"x-feature {match.old + 1} of an earlier fit, correlation {match.correlation:.2f}"
            )
            judgements.append(replace(judgement, feature=_new(match), origin=origin))
    for action in names.actions:
        if action.feature in kept:
            actions.append(replace(action, feature=_new(kept[action.feature])))
    return FeatureNames(n_features, tuple(judgements), tuple(actions))


def _new(match: Match) -> int:
    if match.new is None:
        raise DataError(f"x-feature {match.old} has no match")
    return match.new
