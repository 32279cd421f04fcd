"""The matplotlib figure of one explanation (paper figures 1 and 8), for a screen or for a paper.

Of an image: the image, then per x-feature, by decreasing contribution, its heatmap and a cut-out of
what it looks at, then the heatmap of the original logit. Of a text or a row: per x-feature the text
on colours, or bars. A figure for a paper is one or two columns wide and its text 7 to 8 points
tall; sentence, certificate and the reading of the colours belong into the paper's own caption and
are left out; warnings stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from torchxnn.explanations.card import TOP, Card, Columns, Panel, Tokens
from torchxnn.explanations.drawing.canvas import DPI, Page, extent
from torchxnn.explanations.drawing.overlay import (
    FAINT,
    INK,
    MUTED,
    NEGATIVE,
    POSITIVE,
    TINY,
    WARNING,
    colour_of,
    colour_scale,
    number,
    signed,
    tint,
)

Style = Literal["screen", "paper"]
PaperColumns = Literal[1, 2]

MARGIN, GAP, WIDE_GAP = 0.3, 0.12, 0.38  # inches, on a screen
PANEL = 1.65  # height of a heatmap in inches, on a screen
PER_LINE = 7  # x-features beside each other, on a screen


@dataclass(frozen=True)
class _Form:
    """One way to draw, in inches and points."""

    width: float  # for lists; a screen's figure of an image is as wide as its columns
    margin: float
    gap: float
    title: float
    value: float
    text: float
    small: float
    per_line: tuple[int, ...]  # cells of an image beside each other, the best first
    words: bool  # sentence, facts, certificate and caption
    dpi: int

    @property
    def room(self) -> float:
        return self.width - 2 * self.margin

    def across(self, count: int) -> float:
        """Width of each of so many cells beside each other."""
        return (self.room - (count - 1) * self.gap) / count

    def heading(self, valued: bool) -> float:
        """Height above an image: its name, and the contribution below that."""
        return _line(self.text) + (_line(self.value) if valued else 0) + self.lift

    @property
    def lift(self) -> float:
        """Between a heading and its image: room for the bar."""
        return 0.1 if self.words else 0.02


_SCREEN = _Form(9.6, MARGIN, GAP, 15.0, 17.0, 10.5, 9.0, (7,), True, DPI)
_PAPER = {
    1: _Form(3.3, 0.02, 0.05, 8.0, 8.0, 7.5, 7.0, (4, 3, 5), False, 300),
    2: _Form(6.9, 0.02, 0.05, 8.0, 8.0, 7.5, 7.0, (8, 7, 9, 6), False, 300),
}  # as wide as most templates of two columns have them


def draw_card(card: Card, style: Style = "screen", columns: PaperColumns = 1) -> Figure:
    """Draw one explanation as a matplotlib figure on white.

    Args:
        card: What to say.
        style: "screen", or "paper": fits a paper's column.
        columns: With "paper", 1 for 3.3 inches and 2 for 6.9.

    Returns:
        A figure that belongs to no window and to no global state; saved as PDF or SVG its text
        stays text.
    """
    form = _PAPER[columns] if style == "paper" else _SCREEN
    if card.kind == "image":
        width, body = _images(card, form)
    else:
        width, body = form.width, partial(_list, card=card, form=form)

    def draw(page: Page) -> None:
        _header(page, card, form)
        body(page)
        if form.words:
            _footer(page, card, form)

    return Page.fitted(width, draw, form.dpi).figure


def _line(points: float) -> float:
    """Height of a line of text in inches."""
    return points * 1.4 / 72


def _header(page: Page, card: Card, form: _Form) -> None:
    page.y = form.margin
    if form.words:
        facts = "  ·  ".join(f"{term}: {text}" for term, text in card.facts)
        write_header(page, card.sentence, (facts,), card.warnings)
        return
    for k in range(len(card.rows)):
        page.text(form.margin, _sum(card, k), form.title, form.room, weight="bold")
    for warning in card.warnings:
        page.text(form.margin, f"Warning: {warning}", form.text, form.room, color=WARNING)
    page.y += form.gap


def _sum(card: Card, k: int) -> str:
    """How a row's contributions as drawn, the constant and what is not drawn add up."""
    row = card.rows[k]
    left = row.reproduced - row.intercept - sum(panel.values[k] for panel in card.panels)
    terms = [(row.intercept, row.constant)]
    if abs(left) >= TINY:
        terms.append((left, "not drawn"))
    signs = ("\N{MINUS SIGN}" if value < 0 else "+" for value, _ in terms)
    said = " ".join(
        f"{sign} {number(abs(value))} ({name})"
        for sign, (value, name) in zip(signs, terms, strict=True)
    )
    return (
        f"{row.name}: logit {number(row.logit)}; reproduced {number(row.reproduced)} = the "
        f"contributions {said}"
    )


