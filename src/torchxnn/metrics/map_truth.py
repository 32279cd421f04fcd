"""Whether the map of an x-feature lies where the x-feature is decided, where causes are known.

A part is removed from an image and the image is made anew: what the x-feature loses is compared
with the share of its map that lay on the part. See `ground_truth` for what needs no maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.embeddings.exact import exact
from torchxnn.embeddings.matching import feature_correlation
from torchxnn.errors import DataError
from torchxnn.metrics.ground_truth import causal_shares, correlate


@dataclass(frozen=True)
class MapTruth:
    """Whether maps lie on the parts that their own x-features answer to.

    Attributes:
        own: correlation over images and parts of a map's mass on a part with the change of its own
            x-feature when the part goes, mean over the x-features; higher is better.
        others: the same with the change of the other x-features; should be lower. None if there is
            no other.
        background: share of the maps' mass on the background and its objects, mean over the same
            x-features; lower is better where the network looks at the object.
        features: how many x-features entered.
        missing: share of their maps that were left out because there is none: the x-feature is off,
            or nothing is positive.
        exact: `own` of maps that put on each part exactly its share of what the x-feature loses.
            Positive shares of 1 cannot say that an x-feature rises when a part goes, nor that it
            loses more on one image than on another, so this stays below 1; a map near it knows all
            that a map of shares can know.
    """

    own: float | None
    others: float | None
    background: float | None
    features: int
    missing: float | None
    exact: float | None = None


def map_truth(
    mass: Float[Tensor, "images features parts"],
    background: Float[Tensor, "others more"],
    changes: Float[Tensor, "rows removed columns"],
    kept: Sequence[int],
    there: Bool[Tensor, "maps units"],
) -> MapTruth:
    """Compare maps with what happens.

    Args:
        mass: share of each x-feature's positive relevance on each part, (M, n, P), from
            `part_mass`.
        background: its share on pixels that belong to no part of the object, (M, n).
        changes: of the x-features themselves (not of contributions, whose sign the readout sets),
            on the same images (M, P, n).
        kept: x-features that enter, such as those whose contributions are `moving`: the scale of an
            x-feature is arbitrary, that of its contribution is not.
        there: which maps exist, (M, n).

    Raises:
        DataError: shapes that do not belong together.
    """
    shape = mass.shape[:2]
    if mass.transpose(1, 2).shape != changes.shape or not shape == background.shape == there.shape:
        raise DataError(
            f"masses {tuple(mass.shape)}, backgrounds {tuple(background.shape)}, changes "
            f"{tuple(changes.shape)} and {tuple(there.shape)} maps do not belong together"
        )
    drawn = [feature for feature in kept if bool(there[:, feature].any())]
    if not drawn:
        return MapTruth(None, None, None, 0, 1.0 if len(kept) else None)
    own, others, lying, of_shares = [], [], [], []
    for feature in drawn:
        rows = there[:, feature]
        found = feature_correlation(
            mass[rows, feature].reshape(-1, 1), changes[rows][:, :, drawn].flatten(0, 1)
        )[0]
        change = changes[rows, :, feature]
        of_shares.append(correlate(causal_shares(change), change))
        same = torch.tensor(drawn) == feature
        own.append(found[same].mean())
        others += found[~same].tolist()
        lying.append(background[rows, feature].double().mean())
    return MapTruth(
        own=float(torch.stack(own).mean()),
        others=sum(others) / len(others) if others else None,
        background=float(torch.stack(lying).mean()),
        features=len(drawn),
        missing=1 - float(there[:, list(kept)].double().mean()),
        exact=sum(of_shares) / len(of_shares),
    )


def part_mass(
    maps: Float[Tensor, "images features height width"],
    masks: Int64[Tensor, "others rows columns"],
    numbers: int,
) -> Float[Tensor, "images features numbers"]:
    """Share of each map's positive relevance on the pixels of every number of a mask.

    Args:
        maps: signed maps (M, n, H, W); what is negative does not count.
        masks: a number per pixel (M, H, W), 0 to `numbers` - 1.
        numbers: how many there are.

    Returns:
        (M, n, numbers) float64, rows of sum 1, or 0 where a map has nothing positive.

    Raises:
        DataError: a number out of range, or shapes that do not belong together.
    """
    if maps.shape[2:] != masks.shape[1:] or len(maps) != len(masks):
        raise DataError(
            f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)} do not belong together"
        )
    if masks.numel() and not 0 <= int(masks.min()) <= int(masks.max()) < numbers:
        raise DataError(
            f"a mask has numbers {int(masks.min())} to {int(masks.max())}, expected 0 to "
            f"{numbers - 1}"
        )
    positive = exact(maps).clamp(min=0).flatten(2)
    index = masks.to(positive.device).flatten(1).unsqueeze(1).expand_as(positive)
    mass = positive.new_zeros((*positive.shape[:2], numbers)).scatter_add_(2, index, positive)
    return mass / mass.sum(2, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
