r"""How well x-features are the things that a logit is known to be the sum of.

For networks whose logit is :math:`y=b+\sum_p w_pd_p` with detectors that answer to things which
can be taken out of an image (`models.planted`). What a thing causes is read off the network itself:
the change of its logit when the thing goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from torchxnn.data.removals import RecordedRemovals
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError
from torchxnn.metrics.faithfulness import ACTIVE_SHARE
from torchxnn.metrics.ground_truth import (
    Recovery,
    ReproducedChange,
    change_profiles,
    recovery,
    removal_changes,
    reproduced_change,
    specificity,
)
from torchxnn.metrics.map_truth import part_mass
from torchxnn.models.planted import ALWAYS, THING_NAMES

NOTHING = 0.1
"""An x-feature answers to nothing if no removal changes it by more than this share of its size."""

_SAME = 1e-4
"""A thing has no part in a logit that it never changes by more, in logits."""

_VARIES = torch.tensor([name != ALWAYS for name in THING_NAMES])


@dataclass(frozen=True)
class Truth:
    """What a logit is made of, on some images.

    Attributes:
        drop: mean change of the logit when a thing goes (P,), in logits; negative against it.
        reasons: the things that a logit is made of, without what is on every image.
        share: share of each reason of the absolute change of all reasons (P,), sum 1, 0 elsewhere.
    """

    drop: tuple[float, ...]
    reasons: tuple[int, ...]
    share: tuple[float, ...]


def planted_truth(removals: RecordedRemovals, target: int) -> Truth:
    """What the network's logit loses with each thing; what is on every image is no reason.

    That is `ALWAYS` alone. A reason that these images all happen to show is still one.

    Raises:
        DataError: no thing changes the logit.
    """
    changes = (removals.logits[:, [target]] - removals.logits_without[:, :, target]).double()
    varies = (changes.abs().amax(0) > _SAME) & _VARIES
    size = changes.abs().mean(0) * varies
    if not bool(varies.any()):
        raise DataError("no thing changes the logit of these images, so it has no reasons")
    return Truth(
        drop=tuple(changes.mean(0).tolist()),
        reasons=tuple(varies.nonzero().flatten().tolist()),
        share=tuple((size / size.sum()).tolist()),
    )


def oriented(
    profiles: Float[Tensor, "features things"], drop: Float[Tensor, " things"]
) -> Float[Tensor, "features things"]:
    """Profiles in which a change in the logit's own direction is positive, (n, P)."""
    return profiles * drop.sign()


def match_things(profiles: Float[Tensor, "features things"]) -> tuple[tuple[int, int], ...]:
    """Pairs (x-feature, thing) of the largest sum of absolute changes (Kuhn, 1955)."""
    rows, columns = linear_sum_assignment(profiles.abs().numpy(), maximize=True)
    return tuple(zip(rows.tolist(), columns.tolist(), strict=True))


@dataclass(frozen=True)
class Score:
    """A figure and its level of chance.

    Attributes:
        value: the figure.
        chance: its expectation if x-features were matched with things at random.
    """

    value: float
    chance: float


def sign_score(
    profiles: Float[Tensor, "features things"],
    drop: Float[Tensor, " things"],
    pairs: tuple[tuple[int, int], ...],
) -> Score:
    """Share of the things whose x-feature pushes the logit in the direction of the thing.

    Higher is better. A thing without an x-feature is not found. Profiles are the change of each
    contribution when a thing goes, `drop` that of the logit; pairs are of `match_things`.
    """
    right = (profiles.sign() == drop.sign()) & (profiles != 0)
    things = len(drop)
    matched = min(len(profiles), things)
    found = sum(bool(right[row, column]) for row, column in pairs)
    return Score(found / things, float(right.double().mean()) * matched / things)