def write_header(
    page: Page, title: str, facts: Sequence[str], warnings: Sequence[str] = ()
) -> None:
    """Write title, facts and warnings of a figure on a screen, and move the cursor below them."""
    width, page.y = page.width - 2 * MARGIN, MARGIN
    title = title.replace("x-feature ", "x-feature\N{NO-BREAK SPACE}")
    page.text(MARGIN, title, _SCREEN.title, width, weight="bold")
    page.y += 0.04
    for fact in facts:
        page.text(MARGIN, fact, _SCREEN.text, width, color=MUTED)
    for warning in warnings:
        style = {"color": WARNING, "weight": "bold"}
        page.text(MARGIN, f"Warning: {warning}", _SCREEN.text, width, **style)
    page.y += GAP


def _footer(page: Page, card: Card, form: _Form) -> None:
    width = page.width - 2 * MARGIN
    for row in card.rows:
        page.text(MARGIN, row.equation, form.text, width)
    page.y += 0.1
    for line in card.certificate:
        page.text(MARGIN, line, form.small, width, color=MUTED)
    page.y += 0.06
    write_caption(page, card.caption, legend=1.5 if card.kind == "image" else 0.0)


def write_caption(page: Page, caption: str, legend: float = 1.5) -> None:
    """Write how to read a figure, beside the colours of heatmaps; moves the cursor below them.

    Args:
        page: The figure, at the cursor.
        caption: What to write.
        legend: Width of the colour scale in inches; 0 draws none.
    """
    small, indent, style = _SCREEN.small, 0.0, {"color": MUTED, "va": "center"}
    if legend:
        indent = legend + 1.75
        page.put(MARGIN, page.y + 0.08, "low", small, **style)
        page.image(MARGIN + 0.34, page.y + 0.02, (legend, 0.13), colour_scale())
        page.put(MARGIN + legend + 0.42, page.y + 0.08, "high relevance", small, **style)
    width = page.width - 2 * MARGIN - indent
    page.text(MARGIN + indent, caption, small, width, color=MUTED)
    page.y += 0.22


# --- of an image


@dataclass(frozen=True, eq=False)
class _Cell:
    """An image, and perhaps one below it, with what stands above and under them."""

    name: str
    pictures: Sequence[np.ndarray]
    value: str = ""
    colour: str = INK
    share: float | None = None  # of the largest contribution, as a bar
    note: str = ""
    lines: tuple[tuple[str, str], ...] = ()  # with several targets: text and colour
    details: tuple[str, ...] = ()  # below that, in small letters

    def draw(self, page: Page, x: float, y: float, size: tuple[float, float], form: _Form) -> None:
        """Draw it; (x, y) is the top left of the first image."""
        width, height = size
        above = y - form.lift
        if self.value:
            value = page.fit(self.value, form.value, width, "bold")
            style = {"color": self.colour, "weight": "bold", "va": "bottom"}
            page.put(x, above, value, form.value, **style)
            above -= _line(form.value)
        name = page.fit(self.name, form.text, width)
        page.put(x, above, name, form.text, color=MUTED, va="bottom")
        if self.share is not None:
            page.bar(x, y - 0.08, width, 0.045, "#eceef0")
            page.bar(x, y - 0.08, width * self.share, 0.045, self.colour)
        if self.note:
            note = page.fit(self.note, form.small, width - 0.05)
            page.tag(x + width / 2, y + height / 2, note, form.small, ha="center")
        for picture in self.pictures:
            page.image(x, y, size, picture)
            y += height + form.gap
        for text, colour in self.lines:
            weight = "bold" if form.words else "normal"
            text = page.fit(text, form.text, width, weight)
            page.put(x, y, text, form.text, color=colour, weight=weight, va="top")
            y += _line(form.text)
        for text in self.details:
            text = page.fit(text, form.small, width)
            page.put(x, y, text, form.small, color=MUTED, va="top")
            y += _line(form.small)

    def below(self, form: _Form) -> float:
        """Height of what stands under the images."""
        return len(self.lines) * _line(form.text) + len(self.details) * _line(form.small)


