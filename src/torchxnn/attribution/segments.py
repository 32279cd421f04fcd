"""Segments of an image, and what an image would show without one of them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

SMOOTHING = 0.5
"""Standard deviation in pixels of the Gaussian that takes noise away before segments are cut."""


def segment(
    image: Float[Tensor, "channels height width"], scale: float, smallest: float
) -> Int64[Tensor, "height width"]:
    """Cut an image into segments of like colour, connected over edges and corners of pixels.

    Two segments A, B grow together over the smallest difference of neighbouring pixels between them
    if it is at most min(I(A) + k / |A|, I(B) + k / |B|), with I the largest difference over which
    parts of a segment grew together. Source: Felzenszwalb, Huttenlocher, Efficient graph-based
    image segmentation, 2004.

    Args:
        image: in any scale; differences are measured in standard deviations of its values.
        scale: k as a share of the pixels, so that images of two sizes are cut alike.
        smallest: share of the pixels below which a segment is joined to its nearest neighbour.

    Returns:
        A number per pixel, 0 to the number of segments - 1.
    """
    from scipy.ndimage import gaussian_filter

    values = image.detach().cpu().double().numpy()
    spread = values.std()
    if not spread > 0:
        return torch.zeros(image.shape[1:], dtype=torch.int64)
    smooth = np.stack([gaussian_filter(channel / spread, SMOOTHING) for channel in values])
    pixels = smooth[0].size
    found = _join(_edges(smooth), pixels, scale * pixels, smallest * pixels)
    numbers = np.unique(found, return_inverse=True)[1]
    return torch.from_numpy(numbers.reshape(smooth.shape[1:]).astype(np.int64))


def neighbours(
    image: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of neighbouring pixels of (C, H, W), and the distances of their colours."""
    height, width = image.shape[1:]
    places = np.arange(height * width).reshape(height, width)
    firsts, seconds, distances = [], [], []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        left = max(0, -right)
        near = (slice(0, height - down), slice(left, width - max(0, right)))
        far = (slice(down, height), slice(left + right, width - max(0, right) + right))
        firsts.append(places[near].ravel())
        seconds.append(places[far].ravel())
        step = image[:, near[0], near[1]] - image[:, far[0], far[1]]
        distances.append(np.sqrt(np.square(step).sum(0)).ravel())
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(distances)


def _edges(image: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs of neighbouring pixels with their distances, the nearest first."""
    columns = neighbours(image)
    order = np.argsort(columns[2], kind="stable")
    return list(zip(*(column[order].tolist() for column in columns), strict=True))


def _join(
    edges: list[tuple[int, int, float]], pixels: int, scale: float, smallest: float
) -> list[int]:
    """The segment of every pixel, named by one of its pixels."""
    parent, size, limit = list(range(pixels)), [1] * pixels, [scale] * pixels

    def root(pixel: int) -> int:
        while parent[pixel] != pixel:
            parent[pixel] = parent[parent[pixel]]
            pixel = parent[pixel]
        return pixel

    def join(first: int, second: int, length: float) -> None:
        if size[first] < size[second]:
            first, second = second, first
        parent[second] = first
        size[first] += size[second]
        limit[first] = length + scale / size[first]

    for one, other, length in edges:
        first, second = root(one), root(other)
        if length <= limit[first] and length <= limit[second] and first != second:
            join(first, second, length)
    for one, other, length in edges:
        first, second = root(one), root(other)
        if first != second and min(size[first], size[second]) < smallest:
            join(first, second, length)
    return [root(pixel) for pixel in range(pixels)]


def fill_from_around(
    image: Float[Tensor, "channels height width"], hidden: Bool[Tensor, "masks height width"]
) -> Float[Tensor, "masks channels height width"]:
    """The image with each hidden region filled smoothly with the colours around it.

    Known pixels are averaged 2 x 2 by 2 x 2 up to a single one, and every level takes what it does
    not know from the next coarser one, enlarged: the push-pull of Gortler, Grzeszczuk, Szeliski,
    Cohen, The lumigraph, 1996, section 3.4. No hidden pixel has a say; one that is known stays.

    Args:
        image: (C, H, W).
        hidden: masks (K, H, W), each with a pixel that is not hidden.
    """
    weight = (~hidden).to(image.dtype).unsqueeze(1)
    levels = [(image * weight, weight)]
    while max(levels[-1][0].shape[2:]) > 1:
        levels.append((_halve(levels[-1][0]), _halve(levels[-1][1])))
    colour, known = levels.pop()
    filled = colour / known
    for colour, known in reversed(levels):
        size = colour.shape[2:]
        coarse = functional.interpolate(filled, size, mode="bilinear", align_corners=False)
        filled = colour + (1 - known) * coarse
    return filled


def _halve(maps: Tensor) -> Tensor:
    return functional.avg_pool2d(maps, 2, ceil_mode=True)