def share_error(
    shares: Float[Tensor, " features"],
    truth: Float[Tensor, " things"],
    pairs: tuple[tuple[int, int], ...],
) -> Score:
    """Mean absolute difference between the share that an x-feature reports and its thing's share.

    Lower is better, 0 is exact. A thing without an x-feature is reported with share 0. Shares, of
    the contributions as reported, and those in truth sum to 1; pairs are of `match_things`.
    """
    shares, truth = shares.double(), truth.double()
    reported = torch.zeros_like(truth)
    for row, column in pairs:
        reported[column] = shares[row]
    matched = min(len(shares), len(truth)) / len(truth)
    apart = (shares.unsqueeze(1) - truth).abs().mean()
    chance = matched * float(apart) + (1 - matched) * float(truth.mean())
    return Score(float((reported - truth).abs().mean()), chance)


def place_score(
    maps: Float[Tensor, "images features height width"],
    masks: Int64[Tensor, "images height width"],
    present: Bool[Tensor, "images things"],
    pairs: tuple[tuple[int, int], ...],
    things: tuple[int, ...],
) -> tuple[Score, float]:
    """Share of a map's positive relevance on the thing of its x-feature, where the image shows it.

    Higher is better. The mean over the things that these images show, each over its images; a thing
    without an x-feature counts as 0.

    Args:
        maps: signed maps (M, n, H, W).
        masks: number of the thing of every pixel, 1 to P (M, H, W).
        present: (M, P).
        pairs: matched (x-feature, thing).
        things: that were to be found.

    Returns:
        The score, and that of a uniform map.

    Raises:
        DataError: no image shows any of the things.
    """
    images = present.double().sum(0)
    shown = [thing for thing in things if images[thing] > 0]
    if not shown:
        raise DataError("none of the images shows any of the things to be found; take more images")
    weights = (present.double() / images.clamp(min=1))[:, shown]
    numbers = [thing + 1 for thing in shown]
    count = max(present.shape[1], int(masks.max())) + 1
    mass = part_mass(maps, masks, count)[:, :, numbers]
    area = part_mass(torch.ones_like(maps[:, :1]), masks, count)[:, 0, numbers]
    means = torch.einsum("mlp,mp->lp", mass, weights)
    found = [float(means[row, shown.index(thing)]) for row, thing in pairs if thing in shown]
    matched = min(maps.shape[1], len(things)) / len(things)
    score = Score(sum(found) / len(shown), float(means.mean()) * matched)
    return score, float((area * weights).sum()) / len(shown)


def false_features(
    changes: Float[Tensor, "images things features"],
    contributions: Float[Tensor, "images features"],
    shares: Float[Tensor, " features"],
    reasons: tuple[int, ...],
) -> tuple[int, ...]:
    """Active x-features that answer to nothing in the logit; fewer are better.

    The largest absolute change of such an x-feature comes with a thing that is no reason (one that
    the logit ignores, or one that is on every image); or no removal changes it by more than
    `NOTHING` of its mean absolute contribution: it repeats a constant.

    Args:
        changes: of contributions when each thing goes, reason or not (M, P, n).
        contributions: of the whole images (M, n).
        shares: of the contributions, as reported (n,).
        reasons: indices of the things that the logit is made of.
    """
    size = changes.double().abs().mean(0)
    largest, thing = size.max(0)
    nothing = _answers_to_nothing(largest, contributions)
    no_reason = ~torch.isin(thing, torch.tensor(reasons))
    active = shares >= ACTIVE_SHARE
    return tuple((active & (nothing | no_reason)).nonzero().flatten().tolist())


def _answers_to_nothing(
    largest: Float[Tensor, " features"], contributions: Float[Tensor, "images features"]
) -> Bool[Tensor, " features"]:
    """Whether even the largest mean absolute change of an x-feature is next to none (n,)."""
    return largest <= NOTHING * contributions.double().abs().mean(0)


def largest_things(
    embedding: Embedding, removals: RecordedRemovals
) -> tuple[tuple[int | None, float], ...]:
    """Per x-feature the thing, reason or not, that it answers to most, and how purely.

    That is the thing whose removal changes its contribution most, on average over the images, and
    its share of these mean absolute changes of all things. The thing is None, and the share 0, if
    the x-feature answers to nothing, see `NOTHING`.

    Args:
        embedding: with x-features that are numbers; its first logit is meant.
        removals: images of the class, whole and without each thing.
    """
    images, things, dims = removals.z_without.shape
    whole = apply_embedding(embedding, removals.z).contributions[:, 0]
    less = apply_embedding(embedding, removals.z_without.reshape(-1, dims)).contributions[:, 0]
    size = removal_changes(whole, less.reshape(images, things, -1)).double().abs().mean(0)
    top, thing = size.max(0)
    purity = top / size.sum(0).clamp(min=1e-30)
    found = zip(
        thing.tolist(), purity.tolist(), _answers_to_nothing(top, whole).tolist(), strict=True
    )
    return tuple((None, 0.0) if nothing else (its, pure) for its, pure, nothing in found)


