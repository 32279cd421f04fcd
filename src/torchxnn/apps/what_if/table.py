"""Insertion and deletion by x-feature over a data set: does the network really use them?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.apps.gallery import evenly_spaced
from torchxnn.apps.what_if.config import WhatIfConfig
from torchxnn.apps.what_if.painting import paint_over, preprocessing_of, regions_of
from torchxnn.data.datasets.base import ImageDataset, make_loader
from torchxnn.data.positives import positives_of, target_position
from torchxnn.errors import DataError
from torchxnn.metrics.config import Inpainting
from torchxnn.metrics.insertion_deletion import (
    FeatureUse,
    StepCurve,
    deletion_masks,
    feature_use,
    insertion_masks,
    shifted_regions,
    step_curve,
)
from torchxnn.models.outputs import class_probabilities
from torchxnn.xnn import XNN

Way = Literal["deletion", "insertion"]
Order = Literal["contribution", "random", "elsewhere"]
Figure = Literal["logit", "probability", "reproduced"]

WAYS: tuple[Way, ...] = ("deletion", "insertion")
ORDERS: tuple[Order, ...] = ("contribution", "random", "elsewhere")
FIGURES: tuple[Figure, ...] = ("logit", "probability", "reproduced")


@dataclass(frozen=True)
class Curve:
    """One curve of the table.

    Attributes:
        way: regions are painted over one after the other ("deletion", a low area is good), or given
            back to a picture without any of them ("insertion", a high area is good).
        order: by "contribution", largest first; at "random"; or by contribution, with every region
            moved "elsewhere".
        figure: the network's "logit", its "probability", or the "reproduced" logit.
        curve: see `StepCurve`.
    """

    way: Way
    order: Order
    figure: Figure
    curve: StepCurve


@dataclass(frozen=True)
class WhatIfTable:
    """Whether the network uses the x-features, over images of the class.

    Attributes:
        target: 0-based class.
        target_name: its name.
        feature_names: one per x-feature.
        images: that were used.
        positives_by: what made an image one of the class.
        features: per x-feature; None if it is active on none of the images.
        curves: every combination of way, order and figure; a value has no probability.
        config: the settings.
    """

    target: int
    target_name: str
    feature_names: tuple[str, ...]
    images: int
    positives_by: str
    features: tuple[FeatureUse | None, ...]
    curves: tuple[Curve, ...]
    config: WhatIfConfig

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What the curves are of."""
        found = {curve.figure for curve in self.curves}
        return tuple(figure for figure in FIGURES if figure in found)

    def curve(self, way: Way, order: Order = "contribution", figure: Figure = "logit") -> StepCurve:
        """One of the curves."""
        wanted = way, order, figure
        return next(c.curve for c in self.curves if (c.way, c.order, c.figure) == wanted)


