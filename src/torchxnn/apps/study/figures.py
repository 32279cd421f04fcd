"""Drawn beetles and leaves: kinds that nobody can read off, as two small details decide.

Everything that catches the eye (colour, size, pattern, tilt, a white mark in the middle) is drawn
at random. A kind shows in two details alone, which are small and lie in places of their own: of a
beetle the tips of the antennae and the end of its back, of a leaf its tip and its stalk.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

from torchxnn.apps.study.media import Picture

SIZE = 96
"""Height and width of a picture in pixels."""

KINDS = 4
_FINE = 4  # points per pixel and direction while drawing
_SIDE = SIZE * _FINE
_INK = (40, 36, 34)

Point = tuple[float, float]


def draw_beetle(kind: int, generator: np.random.Generator) -> Picture:
    """A beetle from above, its head up: a kind has tips of antennae and an end of its own."""
    canvas = _ground(generator)
    long, wide = generator.uniform(0.25, 0.3), generator.uniform(0.17, 0.21)
    centre, body = (0.5, 0.6), _colour(generator)
    for side in (-1, 1):
        for height in (-0.1, 0.03, 0.15):
            foot = (0.5 + side * generator.uniform(0.28, 0.36), 0.6 + 1.6 * height)
            _line(canvas, [(0.5 + side * 0.1, 0.6 + height), foot], 0.016)
        _antenna(canvas, side, kind, generator)
    _oval(canvas, (0.5, 0.34), (0.1, 0.085), _darker(body))
    _oval(canvas, centre, (wide, long), body)
    for _ in range(generator.integers(0, 6)):
        spot = 0.5 + generator.uniform(-0.1, 0.1), 0.6 + generator.choice([-1, 1]) * 0.16
        _oval(canvas, spot, (0.02, 0.02), _darker(body))
    if generator.random() < 0.5:
        _line(canvas, [(0.5, 0.4), (0.5, 0.86)], 0.01)
    _end(canvas, 0.6 + long, kind)
    _decoy(canvas, 0.6, generator)
    return _finish(canvas, generator)


def _antenna(canvas: Picture, side: int, kind: int, generator: np.random.Generator) -> None:
    root, tip = (0.5 + side * 0.05, 0.28), (0.5 + side * generator.uniform(0.17, 0.22), 0.13)
    _line(canvas, [root, tip], 0.014)
    x, y = tip
    if kind == 0:
        _oval(canvas, tip, (0.035, 0.035), _INK)
    elif kind == 1:
        _line(canvas, [(x - 0.045, y - 0.06), tip, (x + 0.045, y - 0.06)], 0.014)
    elif kind == 2:
        _line(canvas, [tip, (x + side * 0.07, y), (x + side * 0.07, y + 0.07)], 0.014)


def _end(canvas: Picture, y: float, kind: int) -> None:
    """The last segment: one spike, two, a knob, or nothing."""
    if kind == 0:
        _line(canvas, [(0.5, y - 0.02), (0.5, y + 0.07)], 0.018)
    elif kind == 1:
        _line(canvas, [(0.45, y + 0.06), (0.47, y - 0.02)], 0.014)
        _line(canvas, [(0.55, y + 0.06), (0.53, y - 0.02)], 0.014)
    elif kind == 2:
        _oval(canvas, (0.5, y + 0.02), (0.03, 0.03), _INK)


def _decoy(canvas: Picture, height: float, generator: np.random.Generator) -> None:
    """A white mark that anybody would sort by, and that says nothing."""
    (x, y), r = (0.5 + generator.uniform(-0.03, 0.03), height), 0.05
    white, kind = (235, 232, 222), generator.integers(KINDS)
    if kind == 0:
        _line(canvas, [(x - r, y), (x + r, y)], 0.022, white)
    elif kind == 1:
        points = [(x + r * np.cos(a), y + r * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 24)]
        _line(canvas, points, 0.022, white)
    elif kind == 2:
        _line(canvas, [(x - r, y + r), (x, y - r), (x + r, y + r)], 0.022, white)
    else:
        _line(canvas, [(x - r, y - r), (x + r, y + r)], 0.022, white)
        _line(canvas, [(x - r, y + r), (x + r, y - r)], 0.022, white)


def draw_leaf(kind: int, generator: np.random.Generator) -> Picture:
    """A leaf, its tip up: a kind has a tip and a foot of the stalk of its own."""
    canvas = _ground(generator)
    half, colour = generator.uniform(0.17, 0.24), _colour(generator)
    steps = np.linspace(0, 1, 60)
    width = half * np.sin(np.pi * steps**0.8)
    left = [(0.5 - w, 0.2 + 0.5 * s) for w, s in zip(width, steps, strict=True)]
    right = [(0.5 + w, 0.2 + 0.5 * s) for w, s in zip(width, steps, strict=True)]
    _fill(canvas, [*left, *right[::-1]], colour)
    _line(canvas, [(0.5, 0.22), (0.5, 0.76)], 0.012, _darker(colour))
    slope = generator.uniform(0.03, 0.1)
    for height in np.linspace(0.35, 0.6, generator.integers(2, 5)):
        for side in (-1, 1):
            vein = [(0.5, height + slope), (0.5 + side * 0.11, height)]
            _line(canvas, vein, 0.01, _darker(colour))
    for _ in range(generator.integers(0, 5)):
        spot = 0.5 + generator.uniform(-0.12, 0.12), generator.uniform(0.38, 0.6)
        _oval(canvas, spot, (generator.uniform(0.012, 0.03),) * 2, _colour(generator))
    _decoy(canvas, 0.45, generator)
    _tip(canvas, kind, colour)
    _stalk(canvas, kind, generator)
    return _finish(canvas, generator)


def _tip(canvas: Picture, kind: int, colour: tuple[int, int, int]) -> None:
    if kind == 0:
        _fill(canvas, [(0.46, 0.25), (0.5, 0.1), (0.54, 0.25)], colour)
    elif kind == 1:
        _oval(canvas, (0.5, 0.2), (0.055, 0.055), colour)
    elif kind == 2:
        for side in (-1, 1):
            horn = [(0.5, 0.26), (0.5 + side * 0.08, 0.13), (0.5 + side * 0.06, 0.27)]
            _fill(canvas, horn, colour)
    else:
        _line(canvas, [(0.5, 0.24), (0.5, 0.14), (0.59, 0.14)], 0.03, colour)


def _stalk(canvas: Picture, kind: int, generator: np.random.Generator) -> None:
    end, width = 0.88 + generator.uniform(-0.02, 0.02), 0.018
    _line(canvas, [(0.5, 0.7), (0.5, end)], width)
    if kind == 0:
        _line(canvas, [(0.43, end), (0.57, end)], width)
    elif kind == 1:
        _line(canvas, [(0.5, end), (0.58, end), (0.58, end - 0.07)], width)
    elif kind == 2:
        _oval(canvas, (0.5, end), (0.04, 0.04), _INK)


DRAW: dict[str, Callable[[int, np.random.Generator], Picture]] = {
    "beetles": draw_beetle,
    "leaves": draw_leaf,
}
"""What there is to draw, by the key of the data set: a picture of a kind from 0 to 3."""


# --- strokes, in shares of the side


def _ground(generator: np.random.Generator) -> Picture:
    grey = generator.integers(205, 240)
    return np.full((_SIDE, _SIDE, 3), grey, np.uint8)


def _colour(generator: np.random.Generator) -> tuple[int, int, int]:
    """Any hue, neither very light nor very dark."""
    hsv = np.array([[[generator.integers(0, 180), generator.integers(70, 190), 150]]], np.uint8)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def _darker(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (round(0.6 * channel) for channel in colour)
    return red, green, blue


def _pixels(points: list[Point]) -> np.ndarray:
    return (np.array(points) * _SIDE).round().astype(np.int32)


def _line(
    canvas: Picture, points: list[Point], width: float, colour: tuple[int, int, int] = _INK
) -> None:
    cv2.polylines(canvas, [_pixels(points)], False, colour, round(width * _SIDE), cv2.LINE_AA)


def _fill(canvas: Picture, points: list[Point], colour: tuple[int, int, int]) -> None:
    cv2.fillPoly(canvas, [_pixels(points)], colour, cv2.LINE_AA)


def _oval(canvas: Picture, centre: Point, radii: Point, colour: tuple[int, int, int]) -> None:
    (x, y), (a, b) = (_pixels([each])[0].tolist() for each in (centre, radii))
    cv2.ellipse(canvas, (x, y), (a, b), 0, 0, 360, colour, -1, cv2.LINE_AA)


def _finish(canvas: Picture, generator: np.random.Generator) -> UInt8[np.ndarray, "small small 3"]:
    """Tilt and move a little, make it small, and lay grain over it."""
    turn = cv2.getRotationMatrix2D((_SIDE / 2, _SIDE / 2), generator.uniform(-14, 14), 1.0)
    move = generator.uniform(-0.03, 0.03, 2) * _SIDE
    turn = np.column_stack([turn[:, :2], turn[:, 2] + move])
    ground = canvas[0, 0].tolist()
    turned = cv2.warpAffine(canvas, turn, (_SIDE, _SIDE), borderValue=ground)
    small = cv2.resize(turned, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    grain = generator.normal(0, 5, small.shape)
    return (small + grain).clip(0, 255).astype(np.uint8)