def _images(card: Card, form: _Form) -> tuple[float, Callable[[Page], None]]:
    """The width of the figure of an image, and what draws its body."""
    single = len(card.rows) == 1
    panels = [_cell(card, panel, form) for panel in card.panels]
    logits = [
        _Cell(_whole(panel, form), panel.pictures, number(row.logit), details=_details(panel, form))
        if single
        else _Cell(row.name, panel.pictures)
        for row, panel in zip(card.rows, card.logit_panels, strict=True)
    ]
    height, width = card.image.shape[:2]
    aspect = min(max(width / height, 0.6), 2.0)
    if not form.words:
        cells = [_Cell("Image", (card.image,)), *panels, *logits]
        return form.width, partial(_in_lines, cells=cells, aspect=aspect, form=form)
    layout = _Layout.of(card, aspect)
    body = partial(_beside, card=card, panels=panels, logits=logits, layout=layout, form=form)
    return layout.width, body


def _cell(card: Card, panel: Panel, form: _Form) -> _Cell:
    """An x-feature on the image, with its contribution above or its contributions below."""
    pictures, details = panel.pictures, _details(panel, form)
    if len(card.rows) == 1:
        (value,) = panel.values
        share = abs(value) / card.largest if form.words else None
        colour, note = colour_of(value), panel.note
        return _Cell(panel.name, pictures, signed(value), colour, share, note, details=details)
    lines = tuple(
        (signed(value) if form.words else f"{signed(value)} {row.name}", colour_of(value))
        for row, value in zip(card.rows, panel.values, strict=True)
    )
    return _Cell(panel.name, pictures, note=panel.note, lines=lines, details=details)


def _details(panel: Panel, form: _Form) -> tuple[str, ...]:
    """What stands under a map: which others it is like, that it is weak; on a screen all.

    A paper's columns are narrow, so there x-features are numbers: "like 1 and 3".
    """
    if form.words:
        return (panel.like, *panel.details) if panel.like else panel.details
    weak = "weak" if panel.weak else ""  # its mass stands in the certificate
    return tuple(text for text in (re.sub(r"x-features? ", "", panel.like), weak) if text)


def _whole(panel: Panel, form: _Form) -> str:
    """The name of a logit; a paper's columns are too narrow for "The whole logit"."""
    short = panel.name.removeprefix("The whole ")
    return panel.name if form.words else short[:1].upper() + short[1:]


def _best_per_line(names: Sequence[str], form: _Form) -> int:
    """How many maps stand beside each other: first so that few names are cut, then full lines."""

    def loss(count: int) -> tuple[int, int]:
        cut = sum(extent(name, form.text, "normal") > form.across(count) for name in names)
        return cut, -(len(names) + 2) % count  # the image takes the room of two

    return min(form.per_line, key=loss)


