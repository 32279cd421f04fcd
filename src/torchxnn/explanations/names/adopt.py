"""Name x-features, and carry names over to another fit where the same x-feature was found."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.data.activations import Activations
from torchxnn.data.positives import find_positives
from torchxnn.data.record import record_activations
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.matching import feature_correlation, match_features
from torchxnn.errors import DataError, XNNWarning
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.explanations.names.records import ANONYMOUS, Flag
from torchxnn.models.attached import NamedXNN

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
        name: name of the old one, one person's or agreed on; empty if it had none.
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
        """x-features with a name that were not found again."""
        return tuple(match for match in self.matches if match.name and not match.adopted)

    def summary(self) -> str:
        """One line per x-feature of the earlier fit."""
        lines = []
        for match in self.matches:
            name = match.name or "no name"
            found = "no x-feature left" if match.new is None else f"x-feature {match.new + 1}"
            below = "" if match.new is None else f" (below {self.threshold})"
            kept = "carried over" if match.adopted else f"not carried over{below}"
            lines.append(
                f"x-feature {match.old + 1} ({name}) -> {found}, correlation "
                f"{match.correlation:.2f}: {kept}"
            )
        return "\n".join(lines)


def name_feature(
    xnn: NamedXNN, index: int, name: str, *, who: str = ANONYMOUS, note: str = "", flag: Flag = ""
) -> None:
    """Note what a person calls an x-feature; every judgement is kept (see `FeatureNames`).

    Args:
        xnn: fitted.
        index: 0-based x-feature.
        name: one line; empty where the person cannot name it.
        who: the person.
        note: anything else.
        flag: "mixed" (several things at once) or "unclear".

    Raises:
        DataError: no such x-feature, or a text that cannot be used.

    Example:
        >>> xnn.name_feature(0, "golden feather", who="Ada")
        >>> xnn.feature_names[0]
        '“golden feather”'
    """
    xnn.names = xnn.names.judge(index, name, who=who, note=note, flag=flag)


def adopt_names(
    xnn: NamedXNN, old: NamedXNN, data: Activations | Iterable[Any], threshold: float = THRESHOLD
) -> Adoption:
    """Take over the names of an earlier fit where the same x-feature was found again.

    x-features are matched by the correlation of their values on the positives; a match below the
    threshold keeps nothing, and the result says so. A refit of the same XNN does this by itself.

    Args:
        xnn: the XNN that gets the names.
        old: the named XNN, of the same targets.
        data: a loader of images with positives, or recorded activations if both XNNs are attached
            to the same layer.
        threshold: correlation from which a matched x-feature counts as the same.

    Raises:
        DataError: other targets, activations of another layer, or fewer than 10 positives.
    """
    if old.targets != xnn.targets:
        raise DataError(f"these XNNs explain classes {old.targets} and {xnn.targets}")
    recorded = isinstance(data, Activations)
    layers = old.attached.name, xnn.attached.name
    if recorded and layers[0] != layers[1]:
        raise DataError(
            f"recorded activations belong to one layer, and these XNNs are attached to "
            f"{layers[0]!r} and {layers[1]!r}; give a loader"
        )
    before, after = [], []
    for batch in [data] if isinstance(data, Activations) else data:
        theirs, mine = (
            batch if recorded else record_activations(each.model, each.name, [batch])
            for each in (old.attached, xnn.attached)
        )
        positives = find_positives(mine, xnn.targets)[0].any(1)
        before.append(apply_embedding(old.fitted(), theirs.z).features[positives])
        after.append(apply_embedding(xnn.fitted(), mine.z).features[positives])
    if not before:
        raise DataError("no images to match x-features on")
    names, adoption = carry_over(old.names, torch.cat(before), torch.cat(after), threshold)
    xnn.names = xnn.names.union(names)
    return adoption


def names_of_refit(
    names: FeatureNames,
    old: Embedding | None,
    new: Embedding,
    data: Activations,
    targets: tuple[int, ...],
) -> FeatureNames | None:
    """The names that a new fit of the same XNN keeps; it warns of those that it has nothing for.

    Args:
        names: of the earlier fit.
        old: its embedding; None if it was fitted to other targets, and no name can stay.
        new: the embedding that replaces it.
        data: the activations that it was fitted to.
        targets: 0-based classes of the new fit.
    """
    kept = None
    lost = tuple(name for i in range(names.n_features) if (name := names.name(i)))
    if old is not None:
        z = data.select(find_positives(data, targets)[0].any(1)).z
        before, after = (apply_embedding(each, z).features for each in (old, new))
        try:
            kept, adoption = carry_over(names, before, after)
            lost = tuple(match.name for match in adoption.lost)
        except DataError:  # too few positives to compare: nothing is carried over
            pass
    if lost:
        warnings.warn(
            f"the new fit has no x-feature like {', '.join(map(repr, lost))}; "
            "the name(s) are gone from this XNN",
            XNNWarning,
            stacklevel=4,
        )
    return kept


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
        matches.append(Match(i, j if there else None, value, names.name(i), value >= threshold))
    kept = {match.old: match for match in matches if match.adopted}
    adoption = Adoption(tuple(matches), threshold, len(old))
    return _renumbered(names, kept, new.shape[1]), adoption


def _renumbered(names: FeatureNames, kept: dict[int, Match], n_features: int) -> FeatureNames:
    """The records of the x-features that were kept, under their new numbers."""
    new = {i: match.new for i, match in kept.items() if match.new is not None}
    origin = {
        i: f"x-feature {i + 1} of an earlier fit, correlation {match.correlation:.2f}"
        for i, match in kept.items()
    }
    judgements = [
        replace(j, feature=new[j.feature], origin=origin[j.feature])
        for j in names.judgements
        if j.feature in new
    ]
    actions = [
        replace(one, feature=new[one.feature]) for one in names.actions if one.feature in new
    ]
    return FeatureNames(n_features, tuple(judgements), tuple(actions))
