"""The body of the figure of a text or a row: per x-feature the text on colours, or bars."""

from __future__ import annotations

from torchxnn.explanations.card import TOP, Card, Columns, Panel, Tokens
from torchxnn.explanations.drawing.canvas import Page, extent
from torchxnn.explanations.drawing.form import GAP, Form, line_height, shown_details
from torchxnn.explanations.drawing.overlay import (
    INK,
    MUTED,
    NEGATIVE,
    POSITIVE,
    colour_of,
    number,
    signed,
    tint,
)


def draw_list(page: Page, card: Card, form: Form) -> None:
    """X-features and logits below each other, each with the text on colours, or with bars."""
    single = len(card.rows) == 1
    for panel in card.panels:
        amounts = [text if single else f"{text} to {row}" for text, _, row in card.amounts(panel)]
        colour = colour_of(panel.values[0]) if single else INK
        _entries(page, panel, form, ", ".join(amounts), colour)
    for row, panel in zip(card.rows, card.logit_panels, strict=True):
        _entries(page, panel, form, number(row.logit), INK)


def _entries(page: Page, panel: Panel, form: Form, value: str, colour: str) -> None:
    """Heading with name and contribution, then tokens or bars."""
    name = page.fit(panel.name, form.text, 0.55 * form.room)
    page.put(form.margin, page.y, name, form.text, color=MUTED, va="top")
    right = form.margin + extent(name, form.text, "normal") + GAP
    value = page.fit(value, form.text, form.width - form.margin - right, "bold")
    page.put(right, page.y, value, form.text, color=colour, weight="bold", va="top")
    page.y += 1.25 * line_height(form.text)
    details = "; ".join(shown_details(panel, form))
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


def _tokens(page: Page, tokens: Tokens, form: Form) -> None:
    """The text, every token on its colour; the strong ones with their number below."""
    x, pad, tall = form.margin, 0.03, form.text * 1.2 / 72
    step = tall + line_height(form.small)
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


def _bars(page: Page, columns: Columns, form: Form) -> None:
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
