"""The body of the figure of an image: the image, its x-features and its logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torchxnn.explanations.card import Card, Panel
from torchxnn.explanations.drawing.canvas import Page
from torchxnn.explanations.drawing.cells import Cell, draw_in_lines
from torchxnn.explanations.drawing.form import (
    GAP,
    MARGIN,
    PANEL,
    PER_LINE,
    WIDE_GAP,
    Form,
    line_height,
    shown_details,
)
from torchxnn.explanations.drawing.overlay import FAINT, MUTED, colour_of, number, signed


def image_body(card: Card, form: Form) -> tuple[float, Callable[[Page], None]]:
    """The width of the figure of an image, and what draws its body."""
    single = len(card.rows) == 1
    panels = [_cell(card, panel, form) for panel in card.panels]
    logits = [
        Cell(
            _whole(panel, form),
            panel.pictures,
            number(row.logit),
            details=shown_details(panel, form),
        )
        if single
        else Cell(row.name, panel.pictures)
        for row, panel in zip(card.rows, card.logit_panels, strict=True)
    ]
    height, width = card.image.shape[:2]
    aspect = min(max(width / height, 0.6), 2.0)
    if not form.words:
        cells = [Cell("Image", (card.image,)), *panels, *logits]
        return form.width, partial(draw_in_lines, cells=cells, aspect=aspect, form=form)
    layout = _Layout.of(card, aspect)
    body = partial(_beside, card=card, panels=panels, logits=logits, layout=layout, form=form)
    return layout.width, body


def _cell(card: Card, panel: Panel, form: Form) -> Cell:
    """An x-feature on the image, with its contribution above or its contributions below."""
    pictures, details = panel.pictures, shown_details(panel, form)
    if len(card.rows) == 1:
        (value,) = panel.values
        share = abs(value) / card.largest if form.words else None
        colour, note = colour_of(value), panel.note
        return Cell(panel.name, pictures, signed(value), colour, share, note, details=details)
    lines = tuple(
        (signed(value) if form.words else f"{signed(value)} {row.name}", colour_of(value))
        for row, value in zip(card.rows, panel.values, strict=True)
    )
    return Cell(panel.name, pictures, note=panel.note, lines=lines, details=details)


def _whole(panel: Panel, form: Form) -> str:
    """The name of a logit; a paper's columns are too narrow for "The whole logit"."""
    short = panel.name.removeprefix("The whole ")
    return panel.name if form.words else short[:1].upper() + short[1:]


@dataclass(frozen=True)
class _Layout:
    """Where images stand on a screen, in inches."""

    panel: tuple[float, float]  # width, height of a heatmap
    image: tuple[float, float]
    per_line: int
    logit_columns: int

    @classmethod
    def of(cls, card: Card, aspect: float) -> _Layout:
        tall = 2 * PANEL + GAP
        per_line = max(1, min(len(card.panels), PER_LINE))
        columns = -(-len(card.rows) // 2)
        return cls((PANEL * aspect, PANEL), (tall * aspect, tall), per_line, columns)

    @property
    def last(self) -> float:
        return self.column(self.per_line - 1) + self.panel[0] + WIDE_GAP

    @property
    def width(self) -> float:
        return self.last + self.logit_columns * (self.panel[0] + GAP) - GAP + MARGIN

    def column(self, position: int) -> float:
        across = (position % self.per_line) * (self.panel[0] + GAP)
        return MARGIN + self.image[0] + WIDE_GAP + across


def _beside(
    page: Page,
    card: Card,
    panels: Sequence[Cell],
    logits: Sequence[Cell],
    layout: _Layout,
    form: Form,
) -> None:
    """On a screen: the image, beside it the x-features, and behind a line the logits."""
    several = len(card.rows) > 1
    high = form.heading(not several)
    top, below = page.y + high, layout.panel[1] + GAP
    Cell("Image", (card.image,)).draw(page, MARGIN, top, layout.image, form)
    under = max((cell.below(form) for cell in panels), default=0.0)
    block = high + 2 * below + (under + 0.1 if under else 0.0) + GAP
    for position, cell in enumerate(panels):
        y = top + (position // layout.per_line) * block
        cell.draw(page, layout.column(position), y, layout.panel, form)
        if several and position % layout.per_line == 0:
            for line, row in enumerate(card.rows):
                name = page.fit(row.name, form.text, layout.image[0], "bold")
                x, low = layout.column(0) - 0.15, y + 2 * below + line * line_height(form.text)
                page.put(x, low, name, form.text, weight="bold", ha="right", va="top")
    rise = high - 0.18
    page.bar(layout.last - WIDE_GAP / 2, top - rise, 0.01, rise + layout.image[1], FAINT)
    if several:
        heading = "Each logit as a whole"
        page.put(layout.last, top - form.lift, heading, form.text, color=MUTED, va="bottom")
    for index, cell in enumerate(logits):
        x = layout.last + (index // 2) * (layout.panel[0] + GAP)
        if not several:
            cell.draw(page, x, top, layout.panel, form)
            continue
        y = top + (index % 2) * below
        page.image(x, y, layout.panel, cell.pictures[0])
        name = page.fit(card.rows[index].name, form.small, layout.panel[0] - 0.25)
        page.tag(x + 0.09, y + 0.16, name, form.small)
    page.y = top + (-(-len(panels) // layout.per_line)) * block - high + 0.1