def what_if_table(
    xnn: XNN,
    dataset: ImageDataset,
    *,
    target: int | None = None,
    most: int | None = 32,
    config: WhatIfConfig | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> WhatIfTable:
    """Delete and insert x-features on the images of a class; see `Curve` for what is compared.

    All pictures of one image go through the network in one batch.

    Args:
        xnn: fitted.
        dataset: images, best those that were not fitted.
        target: class; None takes the first that the XNN explains.
        most: images to use, evenly spread over those of the class; None takes all.
        config: the settings; of the controls one per x-feature is used for the curves.
        on_image: called with the images done and their total.

    Raises:
        DataError: no images of the class, no such target, or a network of volumes.
        XNNError: the XNN is not fitted, or does not say how pictures are preprocessed.

    Example:
        >>> table = what_if_table(xnn, dataset)
        >>> table.curve("deletion").area, table.curve("deletion", "elsewhere").area
    """
    config = config or WhatIfConfig()
    preprocessing_of(xnn)
    index = target_position(xnn.targets, target)
    rows, by = _positives(xnn, dataset, index)
    rows = evenly_spaced(rows, most)
    parts = []
    for done, row in enumerate(rows, 1):
        image = dataset[row].image.to(xnn.device)
        parts.append(_measure(xnn, image, index, config, seed=config.seed + row))
        if on_image is not None:
            on_image(done, len(rows))
    claimed, real, control = (torch.stack([part[0][i] for part in parts]) for i in range(3))
    active = torch.stack([part[1] for part in parts])
    values = {key: torch.stack([part[2][key] for part in parts]) for key in parts[0][2]}
    return WhatIfTable(
        target=xnn.targets[index],
        target_name=xnn.target_name(xnn.targets[index]),
        feature_names=tuple(xnn.feature_names),
        images=len(rows),
        positives_by=by,
        features=tuple(
            feature_use(claimed[on, i], real[on, i], control[on, i]) if bool(on.any()) else None
            for i, on in enumerate(active.T)
        ),
        curves=tuple(
            Curve(way, order, figure, step_curve(values[way, order][:, :, at]))
            for way in WAYS
            for order in ORDERS
            for at, figure in enumerate(FIGURES)
            if figure != "probability" or xnn.meaning.outputs_are != "value"
        ),
        config=config,
    )


def _positives(xnn: XNN, dataset: ImageDataset, index: int) -> tuple[list[int], str]:
    target, labels, logits = xnn.targets[index], None, None
    if dataset.labels is not None:
        labels = torch.tensor(dataset.labels)
    else:
        batches = (xnn.run(images.to(xnn.device)) for images in make_loader(dataset))
        logits = torch.cat([said.logits.cpu() for said in batches])
    positives, by = positives_of(labels, logits, [target], xnn.outputs, xnn.meaning)
    if not bool(positives.any()):
        raise DataError(f"{dataset.name} has no images of {xnn.target_name(target)}")
    return positives[:, 0].nonzero().flatten().tolist(), by


_Curves = dict[tuple[Way, Order], Float[Tensor, "steps figures"]]


def _measure(
    xnn: XNN, image: Float[Tensor, "3 height width"], index: int, config: WhatIfConfig, seed: int
) -> tuple[tuple[Tensor, Tensor, Tensor], Bool[Tensor, " features"], _Curves]:
    """Changes per x-feature (claimed, real, control), which are active, and the curves."""
    batch = image.unsqueeze(0)
    found = xnn.run_with_maps(batch)
    said = found.output.cpu()
    active, contributions = said.features[0] > 0, said.contributions[0, index]
    regions = regions_of(found.heatmaps[0], active, config)
    moved = shifted_regions(regions, seed)
    falling = contributions.argsort(descending=True, stable=True)
    drawn = torch.randperm(len(falling), generator=torch.Generator().manual_seed(seed))
    plans = {"contribution": (regions, falling), "random": (regions, drawn),
             "elsewhere": (moved, falling)}  # fmt: skip
    masks = {"single": ~regions, "control": ~moved}
    for order, plan in plans.items():
        masks[f"deletion {order}"] = deletion_masks(*plan)
        masks[f"insertion {order}"] = insertion_masks(*plan)
    figures = _figures_of(xnn, batch, torch.cat(list(masks.values())), index, config.inpainting)
    parts = dict(zip(masks, figures.split([len(each) for each in masks.values()]), strict=True))
    own = float(said.logits[0, xnn.targets[index]])
    changes = -contributions, parts["single"][:, 0] - own, parts["control"][:, 0] - own
    curves = {(way, order): parts[f"{way} {order}"] for way in WAYS for order in ORDERS}
    return changes, active, curves


@torch.no_grad()
def _figures_of(
    xnn: XNN,
    batch: Float[Tensor, "1 channels height width"],
    keep: Bool[Tensor, "masks height width"],
    index: int,
    inpainting: Inpainting,
) -> Float[Tensor, "masks 3"]:
    """Logit, probability and reproduced logit of the picture under each mask; equal ones once."""
    masks, inverse = keep.flatten(1).unique(dim=0, return_inverse=True)
    masks = masks.unflatten(1, keep.shape[1:])
    said = xnn.run(paint_over(batch, masks, preprocessing_of(xnn), inpainting)).cpu()
    logits, target = said.logits.float(), xnn.targets[index]
    chances = class_probabilities(logits, xnn.meaning)
    figures = [logits[:, target], chances[:, target], said.reproduced[:, index].float()]
    return torch.stack(figures, 1)[inverse]
