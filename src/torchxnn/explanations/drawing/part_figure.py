"""The matplotlib figure of an explained text or row: a line of text, or bars, per x-feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure

from torchxnn.explanations.drawing.canvas import DPI, Page, extent
from torchxnn.explanations.drawing.overlay import (
    INK,
    MUTED,
    NEGATIVE,
    POSITIVE,
    WARNING,
    colour_of,
    number,
    signed,
)
from torchxnn.explanations.drawing.paper_figure import DPI as PAPER_DPI
from torchxnn.explanations.drawing.paper_figure import (
    LARGE,
    MARGIN,
    SMALL,
    WIDTHS,
    Columns,
    paper_heading,
)
from torchxnn.explanations.part_card import TOP, PartCard, PartPanel, tint

GAP = 0.12  # inches


@dataclass(frozen=True)
class _Sizes:
    """Inches and points of one style."""

    width: float
    margin: float
    title: float
    text: float
    small: float
    words: bool  # sentence, certificate and caption
    dpi: int

    @property
    def line(self) -> float:
        return self.text * 1.42 / 72

    @property
    def room(self) -> float:
        return self.width - 2 * self.margin


_SCREEN = _Sizes(9.0, 0.3, 14.0, 10.5, 8.5, True, DPI)
_PAPER = {n: _Sizes(WIDTHS[n], MARGIN, LARGE, 7.5, SMALL, False, PAPER_DPI) for n in WIDTHS}


def draw_part_card(
    card: PartCard, style: Literal["screen", "paper"] = "screen", columns: Columns = 1
) -> Figure:
    """Draw an explained text or row.

    Args:
        card: what to say.
        style: "screen", or "paper": 7 to 8 points, without certificate and caption.
        columns: with "paper", 1 for 3.3 inches, 2 for 6.9.

    Returns:
        A figure that belongs to no window.
    """
    sizes = _PAPER[columns] if style == "paper" else _SCREEN
    height = Page.measure(sizes.width, lambda page: _draw(page, card, sizes))
    page = Page(sizes.width, height, dpi=sizes.dpi)
    _draw(page, card, sizes)
    return page.figure


def _draw(page: Page, card: PartCard, sizes: _Sizes) -> None:
    page.y = sizes.margin
    titles = [card.sentence] if sizes.words else [paper_heading(row) for row in card.rows]
    for title in titles:
        page.text(sizes.margin, title, sizes.title, sizes.room, weight="bold")
    if sizes.words:
        facts = "  ·  ".join(f"{term}: {text}" for term, text in card.facts)
        page.text(sizes.margin, facts, sizes.text, sizes.room, color=MUTED)
    style = {"color": WARNING, "weight": "bold"}
    for warning in card.warnings:
        page.text(sizes.margin, f"Warning: {warning}", sizes.small, sizes.room, **style)
    page.y += GAP
    for panel in card.panels:
        values = ", ".join(
            signed(value) if len(card.rows) == 1 else f"{signed(value)} to {row.name}"
            for row, value in zip(card.rows, panel.values, strict=True)
        )
        colour = colour_of(panel.values[0]) if len(card.rows) == 1 else INK
        _panel(page, card, panel, sizes, values, colour)
    for row, panel in zip(card.rows, card.logit_panels, strict=True):
        name = "The whole logit" if len(card.rows) == 1 else f"The logit of {row.name}"
        _panel(page, card, PartPanel(name, panel.attributions), sizes, number(row.logit), INK)
    if sizes.words:
        for row in card.rows:
            page.text(sizes.margin, row.equation, sizes.text, sizes.room)
        for line in (*card.certificate, card.caption):
            page.text(sizes.margin, line, sizes.small, sizes.room, color=MUTED)
        page.y += sizes.margin


def _panel(
    page: Page, card: PartCard, panel: PartPanel, sizes: _Sizes, value: str, colour: str
) -> None:
    """Heading with name and contribution, then tokens or bars."""
    name = page.fit(panel.name, sizes.text, 0.55 * sizes.room)
    page.put(sizes.margin, page.y, name, sizes.text, color=MUTED, va="top")
    right = sizes.margin + extent(name, sizes.text, "normal") + GAP
    value = page.fit(value, sizes.text, sizes.width - sizes.margin - right, "bold")
    page.put(right, page.y, value, sizes.text, color=colour, weight="bold", va="top")
    page.y += 1.25 * sizes.line
    if panel.note:
        page.text(sizes.margin, panel.note, sizes.small, sizes.room, color=MUTED)
    elif card.kind == "text":
        _tokens(page, card, panel, sizes)
    else:
        _bars(page, card, panel, sizes)
    page.y += GAP


def _tokens(page: Page, card: PartCard, panel: PartPanel, sizes: _Sizes) -> None:
    """The text, every token on its colour; the strong ones with their number below."""
    x, pad, tall = sizes.margin, 0.03, sizes.text * 1.2 / 72
    step = tall + sizes.small * 1.35 / 72
    for part, (token, level) in enumerate(zip(card.parts, panel.levels(), strict=True)):
        token = page.fit(token, sizes.text, sizes.room - 2 * pad)
        said = signed(float(panel.attributions[part])) if panel.is_spoken(part) else ""
        needed = max(extent(token, sizes.text, "normal"), extent(said, sizes.small, "normal"))
        width = needed + 2 * pad
        if x > sizes.margin and x + width > sizes.width - sizes.margin:
            x, page.y = sizes.margin, page.y + step
        if level:
            page.bar(x, page.y - 0.02, width, tall + 0.02, tint(level))
        page.put(x + pad, page.y, token, sizes.text, va="top")
        if said:
            colour = POSITIVE if level > 0 else NEGATIVE
            page.put(x + pad, page.y + tall + 0.01, said, sizes.small, color=colour, va="top")
        x += width + 0.02
    page.y += step


def _bars(page: Page, card: PartCard, panel: PartPanel, sizes: _Sizes) -> None:
    """The strongest columns, with their values and bars to the right (+) and left (-)."""
    order = panel.order()
    labels = {i: f"{card.parts[i]} = {card.shown[i]}" for i in order[:TOP]}
    names = max((extent(label, sizes.small, "normal") for label in labels.values()), default=0.0)
    names = min(names + GAP, 0.5 * sizes.room)
    start, zero = sizes.margin + names, panel.zero()
    across = sizes.room - names - extent("\N{MINUS SIGN}0.0000", sizes.small, "normal") - GAP
    for part in order[:TOP]:
        value = float(panel.attributions[part])
        label = page.fit(labels[part], sizes.small, names - 0.05)
        page.put(sizes.margin, page.y, label, sizes.small, va="top")
        length, tall = across * panel.reach(part), sizes.small / 72
        left = start + across * zero - (length if value < 0 else 0)
        page.bar(left, page.y + 0.15 * tall, length, tall, colour_of(value))
        edge, colour = sizes.width - sizes.margin, colour_of(value)
        page.put(edge, page.y, signed(value), sizes.small, color=colour, ha="right", va="top")
        page.y += sizes.small * 1.5 / 72
    rest = float(sum(panel.attributions[i] for i in order[TOP:]))
    if len(order) > TOP:
        text = f"{len(order) - TOP} more columns together: {signed(rest)}"
        page.text(sizes.margin, text, sizes.small, sizes.room, color=MUTED)
