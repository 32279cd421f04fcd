"""Pictures of the practice round: plain shapes, whose groups anybody finds."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np
from jaxtyping import Float

from torchxnn.apps.study.media import Media, Picture
from torchxnn.apps.study.plan import StudyImage
from torchxnn.explanations.drawing.overlay import overlay

SIZE = 320
SHAPES = ("circle", "square", "triangle", "star")
EACH = 2
_PAPER = (238, 240, 243)
_COLOURS = ((196, 78, 82), (76, 114, 176), (85, 168, 104), (129, 114, 178))


def make_practice(media: Media, features: int, seed: int) -> tuple[StudyImage, ...]:
    """Draw two pictures of each of four shapes in different colours, sizes and places.

    The first heatmap lies on the inside of the shape, the second on its outline, the third, which
    speaks against, on the ground; the others hold nothing but noise and count for little.
    """
    generator = random.Random(f"{seed}/practice")
    found = []
    for shape in SHAPES:
        for _ in range(EACH):
            mask = _shape(shape, generator)
            picture = _paint(mask, generator.choice(_COLOURS))
            maps, shares = _heatmaps(mask, features, generator)
            found.append(
                StudyImage(
                    id=media.id(),
                    file=f"practice: {shape}",
                    label=shape,
                    predicted=shape,
                    set=0,
                    picture=media.add(picture),
                    heatmaps={"excitation_backprop": media.add(overlay(picture, maps[0]))},
                    overlays=tuple(media.add(overlay(picture, each)) for each in maps),
                    contributions=tuple(shares),
                )
            )
    return tuple(found)


def _shape(shape: str, generator: random.Random) -> Float[np.ndarray, "height width"]:
    """1 inside the shape, 0 outside."""
    radius = generator.uniform(0.2, 0.3) * SIZE
    x, y = (generator.uniform(0.35, 0.65) * SIZE for _ in range(2))
    mask = np.zeros((SIZE, SIZE), np.uint8)
    if shape == "circle":
        cv2.circle(mask, (round(x), round(y)), round(radius), 1, -1, cv2.LINE_AA)
        return mask.astype(np.float64)
    corners = {"square": 4, "triangle": 3, "star": 10}[shape]
    turn = generator.uniform(-0.25, 0.25) - math.pi / 2
    points = []
    for corner in range(corners):
        length = radius * (0.45 if shape == "star" and corner % 2 else 1)
        angle = turn + 2 * math.pi * corner / corners
        points.append((x + length * math.cos(angle), y + length * math.sin(angle)))
    cv2.fillPoly(mask, [np.array(points).round().astype(np.int32)], 1)
    return mask.astype(np.float64)


def _paint(mask: Float[np.ndarray, "height width"], colour: tuple[int, int, int]) -> Picture:
    weight = cv2.GaussianBlur(mask, (0, 0), 0.8)[..., None]
    return (np.array(_PAPER) * (1 - weight) + np.array(colour) * weight).astype(np.uint8)


def _heatmaps(
    mask: Float[np.ndarray, "height width"], features: int, generator: random.Random
) -> tuple[list[Float[np.ndarray, "height width"]], list[float]]:
    soft = cv2.GaussianBlur(mask, (0, 0), 6)
    outline = cv2.GaussianBlur(np.abs(cv2.Laplacian(soft, cv2.CV_64F)), (0, 0), 4)
    noise = np.random.default_rng(generator.getrandbits(32))
    maps = [soft, outline, 1 - cv2.GaussianBlur(mask, (0, 0), 25)]
    while len(maps) < features:
        maps.append(cv2.GaussianBlur(noise.random((SIZE, SIZE)), (0, 0), 22))
    rest = max(1, features - 3)
    shares = [0.5, 0.3, -0.15, *([round(0.05 / rest, 3)] * rest)]
    scaled = [(each - each.min()) / max(float(np.ptp(each)), 1e-9) for each in maps[:features]]
    return scaled, shares[:features]
