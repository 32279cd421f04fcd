"""Which images a page shows of a class and of an x-feature, and their heatmaps.

Report, atlas, naming page, benchmark and check choose here, so that "most active", "evenly spaced"
and "against the prediction" mean the same on each of their pages. Of equal values the earlier image
comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.xnn import XNN

Item = TypeVar("Item")


@dataclass(frozen=True)
class FeatureImages:
    """The images that are shown of one x-feature, as rows of the data.

    Attributes:
        top: those on which it is largest, descending.
        spaced: positives on which it is active, evenly spaced from its largest value down.
        against: those on which it speaks most against what the network predicts, descending.
    """

    top: tuple[int, ...]
    spaced: tuple[int, ...]
    against: tuple[int, ...]


def evenly_spaced(items: Sequence[Item], most: int | None) -> list[Item]:
    """At most so many of the items, evenly spaced from the first to the last; None takes all."""
    if most is None or len(items) <= most:
        return list(items)
    last, steps = len(items) - 1, max(1, most - 1)
    return [items[round(step * last / steps)] for step in range(most)]


def ranked(
    values: Float[Tensor, " rows"], among: Bool[Tensor, " rows"] | None = None
) -> tuple[int, ...]:
    """All rows, or those of a mask, by decreasing value."""
    order = values.argsort(descending=True, stable=True)
    return tuple((order if among is None else order[among[order]]).tolist())


def largest(
    values: Float[Tensor, " rows"], count: int, among: Bool[Tensor, " rows"] | None = None
) -> tuple[int, ...]:
    """At most so many rows, all or of a mask, by decreasing value; never those that are not > 0."""
    above = values > 0
    return ranked(values, above if among is None else above & among)[:count]


def choose_examples(
    logits: Float[Tensor, " rows"], positives: Bool[Tensor, " rows"], count: int
) -> tuple[int, ...]:
    """Positives evenly spaced from the highest logit to the lowest, then the nearest other image.

    Args:
        logits: (M,) of the target.
        positives: (M,) mask.
        count: how many in all; the last one is the non-positive with the highest logit, if there is
            one and `count` is at least 2.
    """
    nearest = ranked(logits, ~positives)[:1] if count > 1 else ()
    return (*evenly_spaced(ranked(logits, positives), count - len(nearest)), *nearest)


def choose_typical(
    logits: Float[Tensor, " rows"],
    positives: Bool[Tensor, " rows"],
    predicted: Bool[Tensor, " rows"],
) -> int:
    """The positive with the median logit, if possible one that the network recognises.

    Args:
        logits: (M,) of the target.
        positives: (M,) mask; at least one.
        predicted: (M,), whether the network predicts the target.
    """
    right = positives & predicted
    order = ranked(logits, right if bool(right.any()) else positives)
    return order[len(order) // 2]


def choose_for_feature(
    activation: Float[Tensor, " rows"],
    contribution: Float[Tensor, " rows"],
    positives: Bool[Tensor, " rows"],
    predicted: Bool[Tensor, " rows"],
    counts: tuple[int, int, int],
    *,
    repeat: bool,
) -> FeatureImages:
    """Choose the images of one x-feature; those on which it is not active are never among them.

    An x-feature speaks against the prediction where it has a positive contribution to a target that
    the network does not predict, or a negative one to a target that it predicts.

    Args:
        activation: E, (M,).
        contribution: to the logit of the target that it matters most for, (M,).
        positives: which images are of that target, (M,).
        predicted: for which images the network predicts that target, (M,).
        counts: at most how many images are `top`, `spaced` and `against`.
        repeat: whether an image may be in several groups. The atlas shows the whole range of values
            from its largest on; who names an x-feature is shown further images instead.
    """
    top, spaced, against = counts
    shown = largest(activation, top)
    free = torch.ones_like(positives)
    if not repeat:
        free[list(shown)] = False
    middle = evenly_spaced(largest(activation, len(activation), positives & free), spaced)
    if not repeat:
        free[middle] = False
    objection = torch.where(predicted, -contribution, contribution)
    return FeatureImages(
        top=shown,
        spaced=tuple(middle),
        against=largest(objection, against, free & (activation > 0)),
    )


def heatmaps(
    xnn: XNN,
    dataset: ImageDataset,
    rows: Sequence[int],
    at_once: int = 8,
    method: str | None = None,
) -> Iterator[tuple[int, Sample, Float[Tensor, "features *map"]]]:
    """Images with the signed heatmaps of all x-features, on the CPU, in the order of `rows`.

    Args:
        xnn: fitted.
        dataset: of the images.
        rows: which images.
        at_once: images per pass of the model; their maps are in memory together.
        method: name in `METHODS`; None takes `default_method`.
    """
    for start in range(0, len(rows), at_once):
        block = rows[start : start + at_once]
        samples = [dataset[row] for row in block]
        images = torch.stack([sample.image for sample in samples])
        maps = xnn.attribute(images.to(xnn.device), method).cpu()
        yield from zip(block, samples, maps, strict=True)
