"""The figure of one explanation for a paper: one or two columns wide, 7 to 8 points.

The picture, one heatmap per x-feature by contribution, the heatmap of the logit; across two
columns also what is there, below. Sentence, certificate and the reading of the colours belong into
the paper's own caption and are left out; warnings stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from torchxnn.explanations.card import Card, Panel, Row
from torchxnn.explanations.drawing.canvas import Page
from torchxnn.explanations.drawing.overlay import (
    FAINT,
    INK,
    MUTED,
    WARNING,
    colour_of,
    cutout,
    faded,
    intensities,
    number,
    overlay,
    signed,
)

Columns = Literal[1, 2]

WIDTHS: dict[int, float] = {1: 3.3, 2: 6.9}  # inches, as most two-column templates have it
PER_LINE: dict[int, int] = {1: 4, 2: 7}
SMALL, LARGE = 7.0, 8.0  # points
MARGIN, GAP = 0.02, 0.05  # inches
DPI = 300


def draw_paper_card(card: Card, columns: Columns = 1) -> Figure:
    """Draw one explanation to fit a paper's column.

    Args:
        card: what to say; made by `Explanation.card`.
        columns: 1 for 3.3 inches, 2 for 6.9.

    Returns:
        A figure that belongs to no window; saved as PDF or SVG its text stays text.
    """
    height = Page.measure(WIDTHS[columns], lambda page: _draw(page, card, columns))
    page = Page(WIDTHS[columns], height, dpi=DPI)
    _draw(page, card, columns)
    return page.figure


def paper_heading(row: Row) -> str:
    """One line on a target: "goldfinch: logit 16.1, reproduced 16.2"."""
    return f"{row.name}: logit {number(row.logit)}, reproduced {number(row.reproduced)}"


@dataclass(frozen=True, eq=False)
class _Cell:
    """One image with what stands above and below it."""

    name: str
    value: str
    colour: str
    image: np.ndarray
    below: np.ndarray | None = None
    note: str = ""
    lines: tuple[tuple[str, str], ...] = ()  # with several targets: text and colour


def _draw(page: Page, card: Card, columns: Columns) -> None:
    room = page.width - 2 * MARGIN
    page.y = MARGIN
    for row in card.rows:
        page.text(MARGIN, paper_heading(row), LARGE, room, weight="bold")
    for warning in card.warnings:
        page.text(MARGIN, f"Warning: {warning}", SMALL, room, color=WARNING)
    cells = list(_cells(card, cutouts=columns == 2))
    per_line = min(PER_LINE[columns], len(cells))
    width = (room - (per_line - 1) * GAP) / per_line
    height = width * card.picture.shape[0] / card.picture.shape[1]
    for start in range(0, len(cells), per_line):
        _line(page, cells[start : start + per_line], width, height)


def _line(page: Page, cells: list[_Cell], width: float, height: float) -> None:
    """A line of images, headings above, contributions to several targets below."""
    line = SMALL * 1.35 / 72
    valued = any(cell.value for cell in cells)
    top = page.y + 0.03 + line + (LARGE * 1.3 / 72 if valued else 0)
    lowest = top + height
    for position, cell in enumerate(cells):
        x = MARGIN + position * (width + GAP)
        name = page.fit(cell.name, SMALL, width)
        page.put(x, page.y + 0.03, name, SMALL, color=MUTED, va="top")
        if cell.value:
            style = {"color": cell.colour, "weight": "bold"}
            value = page.fit(cell.value, LARGE, width, "bold")
            page.put(x, page.y + 0.03 + line, value, LARGE, va="top", **style)
        page.image(x, top, (width, height), cell.image)
        if cell.note:
            box = {"facecolor": "white", "edgecolor": FAINT, "linewidth": 0.4, "pad": 1.5}
            note = page.fit(cell.note, SMALL, width - 0.05)
            at = (x + width / 2, top + height / 2)
            page.put(*at, note, SMALL, ha="center", va="center", bbox=box)
        bottom = top + height
        if cell.below is not None:
            page.image(x, bottom + GAP, (width, height), cell.below)
            bottom += GAP + height
        for text, colour in cell.lines:
            page.put(x, bottom + 0.02, page.fit(text, SMALL, width), SMALL, color=colour, va="top")
            bottom += line
        lowest = max(lowest, bottom)
    page.y = lowest + GAP


def _cells(card: Card, cutouts: bool) -> Iterator[_Cell]:
    yield _Cell("Picture", "", INK, card.picture)
    maps = intensities([panel.heatmap for panel in card.panels], card.scale)
    single = len(card.rows) == 1
    for panel, intensity in zip(card.panels, maps, strict=True):
        value = signed(panel.values[0]) if single else ""
        lines = () if single else tuple(_contributions(card, panel))
        image = faded(card.picture) if panel.note else overlay(card.picture, intensity)
        below = cutout(card.picture, panel.heatmap) if cutouts and not panel.note else None
        colour = colour_of(panel.values[0])
        yield _Cell(panel.name, value, colour, image, below, panel.note, lines)
    for row, panel in zip(card.rows, card.logit_panels, strict=True):
        (intensity,) = intensities([panel.heatmap])
        below = cutout(card.picture, panel.heatmap) if cutouts else None
        name = "Whole logit" if single else row.name
        value = number(row.logit) if single else ""
        yield _Cell(name, value, INK, overlay(card.picture, intensity), below)


def _contributions(card: Card, panel: Panel) -> Iterator[tuple[str, str]]:
    for row, value in zip(card.rows, panel.values, strict=True):
        yield f"{signed(value)} {row.name}", colour_of(value)
