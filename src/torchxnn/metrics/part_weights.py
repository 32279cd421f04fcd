"""How much of every pixel belongs to which part: at the part, in its Voronoi cell, in its mask."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.errors import DataError, check_finite
from torchxnn.metrics.pointing import pixels_inside

CONTEXT = "context"
"""Name of the part after the last: everything outside the box of the object."""


@dataclass(frozen=True, eq=False)
class PixelWeights:
    """P(part | pixel) of one image, as a list of its entries; all others are 0.

    Attributes:
        pixels: (K,), row * width + column.
        parts: (K,), 0 to `n_parts` - 1, or `n_parts` for void: pixels of no class.
        weights: (K,), float64, in [0, 1].
        n_parts: P.
        size: height and width of the image.
        measured: (P,), False for parts that are not visible; they are left out of the mean.
        has_void: whether pixels of no class are among the entries.
    """

    pixels: Int64[Tensor, " entries"]
    parts: Int64[Tensor, " entries"]
    weights: Float[Tensor, " entries"]
    n_parts: int
    size: tuple[int, int]
    measured: Bool[Tensor, " parts"]
    has_void: bool = False

    def dense(self) -> Float[Tensor, "parts height width"]:
        """The planes of all parts, (P, H, W), without void; for drawing."""
        planes = torch.zeros(self.n_parts + 1, self.size[0] * self.size[1], dtype=torch.float64)
        planes.index_put_((self.parts, self.pixels), self.weights, accumulate=True)
        return planes[:-1].reshape(self.n_parts, *self.size)

    def cells(self) -> PixelWeights:
        """The same with weight 1 on every pixel of a part: what lies in its cell or mask at all."""
        return replace(self, weights=torch.ones_like(self.weights))

    def uniform(self) -> Float[Tensor, " parts"]:
        """Relevance that a uniform map has on every part: the chance level."""
        total = torch.bincount(self.parts, self.weights, minlength=self.n_parts + 1)
        return total[: self.n_parts].double() / (self.size[0] * self.size[1])


def pixel_weights_points(parts: Float[Tensor, "parts 3"], size: tuple[int, int]) -> PixelWeights:
    """Pixel-level probability: 1 at the pixel of every visible part (paper section 4.2).

    Two parts on one pixel both have it.

    Args:
        parts: (P, 3) of x, y, visible in pixels; the point (x, y) lies on the pixel of column
            floor(x) and row floor(y).
        size: height and width of the image.

    Raises:
        DataError: a visible part lies outside the image.
        NonFiniteError: a part holds NaN or infinity.
    """
    rows, columns, visible = _part_pixels(parts, size)
    index = visible.nonzero().flatten()
    return PixelWeights(
        pixels=rows[index] * size[1] + columns[index],
        parts=index,
        weights=torch.ones(len(index), dtype=torch.float64),
        n_parts=len(parts),
        size=size,
        measured=visible,
    )


def pixel_weights_voronoi(
    parts: Float[Tensor, "parts 3"], box: Float[Tensor, "4"], size: tuple[int, int]
) -> PixelWeights:
    r"""Voronoi-based probability (paper appendix II, Algorithm 1), with the context as last part.

    A pixel in the box belongs to the nearest visible part, with probability
    :math:`1-d_{ijp}/\max_{ij\in G_p}d_{ijp}`, d its distance from the pixel of part p and
    :math:`G_p` the pixels in the box that belong to p. Where the maximum is 0 the probability is 1.
    Equally near parts (such as two on one pixel) are won by the lower index; a visible part without
    a cell is measured as 0. Pixels outside the box belong to the context with probability 1.

    Args:
        parts: (P, 3) of x, y, visible in pixels, as in `pixel_weights_points`.
        box: x, y, width, height in pixels; a pixel lies in it if its centre does.
        size: height and width of the image.

    Returns:
        Weights of P + 1 parts. Without a visible part, pixels in the box belong to none.

    Raises:
        DataError: a visible part lies outside the image, or the box has a negative size.
        NonFiniteError: a part or the box holds NaN or infinity.
    """
    rows, columns, visible = _part_pixels(parts, size)
    inside = _box_pixels(box, size)
    outside = (~inside.flatten()).nonzero().flatten()
    y, x = inside.nonzero(as_tuple=True)
    index = visible.nonzero().flatten()
    if len(index) == 0:
        y = x = index
    owners, weights = _voronoi_cells(y, x, rows[index], columns[index])
    return PixelWeights(
        pixels=torch.cat([y * size[1] + x, outside]),
        parts=torch.cat([index[owners], torch.full_like(outside, len(parts))]),
        weights=torch.cat([weights, torch.ones(len(outside), dtype=torch.float64)]),
        n_parts=len(parts) + 1,
        size=size,
        measured=torch.cat([visible, torch.ones(1, dtype=torch.bool)]),
    )


def pixel_weights_masks(masks: Int64[Tensor, "height width"], n_objects: int) -> PixelWeights:
    """Membership in the segments of objects (paper section 4.2, Places).

    An object that is not in the image has no pixels and is measured as 0. Class numbers of pixels
    are 0 for void, which belongs to no object, and p + 1 for object p of the result.

    Raises:
        DataError: a class number is out of range.
    """
    low, high = (int(edge) for edge in masks.aminmax())
    if low < 0 or high > n_objects:
        raise DataError(
            f"class numbers of a mask must be 0 to {n_objects}, got {low if low < 0 else high}"
        )
    classes = masks.cpu().flatten()
    return PixelWeights(
        pixels=torch.arange(len(classes)),
        parts=torch.where(classes > 0, classes - 1, n_objects),
        weights=torch.ones(len(classes), dtype=torch.float64),
        n_parts=n_objects,
        size=(masks.shape[0], masks.shape[1]),
        measured=torch.ones(n_objects, dtype=torch.bool),
        has_void=True,
    )


def _voronoi_cells(
    y: Int64[Tensor, " pixels"],
    x: Int64[Tensor, " pixels"],
    rows: Int64[Tensor, " visible"],
    columns: Int64[Tensor, " visible"],
) -> tuple[Int64[Tensor, " pixels"], Float[Tensor, " pixels"]]:
    """The nearest part of every pixel and 1 - its distance / the largest in that part's cell."""
    if len(y) == 0:
        return y, torch.zeros(0, dtype=torch.float64)
    # sums of squares of whole numbers are exact, so equal distances are; min takes the first
    squared = (y.double() - rows.double().unsqueeze(1)).square_()
    squared += (x.double() - columns.double().unsqueeze(1)).square_()
    nearest, owners = squared.min(0)
    distance = nearest.sqrt()
    farthest = torch.zeros(len(rows), dtype=torch.float64)
    farthest.scatter_reduce_(0, owners, distance, "amax")
    largest = farthest[owners]
    return owners, 1 - torch.where(largest > 0, distance / largest, 0.0)


def _part_pixels(
    parts: Float[Tensor, "parts 3"], size: tuple[int, int]
) -> tuple[Int64[Tensor, " parts"], Int64[Tensor, " parts"], Bool[Tensor, " parts"]]:
    check_finite("a part location holds NaN or infinity", parts)
    parts = parts.cpu()
    columns, rows = parts[:, :2].floor().long().T
    visible = parts[:, 2] > 0
    outside = (rows < 0) | (rows >= size[0]) | (columns < 0) | (columns >= size[1])
    for index in (outside & visible).nonzero().flatten().tolist():
        raise DataError(
            f"part {index} lies at ({float(parts[index, 0])}, {float(parts[index, 1])}), outside "
            f"the image of {size[1]} x {size[0]} pixels; parts that were cut off are not visible"
        )
    return rows, columns, visible


def _box_pixels(box: Float[Tensor, "4"], size: tuple[int, int]) -> Bool[Tensor, "height width"]:
    check_finite("a bounding box holds NaN or infinity", box)
    if bool((box[2:] < 0).any()):
        raise DataError("a box has a negative width or height; boxes are x, y, width, height")
    return pixels_inside(box.cpu().unsqueeze(0), size)[0]