@dataclass(frozen=True)
class PlantedScores:
    """How an explanation compares with what was planted.

    Attributes:
        recovery: `ground_truth.recovery`: share of the contributions' change that lies on matched
            pairs of x-feature and reason, changes counted in the logit's direction and up to what
            the reason causes; higher is better. With chance of shuffled reasons.
        specificity: share of the change that falls on each x-feature's own largest reason.
        sign: share of the reasons whose x-feature has the reason's direction; higher is better.
        against: share of the reasons against the class whose x-feature has, on the images that
            show them, a negative mean contribution as reported; higher is better. None if there is
            no such reason.
        share: mean absolute error of the reported shares; lower is better.
        false_features: active x-features that answer to nothing in the logit; fewer are better.
        active: how many are active.
        intervention: how well the reproduced logit follows the network's when things go, those
            that it ignores included, but not what is on every image, of which no data can tell.
        pairs: matched (x-feature, thing).
        truth: what was to be found.
    """

    recovery: Recovery
    specificity: float | None
    sign: Score
    against: float | None
    share: Score
    false_features: tuple[int, ...]
    active: int
    intervention: ReproducedChange
    pairs: tuple[tuple[int, int], ...]
    truth: Truth


def score_planted(
    embedding: Embedding,
    removals: RecordedRemovals,
    target: int,
    shares: Float[Tensor, " features"],
) -> PlantedScores:
    """Compare the x-features of an embedding of one logit with what the logit is made of.

    Args:
        embedding: with x-features that are numbers; its first logit is meant.
        removals: images of the class, whole and without each thing.
        target: the logit.
        shares: of the contributions, as the explanation reports them (n,).
    """
    truth = planted_truth(removals, target)
    images, things, dims = removals.z_without.shape
    whole = apply_embedding(embedding, removals.z)
    less = apply_embedding(embedding, removals.z_without.reshape(-1, dims))
    contributions = whole.contributions[:, 0]
    changes = removal_changes(contributions, less.contributions[:, 0].reshape(images, things, -1))
    reasons = list(truth.reasons)
    profiles, drop = change_profiles(changes)[:, reasons], torch.tensor(truth.drop)[reasons]
    drop = drop.double()
    toward = oriented(profiles, drop)
    matched = match_things(profiles)
    reproduced = whole.reproduced[:, [0]] - less.reproduced[:, 0].reshape(images, things)
    network = removals.logits[:, [target]] - removals.logits_without[:, :, target]
    gone = removals.present & _VARIES
    return PlantedScores(
        recovery=recovery(toward, drop.abs()) or Recovery(0.0, 0.0, ()),
        specificity=specificity(toward),
        sign=sign_score(profiles, drop, matched),
        against=_against(contributions, removals.present[:, reasons], drop, matched),
        share=share_error(shares, torch.tensor(truth.share)[reasons], matched),
        false_features=false_features(changes, contributions, shares, truth.reasons),
        active=int((shares >= ACTIVE_SHARE).sum()),
        intervention=reproduced_change(reproduced[gone][None], network[gone][None]),
        pairs=tuple((row, reasons[column]) for row, column in matched),
        truth=truth,
    )


def _against(
    contributions: Float[Tensor, "images features"],
    present: Bool[Tensor, "images reasons"],
    drop: Float[Tensor, " reasons"],
    pairs: tuple[tuple[int, int], ...],
) -> float | None:
    count = int((drop < 0).sum())
    if not count:
        return None
    found = [
        float(contributions[present[:, column], row].mean()) < 0
        for row, column in pairs
        if drop[column] < 0
    ]
    return sum(found) / count
