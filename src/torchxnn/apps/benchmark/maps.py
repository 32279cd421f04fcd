"""Draw the maps of many methods on one image, and keep only what is measured of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.apps.benchmark.methods import UnitsOfMany
from torchxnn.apps.benchmark.tasks import Task
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.methods import attributor
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import XNNWarning
from torchxnn.metrics.locality import Locality, RelevanceHistograms
from torchxnn.metrics.orthogonality import MapCovariance
from torchxnn.metrics.part_weights import CONTEXT, PixelWeights
from torchxnn.models.layers import as_activations, run_to_layer

SQUARES = 7
"""Squares along the longer side of an image that occlusion hides one by one."""

OCCLUSION = "occlusion_correlation"
INTEGRATED = "integrated_gradients_correlation"

WITHOUT_CONTRAST = ("NMF",)
"""Methods whose maps are marginal: where no weight is negative, a unit and its dual win alike, and
the contrastive map is 0 everywhere."""


class UnitMaps:
    """Maps of the concepts of all methods, two passes over the network for all of them.

    `layer_output` makes the activations Z (B, S_z) of images, which the methods embed.
    """

    def __init__(
        self, layer_output: Callable[[Tensor], Tensor], fitted: dict[str, Embedding]
    ) -> None:
        self._groups: list[tuple[ExcitationBackprop, dict[str, int]]] = []
        for contrastive in (True, False):
            group = {
                name: embedding
                for name, embedding in fitted.items()
                if (name not in WITHOUT_CONTRAST) == contrastive
            }
            if group:
                units = UnitsOfMany(layer_output, list(group.values()))
                method = ExcitationBackprop(units, contrastive=contrastive)
                sizes = {name: embedding.n_features for name, embedding in group.items()}
                self._groups.append((method, sizes))

    def draw(self, images: Tensor) -> dict[str, Tensor]:
        """Maps (B, n, H, W) by method."""
        found: dict[str, Tensor] = {}
        for method, sizes in self._groups:
            maps = method.attribute_many(images, range(sum(sizes.values())))
            found |= dict(zip(sizes, maps.split(list(sizes.values()), 1), strict=True))
        return found


class MapFigures:
    """Orthogonality and locality of the n maps of one method, without keeping the maps."""

    def __init__(self, n_features: int, parts: tuple[str, ...]) -> None:
        self.covariance = MapCovariance(n_features)
        self.histograms = RelevanceHistograms(n_features, parts)
        self.parts = parts
        self.context = (CONTEXT,) if CONTEXT in parts else ()
        self.located = True

    def add(self, maps: Tensor, weights: list[PixelWeights] | None) -> None:
        """Add maps (B, n, H, W) with the pixel weights of their images; without, no locality."""
        self.covariance.update(maps)
        self.located = weights is not None
        if weights is not None:
            self.histograms.update(maps, weights)

    def figures(self, features: Tensor | None, *, many: bool) -> dict[str, Any]:
        """Figures by name; `many` asks for those between concepts, too.

        Concepts that are 0 on all rows of `features` (M, n) are dead and left out.
        """
        off = [] if features is None else (features == 0).all(0).nonzero().flatten().tolist()
        dead, found = tuple(off), dict[str, Any]()
        # dead concepts are counted in the tables
        with warnings.catch_warnings(action="ignore", category=XNNWarning):
            if self.located:
                places = self.histograms.result(dead)
                object_alone = self.histograms.result(dead, without=self.context)
                found = {
                    "locality": places.value,
                    "locality_interval": [places.interval.low, places.interval.high],
                    "locality_chance": places.chance,
                    "locality_without_context": object_alone.value,
                    "locality_without_context_chance": object_alone.chance,
                    **self._off_object(places, dead),
                    "histogram": places.histogram,
                    "void_share": places.void_share,
                }
            if many:
                pairs = self.covariance.result(dead)
                found |= {
                    "o1": pairs.o1,
                    "o2": pairs.o2,
                    "mean_squared_correlation": pairs.mean_squared_correlation,
                    "alive": pairs.alive,
                }
        return found

    def _off_object(self, places: Locality, dead: tuple[int, ...]) -> dict[str, float]:
        """Share of the relevance outside the object's box, of the concepts and of a uniform map."""
        if not self.context:
            return {}
        place = self.parts.index(CONTEXT)
        alive = [row[place] for i, row in enumerate(places.histogram) if i not in dead]
        return {
            "off_object": sum(alive) / len(alive) if alive else math.nan,
            "off_object_chance": places.chance_histogram[place],
        }