def _in_lines(page: Page, cells: Sequence[_Cell], aspect: float, form: _Form) -> None:
    """For a paper: the image as large as two by two maps, then all maps, line after line."""
    image, *maps = cells
    per_line = _best_per_line([cell.name for cell in maps], form)
    width, first = form.across(per_line), per_line - 2
    height = width / aspect
    lines = [maps[:first]]
    lines += [maps[at : at + per_line] for at in range(first, len(maps), per_line)]
    for at, line in enumerate(lines):
        top = page.y + form.heading(any(cell.value for cell in line))
        offset = 0 if at else 2
        if offset:
            tall = 2 * height + form.gap
            image.draw(
                page, form.margin, top, (min(tall * aspect, 2 * width + form.gap), tall), form
            )
        for position, cell in enumerate(line, offset):
            x = form.margin + position * (width + form.gap)
            cell.draw(page, x, top, (width, height), form)
        page.y = top + 2 * (height + form.gap) + max(cell.below(form) for cell in line)


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
    panels: Sequence[_Cell],
    logits: Sequence[_Cell],
    layout: _Layout,
    form: _Form,
) -> None:
    """On a screen: the image, beside it the x-features, and behind a line the logits."""
    several = len(card.rows) > 1
    high = form.heading(not several)
    top, below = page.y + high, layout.panel[1] + GAP
    _Cell("Image", (card.image,)).draw(page, MARGIN, top, layout.image, form)
    under = max((cell.below(form) for cell in panels), default=0.0)
    block = high + 2 * below + (under + 0.1 if under else 0.0) + GAP
    for position, cell in enumerate(panels):
        y = top + (position // layout.per_line) * block
        cell.draw(page, layout.column(position), y, layout.panel, form)
        if several and position % layout.per_line == 0:
            for line, row in enumerate(card.rows):
                name = page.fit(row.name, form.text, layout.image[0], "bold")
                x, low = layout.column(0) - 0.15, y + 2 * below + line * _line(form.text)
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


# --- of a text or a row


def _list(page: Page, card: Card, form: _Form) -> None:
    """X-features and logits below each other, each with the text on colours, or with bars."""
    single = len(card.rows) == 1
    for panel in card.panels:
        amounts = [text if single else f"{text} to {row}" for text, _, row in card.amounts(panel)]
        colour = colour_of(panel.values[0]) if single else INK
        _entries(page, panel, form, ", ".join(amounts), colour)
    for row, panel in zip(card.rows, card.logit_panels, strict=True):
        _entries(page, panel, form, number(row.logit), INK)


def _entries(page: Page, panel: Panel, form: _Form, value: str, colour: str) -> None:
    """Heading with name and contribution, then tokens or bars."""
    name = page.fit(panel.name, form.text, 0.55 * form.room)
    page.put(form.margin, page.y, name, form.text, color=MUTED, va="top")
    right = form.margin + extent(name, form.text, "normal") + GAP
    value = page.fit(value, form.text, form.width - form.margin - right, "bold")
    page.put(right, page.y, value, form.text, color=colour, weight="bold", va="top")
    page.y += 1.25 * _line(form.text)
    details = "; ".join(_details(panel, form))
    if details:
        page.text(form.margin, details, form.small, form.room, color=MUTED)
    match panel.evidence:
        case _ if panel.note:
            page.text(form.margin, panel.note, form.small, form.room, color=MUTED)
        case Tokens() as tokens:
            _tokens(page, tokens, form)
        case Columns() as columns:
            _bars(page, columns, form)
    page.y += GAP


def _tokens(page: Page, tokens: Tokens, form: _Form) -> None:
    """The text, every token on its colour; the strong ones with their number below."""
    x, pad, tall = form.margin, 0.03, form.text * 1.2 / 72
    step = tall + _line(form.small)
    for i, (token, level) in enumerate(zip(tokens.entries, tokens.levels(), strict=True)):
        token = page.fit(token, form.text, form.room - 2 * pad)
        said = signed(float(tokens.values[i])) if tokens.is_spoken(i) else ""
        needed = max(extent(token, form.text, "normal"), extent(said, form.small, "normal"))
        width = needed + 2 * pad
        if x > form.margin and x + width > form.width - form.margin:
            x, page.y = form.margin, page.y + step
        if level:
            page.bar(x, page.y - 0.02, width, tall + 0.02, tint(level))
        page.put(x + pad, page.y, token, form.text, va="top")
        if said:
            colour = POSITIVE if level > 0 else NEGATIVE
            page.put(x + pad, page.y + tall + 0.01, said, form.small, color=colour, va="top")
        x += width + 0.02
    page.y += step


def _bars(page: Page, columns: Columns, form: _Form) -> None:
    """The strongest columns, with their values and bars to the right (+) and left (-)."""
    small, strongest = form.small, columns.order()[:TOP]
    labels = {i: f"{columns.entries[i]} = {columns.shown[i]}" for i in strongest}
    names = max((extent(label, small, "normal") for label in labels.values()), default=0.0)
    names = min(names + GAP, 0.5 * form.room)
    start, edge = form.margin + names, form.width - form.margin
    across = form.room - names - extent("\N{MINUS SIGN}0.0000", small, "normal") - GAP
    for i, label in labels.items():
        value = float(columns.values[i])
        page.put(form.margin, page.y, page.fit(label, small, names - 0.05), small, va="top")
        length, tall, colour = across * columns.reach(i), small / 72, colour_of(value)
        left = start + across * columns.zero() - (length if value < 0 else 0)
        page.bar(left, page.y + 0.15 * tall, length, tall, colour)
        page.put(edge, page.y, signed(value), small, color=colour, ha="right", va="top")
        page.y += small * 1.5 / 72
    count, total = columns.rest()
    if count:
        text = f"{count} more columns together: {signed(total)}"
        page.text(form.margin, text, small, form.room, color=MUTED)
