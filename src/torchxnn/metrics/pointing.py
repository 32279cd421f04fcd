"""The pointing game: does the maximum of a heatmap lie on the object?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.embeddings.exact import exact
from torchxnn.errors import DataError, check_finite


@dataclass(frozen=True)
class Pointing:
    """Result of the pointing game over a set of maps.

    Attributes:
        hit_rate: mean hit of the maps, a fraction; higher is better.
        chance: mean share of the picture inside the box: the hit rate of a random pixel, and of a
            map without a maximum.
        maps: number of maps.
        empty: maps without a positive value; each counts as its chance level.
    """

    hit_rate: float
    chance: float
    maps: int
    empty: int


def pointing_game(
    maps: Float[Tensor, "maps height width"], boxes: Float[Tensor, "maps 4"]
) -> Pointing:
    """Share of maps whose maximum lies in the box of the object.

    Source: Zhang et al., Top-down neural attention by excitation backprop, 2016, section 4.2; there
    a hit may miss the object by 15 pixels, here it may not. See `pointing_hits` for ties.

    Args:
        maps: signed or not.
        boxes: x, y, width, height in pixels, x to the right and y down from the top left corner.

    Raises:
        DataError: no maps, another number of boxes, or a box of negative size.
        NonFiniteError: a map or a box holds NaN or infinity.

    Example:
        >>> pointing_game(xnn.attribute(images)[:, 0], boxes).hit_rate
    """
    hits = pointing_hits(maps, boxes)
    return Pointing(
        hit_rate=float(hits.mean()),
        chance=float(chance_levels(boxes, (maps.shape[1], maps.shape[2])).mean()),
        maps=len(maps),
        empty=int((maps.flatten(1).amax(1) <= 0).sum()),
    )


def pointing_hits(
    maps: Float[Tensor, "maps height width"], boxes: Float[Tensor, "maps 4"]
) -> Float[Tensor, " maps"]:
    """The hit of every map: 1 if its maximum lies in the box, 0 if not.

    Negative values count as 0, as in every metric. Several pixels that share the maximum share the
    hit: it is the probability that one of them, drawn at random, lies in the box. So a map without
    a positive value, all of whose pixels tie at 0, gets the chance level.

    Args:
        maps: (M, H, W).
        boxes: (M, 4), x, y, width, height. A pixel lies in a box if its centre does.

    Raises:
        DataError, NonFiniteError: as `pointing_game`.
    """
    _check(maps, boxes)
    positive = maps.clamp(min=0).flatten(1)
    top = positive == positive.amax(1, keepdim=True)
    inside = pixels_inside(boxes, (maps.shape[1], maps.shape[2])).to(maps.device).flatten(1)
    return exact((top & inside).sum(1)) / exact(top.sum(1))


def chance_levels(boxes: Float[Tensor, "maps 4"], size: tuple[int, int]) -> Float[Tensor, " maps"]:
    """Share of the picture inside each box: the hit of a pixel drawn at random.

    The arguments are those of `pixels_inside`.
    """
    return exact(pixels_inside(boxes, size).flatten(1)).mean(1)


def pixels_inside(
    boxes: Float[Tensor, "maps 4"], size: tuple[int, int]
) -> Bool[Tensor, "maps height width"]:
    """Which pixels have their centre in the box; a box includes its left and upper edge.

    Args:
        boxes: (M, 4), x, y, width, height.
        size: height and width of the picture.
    """
    x, y, width, height = boxes.T.unsqueeze(2)
    rows = torch.arange(size[0], device=boxes.device) + 0.5
    columns = torch.arange(size[1], device=boxes.device) + 0.5
    in_rows = (rows >= y) & (rows < y + height)
    in_columns = (columns >= x) & (columns < x + width)
    return in_rows.unsqueeze(2) & in_columns.unsqueeze(1)


def _check(maps: Tensor, boxes: Tensor) -> None:
    if len(maps) == 0:
        raise DataError("there are no maps to play the pointing game with")
    check_finite("a heatmap or a box of the pointing game holds NaN or infinity", maps, boxes)
    if bool((boxes[:, 2:] < 0).any()):
        raise DataError("a box has a negative width or height; boxes are x, y, width, height")