class OtherMaps:
    """Overlap of maps by methods that no fit was trained on: occlusion, integrated gradients.

    SRAE-R is trained on relevance that is much like excitation backprop's, so that excitation
    backprop alone cannot say whether its x-features look at different things.

    Args:
        layer_output: images to the activations Z (B, S_z).
        embeddings: on that layer.
    """

    def __init__(
        self, layer_output: Callable[[Tensor], Tensor], embeddings: list[Embedding]
    ) -> None:
        self._units = UnitsOfMany(layer_output, embeddings)
        self._overlaps: dict[str, list[MapCovariance]] = {}

    @torch.no_grad()
    def occlude(self, occluded: Float[Tensor, "images looks dims"]) -> None:
        """Add what the units lose where squares are hidden; see `occluded_activations`."""
        units = torch.cat([unit(occluded.flatten(0, 1)) for unit in self._units.units], 1)
        values = units.unflatten(0, occluded.shape[:2])
        self._add(OCCLUSION, (values[:, :1] - values[:, 1:]).transpose(1, 2).unsqueeze(3))

    def integrate(self, images: Tensor, steps: int) -> None:
        """Add integrated gradients, with so many steps."""
        method = attributor("integrated_gradients", self._units, steps=steps)
        with warnings.catch_warnings(action="ignore", category=XNNWarning):
            maps = method.attribute_many(images, range(sum(self._units.sizes)))
        self._add(INTEGRATED, maps)

    def _add(self, name: str, maps: Float[Tensor, "images units height width"]) -> None:
        sizes = self._units.sizes
        kept = self._overlaps.setdefault(name, [MapCovariance(n) for n in sizes])
        for overlap, own in zip(kept, maps.split(sizes, 1), strict=True):
            overlap.update(own)

    def figures(self, features: Tensor, which: int = 0) -> dict[str, float]:
        """Mean squared correlation of the maps of one embedding, by figure; see `MapFigures`."""
        dead = tuple((features == 0).all(0).nonzero().flatten().tolist())
        with warnings.catch_warnings(action="ignore", category=XNNWarning):
            return {
                name: overlaps[which].result(dead).mean_squared_correlation
                for name, overlaps in self._overlaps.items()
            }


@torch.no_grad()
def occluded_activations(
    layer_output: Callable[[Tensor], Tensor], images: Float[Tensor, "images channels height width"]
) -> Float[Tensor, "images looks dims"]:
    """Z of each image as it is, and then with one square of a grid after another set to 0.

    0 is the mean colour of preprocessed images, and the squares have a seventh of the longer side.
    One pass serves the occlusion maps of everything that reads Z.
    """
    side = -(-max(images.shape[2:]) // SQUARES)
    found = []
    for image in images:
        looks = [image]
        for top in range(0, image.shape[1], side):
            for left in range(0, image.shape[2], side):
                hidden = image.clone()
                hidden[:, top : top + side, left : left + side] = 0
                looks.append(hidden)
        found.append(layer_output(torch.stack(looks)))
    return torch.stack(found)


def layer_of(task: Task) -> Callable[[Tensor], Tensor]:
    """Images to the activations Z (B, S_z) of the task's layer."""

    def run(images: Tensor) -> Tensor:
        output = run_to_layer(task.model, task.source.layer, images)
        return as_activations(output, task.source.layer, images).float()

    return run
