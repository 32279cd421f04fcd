"""The official protocol of FunnyBirds: what a network does without parts against an explanation.

Hesse, Schaub-Meyer and Roth, FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of
Explainable AI Methods, ICCV 2023, section 4; where the paper leaves something open (thresholds,
ties, averages), this follows the authors' public evaluation. Every score lies in [0, 1], and higher
is better. Here are the checks of single images; `funnybirds_scores` adds them up.

An explanation enters as the importance of each part of each image. A *thing* is a part or a
background object. A thing counts as important at a threshold t if its importance is greater than t
times the sum of the whole explanation. One threshold of 80 is chosen for all images: the one with
the largest completeness.

Two departures: the parts of a map that belong together (both eyes) are one region, so pixels near
both count once; and the last class has sufficient sets of parts like any other, where the authors'
evaluation finds none and counts its images as 0 in the controlled synthetic data check.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import max_pool2d

THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.01, 0.5, 80).tolist())

RELEVANT_DROP = 0.05
"""A thing is irrelevant if the logit falls by less than this share of its size when it goes."""

_MARGIN = 5  # a region of the map reaches two pixels beyond its part


@dataclass(frozen=True, eq=False)
class PartImportances:
    """What an explanation of one class says about the parts of images.

    Attributes:
        parts: (B, P), the importance of each part, signed, in any unit.
        total: (B,), the sum of the whole explanation in the same unit.
        objects: (B, O), the importance of background objects; no column where the explanation says
            nothing about them.
    """

    parts: Float[Tensor, "images parts"]
    total: Float[Tensor, " images"]
    objects: Float[Tensor, "images objects"]


def part_importances(parts: Float[Tensor, "images parts"]) -> PartImportances:
    """Importances of an explanation that speaks of parts alone; its sum is that of the parts."""
    return PartImportances(parts, parts.sum(dim=1), parts.new_zeros(len(parts), 0))


def map_importances(
    maps: Float[Tensor, "images height width"],
    masks: Int64[Tensor, "images height width"],
    parts: int = 5,
) -> PartImportances:
    """Importances from heatmaps: signed sums over parts, each of which is two pixels wider.

    Args:
        maps: signed attributions (B, H, W), summed over colours.
        masks: what each pixel shows (B, H, W): 0 background, from 1 the parts, then the body, then
            the background objects.
        parts: how many parts there are.
    """
    numbers = [*range(1, parts + 1), *range(parts + 2, int(masks.max()) + 1)]
    sums = []
    for number in numbers:
        region = max_pool2d((masks == number).to(maps).unsqueeze(1), _MARGIN, 1, _MARGIN // 2)
        sums.append((maps * region.squeeze(1)).sum(dim=(1, 2)))
    both = torch.stack(sums, dim=1)
    return PartImportances(both[:, :parts], maps.sum(dim=(1, 2)), both[:, parts:])


Important = Bool[Tensor, "thresholds images things"]


def important_things(explained: PartImportances) -> Important:
    """Which parts, and after them which background objects, are important at each threshold."""
    things = torch.cat([explained.parts, explained.objects], dim=1)
    limits = torch.tensor(THRESHOLDS, dtype=things.dtype)[:, None] * explained.total
    return things > limits[:, :, None]


def minimal_sufficient_sets(class_kinds: Int64[Tensor, "classes parts"]) -> list[Tensor]:
    """For each class, which sets of its parts tell it from all others and have no such subset.

    Args:
        class_kinds: the kind of each part of each class (K, P).

    Returns:
        Per class (sets, P) of 0 and 1; no set where another class has all the same parts.
    """
    classes, parts = class_kinds.shape
    subsets = [
        frozenset(subset)
        for size in range(1, parts + 1)
        for subset in itertools.combinations(range(parts), size)
    ]
    found = []
    for target in range(classes):
        shared = [
            frozenset((class_kinds[target] == class_kinds[other]).nonzero().flatten().tolist())
            for other in range(classes)
            if other != target
        ]
        enough = [subset for subset in subsets if not any(subset <= other for other in shared)]
        least = [subset for subset in enough if not any(other < subset for other in enough)]
        rows = [[float(part in subset) for part in range(parts)] for subset in least]
        found.append(torch.tensor(rows).reshape(-1, parts))
    return found


def controlled_synthetic_data_check(
    important: Important, sufficient: Sequence[Float[Tensor, "_ parts"]]
) -> Float[Tensor, "thresholds images"]:
    """Share of a minimal sufficient set that is important, for the set with the largest share.

    Args:
        important: of the parts alone, for the label of each image.
        sufficient: the minimal sufficient sets of that label, for each image.
    """
    scores = torch.zeros(important.shape[:2])
    for image, sets in enumerate(sufficient):
        if len(sets) > 0:
            shares = important[:, image].to(sets) @ sets.T / sets.sum(dim=1)
            scores[:, image] = shares.max(dim=1).values
    return scores


def preservation_check(
    important: Important, predicted: Int64[Tensor, "images subsets"]
) -> Float[Tensor, "thresholds images"]:
    """1 if the prediction is the same when only the important parts are kept.

    Args:
        important: of the parts alone, for the class that is predicted of each whole image.
        predicted: the class that is predicted when a subset of the parts is kept (B, 2^P); bit p of
            the number of the subset says whether part p is kept, so the last is the whole image.
    """
    kept = _subset(important)
    return (predicted.T.gather(0, kept) == predicted[:, -1]).float()


def deletion_check(
    important: Important, predicted: Int64[Tensor, "images subsets"]
) -> Float[Tensor, "thresholds images"]:
    """1 if the prediction changes when the important parts go; see `preservation_check`."""
    kept = predicted.shape[1] - 1 - _subset(important)
    return (predicted.T.gather(0, kept) != predicted[:, -1]).float()


def _subset(important: Important) -> Int64[Tensor, "thresholds images"]:
    bits = 2 ** torch.arange(important.shape[2])
    return (important * bits).sum(dim=2)


def irrelevant_things(
    logits: Float[Tensor, " images"], without: Float[Tensor, "images things"]
) -> Bool[Tensor, "images things"]:
    """Which things the network does not need: the logit falls by less than 5%, or rises.

    Args:
        logits: the logit of the label of each image.
        without: the same when a thing is removed; NaN where an image has no such thing, which is
            then not among the irrelevant ones.
    """
    before = logits[:, None]
    small = (before - without).abs() < RELEVANT_DROP * before.abs()
    return small | (before < without)


def background_independence(
    logits: Float[Tensor, " images"], without: Float[Tensor, "images objects"]
) -> Float[Tensor, "images objects"]:
    """0 where the logit falls by 5% or more without a background object, else 1; NaN stays NaN."""
    before = logits[:, None]
    needed = ((before - without).abs() >= RELEVANT_DROP * before.abs()) & (before > without)
    return torch.where(without.isnan(), without, (~needed).to(without))


def distractibility(
    important: Important, irrelevant: Bool[Tensor, "images things"]
) -> Float[Tensor, "thresholds images"]:
    """1 - the share of the irrelevant things that are important; NaN where none is irrelevant."""
    wrong = (important & irrelevant).sum(dim=2)
    return 1 - wrong / irrelevant.sum(dim=1)


def single_deletion(
    importances: Float[Tensor, "images parts"], drops: Float[Tensor, "images parts"]
) -> Float[Tensor, " images"]:
    """Spearman's correlation of importance and loss of the logit over the parts, from 0 to 1.

    It is (1 + rho) / 2, with mean ranks for ties, and NaN where all parts are equal in either.

    Args:
        importances: of the parts, for the label.
        drops: what the logit of the label loses when each part goes.
    """
    from scipy.stats import rankdata

    ranks = [rankdata(values.double().cpu().numpy(), axis=1) for values in (importances, drops)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    norm = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return torch.from_numpy((first * second).sum(axis=1) / norm * 0.5 + 0.5)


@dataclass(frozen=True, eq=False)
class ContrastClasses:
    """Two classes that share two parts each with a third, and these are four different parts.

    Attributes:
        classes: their indices.
        shared: for each of them (P,), which parts it shares with the third class.
    """

    classes: tuple[int, int]
    shared: tuple[Bool[Tensor, " parts"], Bool[Tensor, " parts"]]


def contrast_classes(
    class_kinds: Int64[Tensor, "classes parts"], target: int
) -> ContrastClasses | None:
    """The first such pair in the order of the classes, for target sensitivity; None without one."""
    shared = class_kinds == class_kinds[target]
    two = [other for other in range(len(shared)) if int(shared[other].sum()) == 2]
    for first, second in itertools.combinations(two, 2):
        if not bool((shared[first] & shared[second]).any()):
            return ContrastClasses((first, second), (shared[first], shared[second]))
    return None


def contrast_holds(
    whole: Float[Tensor, "images 2"],
    without_first: Float[Tensor, "images 2"],
    without_second: Float[Tensor, "images 2"],
) -> Bool[Tensor, " images"]:
    """Whether each of the two classes suffers more without its own parts than without the others.

    Only such images say something about an explanation; the others are left out.

    Args:
        whole: the logits of both classes.
        without_first: the same without the parts that the first class shares.
        without_second: the same without those that the second shares.
    """
    first, second = without_first - whole, without_second - whole
    return (first[:, 0] < second[:, 0]) & (second[:, 1] < first[:, 1])


def target_sensitivity(
    first: Float[Tensor, "images parts"],
    second: Float[Tensor, "images parts"],
    contrast: ContrastClasses,
) -> Float[Tensor, "images 2"]:
    """1 if the parts that a class shares are more important for it than for the other class.

    Args:
        first: importances of the parts for the first class.
        second: the same for the second.
        contrast: the two classes.
    """
    of_first, of_second = (mask.to(first) for mask in contrast.shared)
    return torch.stack(
        [first @ of_first > second @ of_first, first @ of_second < second @ of_second], dim=1
    ).float()
