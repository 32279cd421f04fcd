"""The matplotlib figure of one explanation (paper figures 1 and 8).

Left the photograph; then one column per x-feature by decreasing contribution, with its heatmap and
a cut-out of what it looks at; right the single heatmap of the original logit. Drawn with the
object-oriented API alone: no pyplot, no global state, nothing to close.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from matplotlib.figure import Figure

from torchxnn.explanations.card import Card, Panel
from torchxnn.explanations.drawing.canvas import Page
from torchxnn.explanations.drawing.overlay import (
    FAINT,
    INK,
    MUTED,
    WARNING,
    colour_of,
    colour_scale,
    cutout,
    faded,
    intensities,
    number,
    overlay,
    signed,
)

MARGIN, GAP, WIDE_GAP = 0.3, 0.12, 0.38  # inches
PANEL_HEIGHT = 1.65
PER_LINE = 7


def draw_card(card: Card) -> Figure:
    """Draw one explanation as a matplotlib figure on white.

    Args:
        card: What to say; made by `Explanation.card`.

    Returns:
        A figure that belongs to no window and to no global state.
    """
    layout = _Layout.of(card)
    header = Page.measure(layout.width, lambda page: _header(page, card, layout))
    footer = Page.measure(layout.width, lambda page: _footer(page, card, layout))
    body = layout.lines * layout.block
    page = Page(layout.width, header + body + footer)
    _header(page, card, layout)
    page.y = header
    _body(page, card, layout)
    page.y = header + body
    _footer(page, card, layout)
    return page.figure


@dataclass(frozen=True)
class _Layout:
    """Where things stand, in inches."""

    panel: tuple[float, float]  # width, height of a heatmap
    picture: tuple[float, float]
    per_line: int
    lines: int
    block: float  # height of one line of panels: heading, heatmap, cut-out, contributions
    logit_columns: int

    heading: float  # height above a heatmap
    row: ClassVar[float] = 0.27

    @classmethod
    def of(cls, card: Card) -> "_Layout":
        height, width = card.picture.shape[:2]
        aspect = min(max(width / height, 0.6), 2.0)
        tall = 2 * PANEL_HEIGHT + GAP
        targets = len(card.rows)
        rows = 0.1 + targets * cls.row if targets > 1 else 0.0
        heading = 0.78 if targets == 1 else 0.42
        return cls(
            panel=(PANEL_HEIGHT * aspect, PANEL_HEIGHT),
            picture=(tall * aspect, tall),
            per_line=max(1, min(len(card.panels), PER_LINE)),
            lines=-(-len(card.panels) // PER_LINE),
            block=heading + tall + rows + 0.2,
            heading=heading,
            logit_columns=-(-targets // 2),
        )

    @property
    def first(self) -> float:
        return MARGIN + self.picture[0] + WIDE_GAP

    @property
    def last(self) -> float:
        return self.column(self.per_line - 1) + self.panel[0] + WIDE_GAP

    @property
    def width(self) -> float:
        return self.last + self.logit_columns * (self.panel[0] + GAP) - GAP + MARGIN

    def column(self, position: int) -> float:
        return self.first + (position % self.per_line) * (self.panel[0] + GAP)


def _header(page: Page, card: Card, layout: _Layout) -> None:
    width = layout.width - 2 * MARGIN
    page.y = 0.26
    page.text(
        MARGIN,
        card.sentence.replace("x-feature ", "x-feature\N{NO-BREAK SPACE}"),
        16.0,
        width,
        weight="bold",
    )
    page.y += 0.04
    facts = "  ·  ".join(f"{term}: {text}" for term, text in card.facts)
    page.text(MARGIN, facts, 10.5, width, color=MUTED)
    for warning in card.warnings:
        page.y += 0.05
        page.text(MARGIN, f"Warning: {warning}", 10.5, width, color=WARNING, weight="bold")
    page.y += 0.12


def _body(page: Page, card: Card, layout: _Layout) -> None:
    top = page.y + layout.heading
    page.put(MARGIN, top - 0.09, "Picture", 10.5, color=MUTED, va="bottom")
    page.image(MARGIN, top, layout.picture, card.picture)
    maps = intensities([panel.heatmap for panel in card.panels], card.scale)
    for position, (panel, intensity) in enumerate(zip(card.panels, maps, strict=True)):
        corner = (layout.column(position), top + (position // layout.per_line) * layout.block)
        _panel(page, card, layout, panel, intensity, corner)
        if len(card.rows) > 1:
            _contributions(page, card, layout, panel, corner)
    rise = layout.heading - 0.18
    page.bar(layout.last - WIDE_GAP / 2, top - rise, 0.01, rise + layout.picture[1], FAINT)
    _logits(page, card, layout, top)


def _panel(
    page: Page,
    card: Card,
    layout: _Layout,
    panel: Panel,
    intensity: np.ndarray,
    corner: tuple[float, float],
) -> None:
    """One x-feature: heading, heatmap, cut-out."""
    x, y = corner
    below = y + layout.panel[1] + GAP
    if panel.note:
        for place in (y, below):
            page.image(x, place, layout.panel, faded(card.picture))
        page.tag(x + layout.panel[0] / 2, y + layout.panel[1] / 2, panel.note, ha="center")
    else:
        page.image(x, y, layout.panel, overlay(card.picture, intensity))
        page.image(x, below, layout.panel, cutout(card.picture, panel.heatmap))
    if len(card.rows) > 1:
        name = page.fit(panel.name, 10.5, layout.panel[0])
        page.put(x, y - 0.09, name, 10.5, color=MUTED, va="bottom")
        return
    (value,) = panel.values
    largest = max(abs(v) for p in card.panels for v in p.values) or 1.0
    _heading(page, layout, corner, panel.name, signed(value), colour_of(value))
    page.bar(x, y - 0.08, layout.panel[0], 0.045, "#eceef0")
    page.bar(x, y - 0.08, layout.panel[0] * abs(value) / largest, 0.045, colour_of(value))


def _heading(
    page: Page, layout: _Layout, corner: tuple[float, float], name: str, value: str, colour: str
) -> None:
    x, y = corner
    name = page.fit(name, 10.5, layout.panel[0])
    page.put(x, y - 0.45, name, 10.5, color=MUTED, va="bottom")
    page.put(x, y - 0.12, value, 17.0, color=colour, weight="bold", va="bottom")


def _contributions(
    page: Page, card: Card, layout: _Layout, panel: Panel, corner: tuple[float, float]
) -> None:
    """With several targets: what the x-feature adds to each, below its heatmap."""
    x, y = corner[0], corner[1] + layout.picture[1] + 0.1
    for row, value in zip(card.rows, panel.values, strict=True):
        if x == layout.first:
            name = page.fit(row.name, 10.5, layout.picture[0], "bold")
            page.put(x - 0.15, y, name, 10.5, weight="bold", ha="right", va="top")
        page.put(x, y, signed(value), 12.0, weight="bold", va="top", color=colour_of(value))
        y += layout.row


def _logits(page: Page, card: Card, layout: _Layout, top: float) -> None:
    """The heatmaps of the original logits, beside the x-features."""
    x = layout.last
    if len(card.rows) == 1:
        value = number(card.rows[0].logit)
        _heading(page, layout, (x, top), card.logit_heading, value, INK)
    else:
        page.put(x, top - 0.09, "Each logit as a whole", 10.5, color=MUTED, va="bottom")
    below = layout.panel[1] + GAP
    for index, (row, panel) in enumerate(zip(card.rows, card.logit_panels, strict=True)):
        left, upper = x + (index // 2) * (layout.panel[0] + GAP), top + (index % 2) * below
        (intensity,) = intensities([panel.heatmap])
        page.image(left, upper, layout.panel, overlay(card.picture, intensity))
        if len(card.rows) == 1:
            page.image(left, upper + below, layout.panel, cutout(card.picture, panel.heatmap))
        else:
            name = page.fit(row.name, 9.0, layout.panel[0] - 0.25)
            page.tag(left + 0.09, upper + 0.16, name)


def _footer(page: Page, card: Card, layout: _Layout) -> None:
    width = layout.width - 2 * MARGIN
    for row in card.rows:
        page.text(MARGIN, row.equation, 11.0, width)
    page.y += 0.1
    for line in card.certificate:
        page.text(MARGIN, line, 9.5, width, color=MUTED)
    page.y += 0.06
    legend = 1.5
    page.put(MARGIN, page.y + 0.08, "low", 9.0, color=MUTED, va="center")
    page.image(MARGIN + 0.34, page.y + 0.02, (legend, 0.13), colour_scale())
    page.put(MARGIN + legend + 0.42, page.y + 0.08, "high relevance", 9.0, color=MUTED, va="center")
    page.text(MARGIN + legend + 1.75, card.caption, 9.0, width - legend - 1.75, color=MUTED)
    page.y += 0.22
