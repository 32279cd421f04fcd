"""What an XNN explains, which images are its positives, how they weigh, which are held out."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.activations import Activations
from torchxnn.errors import DataError
from torchxnn.models.meaning import CLASSES, Meaning
from torchxnn.models.outputs import check_targets, class_of_target, predicted_classes


def default_features(n_targets: int) -> int:
    """X-features if none are asked for: 5 for one target, 7 for several (paper section 4)."""
    return 5 if n_targets == 1 else max(7, n_targets)


def as_targets(target: SupportsIndex | Sequence[SupportsIndex]) -> tuple[int, ...]:
    """One class index or several, of whatever integer type.

    Raises:
        DataError: not integers.
    """
    try:
        return (operator.index(target),)  # type: ignore[arg-type]
    except TypeError:
        pass
    try:
        return tuple(operator.index(t) for t in target)  # type: ignore[union-attr]
    except TypeError as error:
        raise DataError(f"a target is a class index or several, got {target!r}") from error


def target_position(targets: Sequence[int], target: int | None) -> int:
    """Position of a class among those that are explained; None takes the first.

    Raises:
        DataError: the class is not explained.
    """
    if target is None:
        return 0
    if target not in targets:
        raise DataError(f"class {target} is not explained; the targets are {list(targets)}")
    return targets.index(target)


def sample_classes(data: Activations | ActivationCache) -> Int64[Tensor, " samples"]:
    """The class that each sample is a positive of (M,): its label, or else the predicted class."""
    return data.predicted if data.labels is None else data.labels


def sample_kinds(
    data: Activations | ActivationCache, meaning: Meaning
) -> Int64[Tensor, " samples"]:
    """A number for each sample (M,), so that those of one number are alike as positives.

    It is the class; of labels that do not exclude each other the rarest one that the sample has; of
    values whether they are high.
    """
    if meaning.outputs_are == "classes":
        return sample_classes(data)
    mask = all_positives(data, meaning)
    if meaning.outputs_are == "value":
        return mask.any(1).long()
    rarity = torch.where(mask, mask.sum(0), len(mask) + 1)
    return torch.where(mask.any(1), rarity.argmin(1), mask.shape[1])


def all_positives(
    data: Activations | ActivationCache, meaning: Meaning
) -> Bool[Tensor, "samples outputs"]:
    """Which samples are positives of which output of the model, of all its outputs (M, K)."""
    labels = data.labels
    logits = data.logits if isinstance(data, Activations) else None
    if labels is None and logits is None:
        logits = data.logits()  # type: ignore[operator] # of a cache
    return positives_of(labels, logits, range(data.n_outputs), data.n_outputs, meaning)[0]


def positives_of(
    labels: Shaped[Tensor, "samples *columns"] | None,
    logits: Float[Tensor, "samples outputs"] | None,
    targets: Sequence[int],
    outputs: int | None,
    meaning: Meaning = CLASSES,
) -> tuple[Bool[Tensor, "samples targets"], str]:
    """Which samples are positives of which target, and by what: "label", "prediction", a rule.

    Classes: those of the label, or without labels the predicted ones; a single output speaks for
    class 1. Labels that do not exclude each other: those that the sample has, or without any given
    a logit above 0. Values: those that are high, of the labels or else of the model's own.

    Args:
        labels: as `data.labels` has them, or None if nobody knows.
        logits: of the model (M, K); None will do where there are labels.
        targets: indices of outputs.
        outputs: how many outputs the model has; None, if nobody knows, counts as several.
        meaning: of the outputs.

    Raises:
        DataError: neither labels nor logits.
    """
    found = logits if labels is None else labels
    if found is None:
        raise DataError("positives are found by labels or by predictions, and there are neither")
    by = "prediction" if labels is None else "label"
    if meaning.outputs_are == "value":
        return meaning.high(found, targets), meaning.rule(targets)
    if labels is None and meaning.outputs_are == "labels":
        return found[:, list(targets)] > meaning.boundary, by
    if labels is not None and labels.ndim == 2:
        return labels[:, list(targets)] == 1, by
    classes = predicted_classes(found, meaning.boundary) if labels is None else labels
    single = None if meaning.outputs_are == "labels" else outputs
    wanted = [class_of_target(target, single) for target in targets]
    return classes.unsqueeze(1) == torch.tensor(wanted, device=classes.device), by


def find_positives(
    data: Activations, targets: Sequence[int]
) -> tuple[Bool[Tensor, "samples targets"], str]:
    """Which recorded samples are positives of which target, and by what; see `positives_of`.

    Raises:
        DataError: a target out of the range of the model's outputs.
    """
    check_targets(targets, data.n_outputs)
    return positives_of(data.labels, data.logits, targets, data.n_outputs, data.meaning)


def split_validation(
    positives: Bool[Tensor, "samples targets"], share: float, seed: int
) -> Bool[Tensor, " samples"]:
    """Mask of a random held-out part, with the same share of each kind of positive."""
    return split_kinds(positives.unique(dim=0, return_inverse=True)[1], share, seed)


def split_kinds(
    kinds: Int64[Tensor, " samples"], share: float, seed: int
) -> Bool[Tensor, " samples"]:
    """Mask of a random held-out part, with the same share of each kind of sample."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.argsort(kinds, stable=True)
    held_out = torch.zeros(len(kinds), dtype=torch.bool)
    for members in order.split(kinds.unique(return_counts=True)[1].tolist()):
        count = max(1, round(share * len(members))) if len(members) > 1 else 0
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held_out


def resample(data: Activations, seed: int, copies: int = 0) -> Activations:
    """A bootstrap sample with as many images of every class as there are.

    Args:
        data: images, then so many altered copies of each, all first copies first.
        seed: the same seed draws the same images.
        copies: of each image; they are drawn with it.
    """
    generator = torch.Generator().manual_seed(seed)
    images = len(data) // (1 + copies)
    classes, drawn = sample_classes(data)[:images], []
    for kind in classes.unique():
        members = (classes == kind).nonzero().flatten()
        places = torch.randint(len(members), (len(members),), generator=generator)
        drawn.append(members[places])
    every = torch.cat(drawn)
    return data.select(torch.cat([every + copy * images for copy in range(1 + copies)]))


def sample_weights(
    data: Activations, targets: Sequence[int], positive_share: float | None
) -> Float[Tensor, " samples"]:
    """Weights (M,) of sum 1 with which samples enter a fit: see `TrainConfig.positive_share`."""
    positives = find_positives(data, targets)[0].any(1)
    weights = torch.ones(len(data), dtype=data.logits.dtype)
    share, count = positive_share, int(positives.sum())
    if share is not None and 0 < count < len(data):
        weights[positives] = share / count
        weights[~positives] = (1 - share) / (len(data) - count)
    return weights / weights.sum()
