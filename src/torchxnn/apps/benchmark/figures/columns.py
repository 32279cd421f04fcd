"""What the benchmark's figures are laid out in: tiles in columns, columns in groups.

Colours, overlays and lettering are those of `explanations.drawing`, so that the figures of the
benchmark and those of single explanations look alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from torchxnn.apps.benchmark.figures.looks import EMPTY, OFF, Look
from torchxnn.explanations.drawing.canvas import Page
from torchxnn.explanations.drawing.figure import write_caption, write_header
from torchxnn.explanations.drawing.form import GAP, MARGIN, WIDE_GAP
from torchxnn.explanations.drawing.overlay import (
    FAINT,
    INK,
    MUTED,
    WARNING,
    colour_of,
    faded,
    heatmap_over,
    intensities,
    number,
    overlay,
    signed,
)
from torchxnn.xnn import XNN

TILE = 1.45  # inches, height of a tile
VALUE = 0.27  # inches above a tile, for what is written there
ROW_GAP = 0.08
CAPTION = (
    "Heatmaps: the positive part of the relevance (contrastive excitation backprop), lightly "
    "smoothed for drawing only, each with its own colour scale (normalised per x-feature and "
    "image). Above it the contribution to the logit, counted from what a typical other image "
    f"gets, red for and blue against; “{OFF}”: the x-feature is 0 here; “{EMPTY}”: it is not, but "
    "no pixel has positive relevance."
)


@dataclass(frozen=True, eq=False)
class Tile:
    """A small image, what stands above it, and a label over it if there is nothing to see."""

    pixels: UInt8[np.ndarray, "height width 3"]
    text: str
    colour: str = INK
    note: str = ""
    strong: bool = True


@dataclass(frozen=True, eq=False)
class Column:
    """Tiles below each other, under one heading."""

    heading: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Columns that belong together; groups stand side by side, with a line between them."""

    columns: tuple[Column, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def feature_tile(look: Look, feature: int) -> Tile:
    """The heatmap of an x-feature on an image, under its contribution."""
    value = float(look.contributions[feature])
    note = look.note(feature)
    if note:
        return Tile(faded(look.picture), signed(value), colour_of(value), note)
    pixels = heatmap_over(look.picture, look.heatmaps[feature])
    return Tile(pixels, signed(value), colour_of(value))


def feature_columns(xnn: XNN, looks: Sequence[Look], order: Sequence[int]) -> tuple[Column, ...]:
    """One column per x-feature, in the given order."""
    return tuple(
        Column(xnn.feature_names[i], tuple(feature_tile(look, i) for look in looks)) for i in order
    )


def image_column(looks: Sequence[Look]) -> Column:
    """The images, under what the network takes them for."""
    tiles = []
    for look in looks:
        wrong = look.right is False
        text = f"taken for {look.verdict}" if wrong else "recognised" if look.right else ""
        colour = WARNING if wrong else MUTED
        tiles.append(Tile(look.picture, text or look.verdict, colour, strong=False))
    return Column("Image", tuple(tiles))


def logit_column(looks: Sequence[Look]) -> Column:
    """The single heatmap of the original logit (1-Heatmap), under the logit."""
    tiles = []
    for look in looks:
        (intensity,) = intensities([look.logit_heatmap])
        note = "" if intensity.any() else EMPTY
        pixels = faded(look.picture) if note else overlay(look.picture, intensity)
        tiles.append(Tile(pixels, f"logit {number(look.logit)}", INK, note))
    return Column("1-Heatmap", tuple(tiles))


def draw_groups(title: str, facts: Sequence[str], groups: Sequence[Group], caption: str) -> Figure:
    """Lay out the title, wrapped, facts as lines below it, groups of columns, and the caption.

    Groups stand from left to right, all tiles in the shape of the first; the caption is below
    everything, beside the colour scale.
    """
    height, width = groups[0].columns[0].tiles[0].pixels.shape[:2]
    tile = (TILE * min(max(width / height, 0.6), 2.0), TILE)
    widths = [len(g.columns) * (tile[0] + GAP) - GAP for g in groups]
    total = max(2 * MARGIN + sum(widths) + WIDE_GAP * (len(groups) - 1), 6.0)
    rows = max(len(c.tiles) for g in groups for c in g.columns)
    body = rows * (VALUE + tile[1] + ROW_GAP) + 0.3

    def draw(page: Page) -> None:
        write_header(page, title, facts)
        top, below, x = page.y, page.y, MARGIN
        for group, across in zip(groups, widths, strict=True):
            page.y = top
            _group_head(page, x, group, across)
            below, x = max(below, page.y), x + across + WIDE_GAP
        x = MARGIN
        for index, (group, across) in enumerate(zip(groups, widths, strict=True)):
            for position, column in enumerate(group.columns):
                _draw_column(page, x + position * (tile[0] + GAP), below, column, tile)
            if index:
                page.bar(x - WIDE_GAP / 2, top + 0.05, 0.01, below + body - top - 0.15, FAINT)
            x += across + WIDE_GAP
        page.y = below + body
        write_caption(page, caption)

    return Page.fitted(total, draw).figure


def _group_head(page: Page, x: float, group: Group, width: float) -> None:
    if group.title:
        page.text(x, group.title, 12.0, width, weight="bold")
    for note in group.notes:
        page.text(x, note, 9.5, width, color=MUTED)
    for warning in group.warnings:
        page.text(x, warning, 9.5, width, color=WARNING, weight="bold")
    page.y += 0.08 if group.title else 0.0


def _draw_column(
    page: Page, x: float, top: float, column: Column, tile: tuple[float, float]
) -> None:
    page.put(x, top + 0.2, page.fit(column.heading, 10.5, tile[0]), 10.5, color=MUTED, va="bottom")
    for row, shown in enumerate(column.tiles):
        y = top + 0.22 + row * (VALUE + tile[1] + ROW_GAP)
        draw_tile(page, x, y, shown, tile)


def draw_tile(page: Page, x: float, y: float, tile: Tile, size: tuple[float, float]) -> None:
    """A tile whose text starts at y; the image is `VALUE` below."""
    size_of_text, weight = (11.5, "bold") if tile.strong else (9.0, "normal")
    text = page.fit(tile.text, size_of_text, size[0], weight)
    style = {"color": tile.colour, "weight": weight, "va": "bottom"}
    page.put(x, y + VALUE - 0.04, text, size_of_text, **style)
    page.image(x, y + VALUE, size, tile.pixels)
    if tile.note:
        page.tag(x + size[0] / 2, y + VALUE + size[1] / 2, tile.note, ha="center")
