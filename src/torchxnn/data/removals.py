"""What a network does on images that are whole, and on each without one thing that it shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from torchxnn.data.datasets.planted import PlantedShapes
from torchxnn.data.record import record_activations
from torchxnn.errors import DataError

_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class RecordedRemovals:
    """Activations and logits of M images, and of each without each of P things.

    Where an image does not show a thing, nothing is removed and nothing changes.

    Attributes:
        images: (M, C, H, W), whole.
        masks: number of the thing of every pixel, 1 to P, 0 and above P for what is none.
        present: (M, P), which image shows which thing.
        z: activations of the whole images (M, S).
        z_without: (M, P, S).
        logits: of the whole images (M, K).
        logits_without: (M, P, K).
    """

    images: Float[Tensor, "images channels height width"]
    masks: Int64[Tensor, "images height width"]
    present: Bool[Tensor, "images things"]
    z: Float[Tensor, "images dims"]
    z_without: Float[Tensor, "images things dims"]
    logits: Float[Tensor, "images outputs"]
    logits_without: Float[Tensor, "images things outputs"]


def record_removals(
    model: nn.Module, layer: str, dataset: PlantedShapes, target: int, most: int = 100
) -> RecordedRemovals:
    """Record the first images of a class, whole and without each thing that they show.

    Args:
        model: the network.
        layer: dotted name of a layer that gives one vector per image.
        dataset: the images.
        target: the class.
        most: images of it at most.

    Raises:
        DataError: the data set has no image of the class.
    """
    chosen = [index for index, label in enumerate(dataset.labels or ()) if label == target][:most]
    if not chosen:
        raise DataError(f"{dataset.name} has no image of class {target}; draw more images")
    present = dataset.present[chosen]
    image, thing = present.nonzero(as_tuple=True)
    pairs = torch.stack([torch.tensor(chosen)[image], thing], 1)
    batches = pairs.split(_AT_ONCE)
    images = dataset.render(chosen)
    whole = record_activations(model, layer, images.split(_AT_ONCE))
    less = record_activations(model, layer, (dataset.render(*part.T.tolist()) for part in batches))
    z_without = whole.z.unsqueeze(1).repeat(1, present.shape[1], 1)
    logits_without = whole.logits.unsqueeze(1).repeat(1, present.shape[1], 1)
    z_without[image, thing], logits_without[image, thing] = less.z, less.logits
    return RecordedRemovals(
        images,
        torch.stack([dataset.mask(index) for index in chosen]),
        present,
        whole.z,
        z_without,
        whole.logits,
        logits_without,
    )
