"""Whether an explanation is true, where the causes are known because parts were taken away.

A part is removed from an image and the image is made anew; what the logit loses is what the part
caused, and what each x-feature loses is what the x-feature is about. Everything here reads changes
when a part goes, value before minus value after, so a constant added to an x-feature and taken from
the intercept changes nothing. The idea of removing rendered parts is of Hesse, Schaub-Meyer and
Roth, FunnyBirds, ICCV 2023; the figures are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from torchxnn.embeddings.exact import exact
from torchxnn.embeddings.matching import feature_correlation
from torchxnn.errors import DataError, NonFiniteError

MOVES = 0.05
"""An x-feature moves if it has at least this share of the changes of all x-features."""

MATTERS = 0.1
"""A part matters if it causes more than this share of what all parts cause."""

ALIKE = 0.9
"""Two x-features whose changes correlate at least so much say the same."""

Changes = Float[Tensor, "images parts features"]
"""Loss of every x-feature (or of its contribution) when a part of an image goes."""


def removal_changes(
    before: Float[Tensor, "images features"], after: Float[Tensor, "others parts more"]
) -> Changes:
    """What each x-feature loses when a part goes, (M, P, n) float64.

    Args:
        before: values, or contributions to the logit, of the whole images (M, n).
        after: the same of each image without each part (M, P, n).

    Raises:
        DataError: numbers of images or of x-features that differ, or no image at all.
        NonFiniteError: a value is NaN or infinite.
    """
    if len(before) != len(after) or before.shape[1] != after.shape[2] or after.numel() == 0:
        raise DataError(
            f"values of {tuple(before.shape)} before and {tuple(after.shape)} after parts went do "
            "not belong together; they must be (M, n) and (M, P, n) of at least one image"
        )
    changes = exact(before).unsqueeze(1) - exact(after)
    if not bool(torch.isfinite(changes).all()):
        raise NonFiniteError("a value before or after a part went is NaN or infinite")
    return changes


@dataclass(frozen=True)
class ReproducedChange:
    """How well the reproduced logit follows the network's when parts go.

    Attributes:
        r2: 1 - sum (dR - dy)^2 / sum (dy - mean dy)^2 over images and parts; higher is better, 1 is
            exact, negative is worse than always the mean. None if the logit never changes.
        correlation: Pearson's, of the same changes; 0 if either never changes.
    """

    r2: float | None
    correlation: float


def reproduced_change(
    reproduced: Float[Tensor, "images parts"], network: Float[Tensor, "others more"]
) -> ReproducedChange:
    """Compare changes of the reproduced logit with those of the network's own.

    An explanation that reproduces the logit of ordinary images but not these has found what goes
    with the class, not what causes the logit.

    Args:
        reproduced: loss of the reproduced logit when a part of an image goes (M, P).
        network: loss of the network's logit.

    Raises:
        DataError: shapes that differ.
    """
    ours, theirs = exact(reproduced).flatten(), exact(network).flatten()
    if reproduced.shape != network.shape:
        raise DataError(
            f"changes of shape {tuple(reproduced.shape)} and {tuple(network.shape)} do not belong "
            "together"
        )
    spread = (theirs - theirs.mean()).square().sum()
    r2 = None if spread == 0 else float(1 - (ours - theirs).square().sum() / spread)
    return ReproducedChange(r2, correlate(ours, theirs))


def correlate(first: Float[Tensor, "*shape"], second: Float[Tensor, "*shape"]) -> float:
    """Pearson's correlation over all entries; 0 if one of the two does not vary."""
    return float(feature_correlation(first.reshape(-1, 1), second.reshape(-1, 1)))


def change_profiles(changes: Changes) -> Float[Tensor, "features parts"]:
    """What each x-feature is about: its mean change per removed part, (n, P) float64.

    Args:
        changes: of contributions to the logit, from `removal_changes`.
    """
    return exact(changes).mean(0).T


def specificity(profiles: Float[Tensor, "features parts"]) -> float | None:
    r"""Share of the change of contributions that falls on each x-feature's own largest part.

    .. math:: \sum_l \max_p P_{lp} \Big/ \sum_{l,p} P_{lp}, \qquad P = \max(\text{profiles}, 0)

    So x-features count by how much they move. Higher is better; 1 / P is no preference, 1 is one
    part for each x-feature. None if nothing drops at all.
    """
    drops = exact(profiles).clamp(min=0)
    total = float(drops.sum())
    return float(drops.amax(1).sum()) / total if total > 0 else None


def rises(profiles: Float[Tensor, "features parts"]) -> float | None:
    """Share of the change that has the other sign: contributions that rise when a part goes.

    A part that speaks for the class should not be missed less than it is there; lower is better
    where every part belongs to the class. None if nothing changes.
    """
    total = float(exact(profiles).abs().sum())
    return float((-exact(profiles)).clamp(min=0).sum()) / total if total > 0 else None


def coverage(
    profiles: Float[Tensor, "features parts"], logit: Float[Tensor, " parts"], *, own: bool = False
) -> float | None:
    """Share of the parts that matter to the logit for which there is an x-feature.

    A part matters if its mean drop of the logit is more than `MATTERS` of what all parts together
    drop. It is covered if the contribution of some x-feature drops by more than the same. Higher is
    better; None if no part matters.

    Args:
        profiles: from `change_profiles` (n, P).
        logit: mean drop of the network's logit per part (P,).
        own: ask for more: the part must be the one that the x-feature is most about.
    """
    drops = exact(logit).clamp(min=0)
    threshold = MATTERS * float(drops.sum())
    matter = drops > threshold
    if not bool(matter.any()):
        return None
    profiles = exact(profiles)
    moved = profiles > threshold
    if own:
        moved &= profiles == profiles.amax(1, keepdim=True)
    return float(moved.any(0)[matter].double().mean())


