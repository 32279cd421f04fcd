"""The matplotlib figure of one explanation (paper figures 1 and 8), for a screen or for a paper.

Of an image: the image, then per x-feature, by decreasing contribution, its heatmap and a cut-out of
what it looks at, then the heatmap of the original logit. Of a text or a row: per x-feature the text
on colours, or bars. A figure for a paper is one or two columns wide and its text 7 to 8 points
tall; sentence, certificate and the reading of the colours belong into the paper's own caption and
are left out; warnings stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from matplotlib.figure import Figure

from torchxnn.explanations.card import Card
from torchxnn.explanations.drawing.canvas import Page
from torchxnn.explanations.drawing.form import GAP, MARGIN, PAPER, SCREEN, Form, PaperColumns, Style
from torchxnn.explanations.drawing.image_body import image_body
from torchxnn.explanations.drawing.list_body import draw_list
from torchxnn.explanations.drawing.overlay import MUTED, TINY, WARNING, colour_scale, number


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
    form = PAPER[columns] if style == "paper" else SCREEN
    if card.kind == "image":
        width, body = image_body(card, form)
    else:
        width, body = form.width, partial(draw_list, card=card, form=form)

    def draw(page: Page) -> None:
        _header(page, card, form)
        body(page)
        if form.words:
            _footer(page, card, form)

    return Page.fitted(width, draw, form.dpi).figure


def _header(page: Page, card: Card, form: Form) -> None:
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
    page.text(MARGIN, title, SCREEN.title, width, weight="bold")
    page.y += 0.04
    for fact in facts:
        page.text(MARGIN, fact, SCREEN.text, width, color=MUTED)
    for warning in warnings:
        style = {"color": WARNING, "weight": "bold"}
        page.text(MARGIN, f"Warning: {warning}", SCREEN.text, width, **style)
    page.y += GAP


def _footer(page: Page, card: Card, form: Form) -> None:
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
    small, indent, style = SCREEN.small, 0.0, {"color": MUTED, "va": "center"}
    if legend:
        indent = legend + 1.75
        page.put(MARGIN, page.y + 0.08, "low", small, **style)
        page.image(MARGIN + 0.34, page.y + 0.02, (legend, 0.13), colour_scale())
        page.put(MARGIN + legend + 0.42, page.y + 0.08, "high relevance", small, **style)
    width = page.width - 2 * MARGIN - indent
    page.text(MARGIN + indent, caption, small, width, color=MUTED)
    page.y += 0.22
