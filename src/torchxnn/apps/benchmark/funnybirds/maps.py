"""Whether maps tell the truth about their own x-features, by the way in which they are drawn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.apps.benchmark.funnybirds.settings import TruthConfig
from torchxnn.apps.benchmark.maps import layer_of
from torchxnn.apps.benchmark.methods import UnitsOfMany
from torchxnn.apps.benchmark.tasks import Task
from torchxnn.attribution.base import Attributor, contrast_mass
from torchxnn.attribution.effective_weights import EffectiveUnits
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.methods import attributor
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.nmf import NMFConcepts
from torchxnn.errors import DataError, XNNWarning
from torchxnn.metrics import ground_truth as truth
from torchxnn.metrics.map_truth import map_truth, part_mass


@dataclass(frozen=True, eq=False)
class Seen:
    """Some images of a class as the network sees them.

    Attributes:
        images: preprocessed (M, C, H, W).
        masks: the number of the object at every pixel (M, H, W): background, parts, body, objects.
    """

    images: Float[Tensor, "images channels height width"]
    masks: Int64[Tensor, "images height width"]


def see(task: Task, rows: list[int]) -> Seen:
    """Read the located images at these rows.

    Raises:
        DataError: there are no part maps.
    """
    samples = [task.located[row] for row in rows]
    masks = [sample.masks for sample in samples if sample.masks is not None]
    if len(masks) < len(samples):
        raise DataError(
            f"{task.located.name} has no part maps, without which nobody knows where a map lies; "
            "put the folder test_part_map beside test"
        )
    return Seen(torch.stack([sample.image for sample in samples]), torch.stack(masks))


@dataclass(frozen=True, eq=False)
class Lying:
    """Where maps lie.

    Attributes:
        parts: share of the positive relevance on each part (M, n, P).
        background: share on the background and its objects (M, n).
        objects: share on the background's objects alone (M, n).
        mass: the positive relevance itself (M, n); small where a contrastive map is a residue.
    """

    parts: Float[Tensor, "images features parts"]
    background: Float[Tensor, "images features"]
    objects: Float[Tensor, "images features"]
    mass: Float[Tensor, "images features"]


def lie(maps: Float[Tensor, "images features height width"], seen: Seen, parts: int) -> Lying:
    """Where maps lie; numbers after the parts are the body and then objects."""
    numbers = max(int(seen.masks.max()) + 1, parts + 2)
    shares = part_mass(maps, seen.masks, numbers)
    objects = shares[:, :, parts + 2 :].sum(2)
    return Lying(
        parts=shares[:, :, 1 : parts + 1],
        background=shares[:, :, 0] + objects,
        objects=objects,
        mass=contrast_mass(maps),
    )


def draw(rule: str, module: torch.nn.Module, config: TruthConfig) -> Attributor:
    """The attribution method of a rule, with its settings."""
    options: dict[str, Any] = {"steps": config.steps} if rule == "integrated_gradients" else {}
    return attributor(rule, module, **options)


def feature_maps(
    task: Task, embedding: Embedding, seen: Seen, rule: str, config: TruthConfig
) -> Float[Tensor, "images features height width"]:
    """Maps of the x-features of an embedding by one rule, signed."""
    features = range(embedding.n_features)
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        if rule == "effective_weights":
            linear = EffectiveUnits(layer_of(task), embedding.units(), seen.images)
            return ExcitationBackprop(linear).attribute_many(seen.images, features)
        units = UnitsOfMany(layer_of(task), [embedding])
        if rule == "excitation_backprop" and isinstance(embedding, NMFConcepts):
            # No weight is negative, so a unit and its dual win alike.
            return ExcitationBackprop(units, contrastive=False).attribute_many(
                seen.images, features
            )
        return draw(rule, units, config).attribute_many(seen.images, features)


def logit_maps(
    task: Task, target: int, seen: Seen, rule: str, config: TruthConfig
) -> Float[Tensor, "images 1 height width"]:
    """Maps of the logit itself (the 1-heatmap) by one rule, signed."""
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        return draw(rule, task.model, config).attribute_many(seen.images, [target])


@dataclass(frozen=True, eq=False)
class Answered:
    """What the x-features of a method do on the images whose maps are drawn.

    Attributes:
        features: their values (M, n); one that is 0 is off, and has no map.
        changes: what they lose when a part goes (M, P, n).
        moving: those whose contributions move on all images of the class.
    """

    features: Float[Tensor, "images features"]
    changes: truth.Changes
    moving: tuple[int, ...]

    def there(self, lying: Lying) -> Bool[Tensor, "images features"]:
        """Which maps exist: of an x-feature that is on, with something positive in it."""
        return (self.features != 0) & (lying.mass > 0)


def truth_figures(lying: Lying, answered: Answered) -> dict[str, Any]:
    """Figures of the maps of one method by one rule, by name; see `MapTruth`.

    `background_objects` and `positive_mass` are means over the same maps.
    """
    there, kept = answered.there(lying), list(answered.moving)
    found = asdict(map_truth(lying.parts, lying.background, answered.changes, kept, there))
    drawn = there[:, kept]

    def over(values: Tensor) -> float | None:
        return float(values[:, kept][drawn].mean()) if bool(drawn.any()) else None

    return {
        "map_truth": found["own"],
        "map_truth_others": found["others"],
        "map_truth_exact": found["exact"],
        "background": found["background"],
        "background_objects": over(lying.objects),
        "positive_mass": over(lying.mass),
        "maps_missing": found["missing"],
    }


def each_feature(lying: Lying, answered: Answered) -> list[dict[str, Any]]:
    """Where the maps of every x-feature lie, means over those that exist, and whether it moves."""
    there = answered.there(lying)
    return [
        {
            "moves": feature in answered.moving,
            "background": float(lying.background[there[:, feature], feature].mean())
            if bool(there[:, feature].any())
            else None,
            "positive_mass": float(lying.mass[:, feature].mean()),
        }
        for feature in range(there.shape[1])
    ]


def by_rules(
    task: Task, embedding: Embedding, seen: Seen, config: TruthConfig
) -> Iterator[tuple[str, Tensor]]:
    """Maps of an embedding by every rule that its layer allows."""
    for rule in config.rules:
        if rule == "effective_weights" and embedding.has_maps:
            continue
        yield rule, feature_maps(task, embedding, seen, rule, config)
