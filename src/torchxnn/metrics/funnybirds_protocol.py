"""The official protocol of FunnyBirds: what a network does without parts against an explanation.

Hesse, Schaub-Meyer and Roth, FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of
Explainable AI Methods, ICCV 2023, section 4; where the paper leaves something open (thresholds,
ties, averages), this follows the authors' public evaluation. Every score lies in [0, 1], and higher
is better.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import max_pool2d

from torchxnn.errors import DataError

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


@dataclass(frozen=True)
class Sums:
    """Scores of some images, added up.

    Attributes:
        values: a sum for each threshold, or one sum.
        count: of how many.
    """

    values: tuple[float, ...]
    count: int

    @staticmethod
    def of(scores: Tensor) -> Sums:
        """Of scores (T, N) or (N,); an item that is NaN at any threshold is left out."""
        rows = torch.atleast_2d(scores.double())
        there = ~rows.isnan().any(dim=0)
        return Sums(tuple(rows[:, there].sum(dim=1).tolist()), int(there.sum()))

    def __add__(self, other: Sums) -> Sums:
        pairs = zip(self.values, other.values, strict=True)
        return Sums(tuple(one + two for one, two in pairs), self.count + other.count)

    def means(self) -> np.ndarray:
        """Mean scores; NaN of nothing."""
        return np.array(self.values) / self.count if self.count else np.array(self.values) * np.nan


@dataclass(frozen=True)
class OfficialTally:
    """What the protocol has counted on some images; tallies of other images can be added.

    Attributes:
        accuracy: of the network.
        csdc: controlled synthetic data check, by threshold; of images that are classified rightly.
        pc: preservation check, by threshold.
        dc: deletion check, by threshold.
        d: distractibility, by threshold.
        bi: background independence, of background objects; it speaks of the network alone.
        sd: single deletion.
        ts: target sensitivity, two for each image.
        composed: of interventions that were shown to the network, those without a rendering.
    """

    accuracy: Sums
    csdc: Sums
    pc: Sums
    dc: Sums
    d: Sums
    bi: Sums
    sd: Sums
    ts: Sums
    composed: Sums

    def __add__(self, other: OfficialTally) -> OfficialTally:
        names = [field.name for field in fields(self)]
        return OfficialTally(*(getattr(self, name) + getattr(other, name) for name in names))


def _completeness(means: Mapping[str, Any]) -> Any:
    return ((means["csdc"] + means["pc"] + means["dc"]) / 3 + means["d"]) / 2


def _with_main(**scores: float) -> dict[str, float]:
    """Scores of the single checks, and the three of the paper with their mean."""
    three = {
        "official_completeness": _completeness(scores),
        "official_correctness": scores["sd"],
        "official_contrastivity": scores["ts"],
    }
    single = {f"official_{name}": score for name, score in scores.items()}
    return single | three | {"official_mean": sum(three.values()) / 3}


def official_scores(tally: OfficialTally, threshold: float | None = None) -> dict[str, float]:
    """The scores of the paper; all higher is better, but for the threshold and what was composed.

    completeness = ((csdc + pc + dc) / 3 + d) / 2, correctness = sd, contrastivity = ts; their mean
    is the score of an explanation (section 4.3).

    Args:
        tally: of all images; several tallies are added before.
        threshold: one of `THRESHOLDS`, as when a part of the images is looked at; by default the
            first with the largest completeness.

    Returns:
        `official_csdc`, `official_pc`, `official_dc`, `official_d`, `official_bi`, `official_sd`,
        `official_ts`, `official_completeness`, `official_correctness`, `official_contrastivity`,
        `official_mean`, `official_accuracy`, `official_threshold`, and `composed_share`. NaN where
        there was nothing to count.

    Raises:
        DataError: the threshold is none of those of the protocol.
    """
    means = {field.name: getattr(tally, field.name).means() for field in fields(tally)}
    completeness = _completeness(means)
    if threshold is None:
        best = 0 if np.isnan(completeness).all() else int(np.nanargmax(completeness))
    elif threshold in THRESHOLDS:
        best = THRESHOLDS.index(threshold)
    else:
        raise DataError(f"the protocol has no threshold {threshold}; it has {THRESHOLDS}")
    composed = float(means.pop("composed")[0])
    scores = {name: float(values[best % len(values)]) for name, values in means.items()}
    return {
        **_with_main(**scores),
        "official_threshold": THRESHOLDS[best],
        "composed_share": composed,
    }


ANCHORS = MappingProxyType(
    {
        "Input x Gradient, ResNet-50": _with_main(
            csdc=0.7353, pc=0.602, dc=0.532, d=0.54372, bi=0.99826, sd=0.54592, ts=0.806
        ),
        "example without a name": _with_main(
            csdc=0.93935, pc=0.952, dc=0.92, d=0.96602, bi=0.98493, sd=0.72917, ts=0.72345
        ),
    }
)
"""Published scores of other networks: the first in the README of visinf/funnybirds-framework, the
second in `funnybirds_complete/plot_results.py` of visinf/funnybirds, which does not say what method
it is. Figures of the paper's other methods, which it draws, were not found."""