def moving(changes: Changes) -> tuple[int, ...]:
    """Indices of the x-features that move: at least `MOVES` of the absolute change of all."""
    each = exact(changes).abs().sum((0, 1))
    total = float(each.sum())
    if total == 0:
        return ()
    return tuple(int(index) for index in (each >= MOVES * total).nonzero().flatten())


def alike_pairs(changes: Changes) -> int:
    """Pairs of moving x-features whose changes correlate at `ALIKE` or more; lower is better.

    Two such x-features are one concept under two names, whatever their maps look like.
    """
    columns = changes[:, :, list(moving(changes))].flatten(0, 1)
    return int((feature_correlation(columns, columns) >= ALIKE).triu(1).sum())


@dataclass(frozen=True)
class Recovery:
    """How far x-features are the planted parts, one for one.

    Attributes:
        value: share of the change that lies on matched pairs of x-feature and part; higher is
            better, 1 if every x-feature drops with its own part and with no other.
        chance: the same after the parts of every x-feature were shuffled, each for itself; mean of
            seeded shuffles. The matching keeps it above 1 / P.
        parts: matched part of every x-feature, -1 for those that are left over.
    """

    value: float
    chance: float
    parts: tuple[int, ...]


def recovery(
    profiles: Float[Tensor, "features parts"],
    causes: Float[Tensor, " removed"] | None = None,
    shuffles: int = 200,
    seed: int = 0,
) -> Recovery | None:
    r"""Match x-features with parts so that the matched drops are largest (Kuhn, 1955).

    .. math:: \max_\pi \sum_l \min(P^+_{l\pi(l)}, c^+_{\pi(l)}) \Big/
        \max\Big(\sum_{lp} |P_{lp}|, \sum_p c^+_p\Big)

    with the profiles P and the causes c: what an x-feature drops beyond what the part causes is no
    credit, and what nobody drops, or one x-feature takes back from another, is missed. So
    x-features that hardly move, or cancel, do not pass for separate ones; without causes,

    .. math:: \max_\pi \sum_l P^+_{l\pi(l)} \Big/ \sum_{lp} P^+_{lp}

    does let them.

    Args:
        profiles: from `change_profiles` (n, P).
        causes: mean drop of the network's logit per part (P,).
        shuffles: for the level of chance, at least 1.
        seed: of the shuffles.

    Returns:
        None if nothing drops.

    Raises:
        DataError: another number of parts.
    """
    drops = exact(profiles).clamp(min=0)
    limits, total = torch.full_like(drops[0], torch.inf), float(drops.sum())
    if causes is not None:
        if len(causes) != drops.shape[1]:
            raise DataError(f"{len(causes)} causes for {drops.shape[1]} parts")
        limits = exact(causes).clamp(min=0)
        total = max(float(exact(profiles).abs().sum()), float(limits.sum()))
    if total == 0:
        return None

    def matched(given: Tensor) -> tuple[Tensor, tuple[list[int], list[int]]]:
        credit = torch.minimum(given, limits)
        rows, columns = linear_sum_assignment(credit.numpy(), maximize=True)
        return credit, (rows.tolist(), columns.tolist())

    credit, places = matched(drops)
    parts = dict(zip(*places, strict=True))
    generator = torch.Generator().manual_seed(seed)
    chance = 0.0
    for _ in range(shuffles):
        other, at = matched(
            drops.gather(1, torch.rand(drops.shape, generator=generator).argsort(1))
        )
        chance += float(other[at].sum()) / total
    return Recovery(
        value=float(credit[places].sum()) / total,
        chance=chance / shuffles,
        parts=tuple(parts.get(feature, -1) for feature in range(len(drops))),
    )


def without_own(changes: Changes) -> Float[Tensor, "images features parts"]:
    """What x-features are about according to all *other* images, (M, n, P) float64.

    So that what is said of an image does not know what happens when its parts go.

    Raises:
        DataError: fewer than 2 images.
    """
    if len(changes) < 2:
        raise DataError("what an x-feature is about must come from other images; give at least 2")
    each = exact(changes).transpose(1, 2)
    return (each.sum(0, keepdim=True) - each) / (len(each) - 1)


def told_shares(
    contributions: Float[Tensor, "images features"],
    profiles: Float[Tensor, "images features parts"],
    *,
    mixture: bool = False,
) -> Float[Tensor, "images parts"]:
    """The share of the logit that a sentence gives to each part (M, P), rows of sum 1 or 0.

    A sentence gives x-features the shares of their positive contributions; each stands for what it
    is about.

    Args:
        contributions: of the images (M, n).
        profiles: what each x-feature is about, for each image, such as from `without_own`.
        mixture: an x-feature stands for all parts in proportion to its drops, instead of for its
            largest one alone, after which people would name it.
    """
    weights = exact(contributions).clamp(min=0)
    drops = exact(profiles).clamp(min=0)
    if mixture:
        about = drops / drops.sum(2, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    else:
        about = torch.zeros_like(drops).scatter_(2, drops.argmax(2, keepdim=True), 1.0)
        about = about * (drops.sum(2, keepdim=True) > 0)
    told = torch.einsum("ml,mlp->mp", weights, about)
    return told / told.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)


def causal_shares(changes: Float[Tensor, "images parts"]) -> Float[Tensor, "images parts"]:
    """The share of the logit's drop that each part causes (M, P), rows of sum 1 or 0."""
    drops = exact(changes).clamp(min=0)
    return drops / drops.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
