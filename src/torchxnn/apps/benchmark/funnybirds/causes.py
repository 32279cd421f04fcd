"""What the removal of parts says about one embedding of one class; see `metrics/ground_truth`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.apps.benchmark.record import Recorded
from torchxnn.embeddings.apply import Embedded, apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.metrics import ground_truth as truth


@dataclass(frozen=True, eq=False)
class Removals:
    """Images of one class, and the same without each part.

    Attributes:
        z: activations of the images (M, S_z), or maps.
        z_without: without each part, image by image and part by part (M P, S_z), or maps.
        causes: what the network's logit loses (M, P).
    """

    z: Tensor
    z_without: Tensor
    causes: Float[Tensor, "images parts"]


def find_removals(recorded: Recorded, rows: Sequence[int], target: int, parts: int) -> Removals:
    """The images of a class, at these rows of the located ones, with their removals."""
    own = torch.tensor(rows)
    without = (own.unsqueeze(1) * parts + torch.arange(parts)).flatten()
    before, after = recorded.located.select(own), recorded.removals.select(without)
    return Removals(
        z=before.z,
        z_without=after.z,
        causes=before.logits[:, [target]] - after.logits[:, target].reshape(len(rows), parts),
    )


@dataclass(frozen=True, eq=False)
class Answers:
    """How an embedding answers to the removals.

    Attributes:
        whole: what it makes of the images.
        changes: of contributions to the logit (M, P, n).
        feature_changes: of the x-features themselves (M, P, n).
        reproduced: loss of the reproduced logit (M, P).
        typical: v_i E_i of a typical other image (n,), from which contributions count.
    """

    whole: Embedded
    changes: truth.Changes
    feature_changes: truth.Changes
    reproduced: Float[Tensor, "images parts"]
    typical: Float[Tensor, " features"]

    @property
    def anchored(self) -> Float[Tensor, "images features"]:
        """Contributions over those of a typical other image (M, n)."""
        return self.whole.contributions[:, 0]

    @property
    def profiles(self) -> Float[Tensor, "features parts"]:
        """What each x-feature is about."""
        return truth.change_profiles(self.changes)


def ask(embedding: Embedding, removals: Removals) -> Answers:
    """Show an embedding of one class the images with and without parts."""
    whole = apply_embedding(embedding, removals.z)
    without = apply_embedding(embedding, removals.z_without)
    count, parts = removals.causes.shape
    return Answers(
        whole=whole,
        changes=truth.removal_changes(
            whole.contributions[:, 0], without.contributions[:, 0].unflatten(0, (count, parts))
        ),
        feature_changes=truth.removal_changes(
            whole.features, without.features.unflatten(0, (count, parts))
        ),
        reproduced=whole.reproduced - without.reproduced.reshape(count, parts),
        typical=embedding.typical_contributions[0].detach().cpu(),
    )


def cause_figures(answers: Answers, removals: Removals) -> dict[str, Any]:
    """All figures of an embedding that need no map, by name."""
    profiles, causes = answers.profiles, removals.causes
    followed = truth.reproduced_change(answers.reproduced, causes)
    found = truth.recovery(profiles, causes.mean(0))
    return {
        "intervention_r2": followed.r2,
        "intervention_correlation": followed.correlation,
        "specificity": truth.specificity(profiles),
        "coverage": truth.coverage(profiles, causes.mean(0)),
        "coverage_own": truth.coverage(profiles, causes.mean(0), own=True),
        "alike": truth.alike_pairs(answers.changes),
        "rises": truth.rises(profiles),
        "moving": len(truth.moving(answers.changes)),
        "recovery": None if found is None else found.value,
        "recovery_chance": None if found is None else found.chance,
        **told_figures(answers, causes),
    }


def told_figures(answers: Answers, causes: Float[Tensor, "images parts"]) -> dict[str, Any]:
    """How the shares that sentences give to parts follow the shares that parts cause."""
    caused = truth.causal_shares(causes)
    about = truth.without_own(answers.changes)
    contributions: dict[str, Tensor] = {
        "told": answers.anchored + answers.typical,
        "told_anchored": answers.anchored,
    }
    found: dict[str, Any] = {}
    for name, values in contributions.items():
        for suffix, mixture in (("", False), ("_mixture", True)):
            shares = truth.told_shares(values, about, mixture=mixture)
            found[name + suffix] = truth.correlate(shares, caused)
            found[name + suffix + "_error"] = float((shares - caused).abs().mean())
    return found


def class_mean_figures(causes: Float[Tensor, "images parts"]) -> dict[str, Any]:
    """What `told_figures` are if nothing explains the image: the mean causes of the other images.

    All methods with x-features know what these are about from the removals of other images of the
    class; this is what that knowledge alone is worth.
    """
    caused = truth.causal_shares(causes)
    told = truth.causal_shares(mean_of_others(causes))
    return {
        "told": truth.correlate(told, caused),
        "told_error": float((told - caused).abs().mean()),
    }


def mean_of_others(causes: Float[Tensor, "images parts"]) -> Float[Tensor, "images parts"]:
    """The mean drop of the logit per part over all other images of a class."""
    return truth.without_own(causes.unsqueeze(2))[:, 0]


def importances(
    anchored: Float[Tensor, "images features"], about: Float[Tensor, "images features parts"]
) -> Float[Tensor, "images parts"]:
    """What an XNN says that each part is worth: contributions by what x-features are about.

    The sum over x-features of the contribution, spread over the parts in proportion to the drops.

    Args:
        anchored: contributions over those of a typical other image (M, n).
        about: what each x-feature is about, for every image (M, n, P); for images whose removals
            are known, according to the others (`without_own`).
    """
    drops = about.double().clamp(min=0)
    spread = drops / drops.sum(2, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.einsum("ml,mlp->mp", anchored.double(), spread)
