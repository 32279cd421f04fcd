"""What the absence of x-features on one image looks like: a figure and a page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure

from torchxnn.explanations.drawing.canvas import Page
from torchxnn.explanations.drawing.html import data_uri, render
from torchxnn.explanations.drawing.overlay import FAINT, INK, MUTED, colour_of, sign_of, signed

_PAGE = Path(__file__).parent / "templates" / "what_if.html.j2"
_HEADINGS = ("", "without its region", "without one elsewhere")
_WIDTH, _MARGIN, _GAP, _PICTURE, _BARS = 9.0, 0.2, 0.12, 1.3, 3.9  # inches
_SMALL = 8.0  # points


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One x-feature of a sheet.

    Attributes:
        name: For people.
        sentence: What its absence changes.
        pictures: Its map on the image, the image without its region, and without one elsewhere.
        bars: The changes with their names, in logits.
    """

    name: str
    sentence: str
    pictures: tuple[UInt8[np.ndarray, "height width 3"], ...]
    bars: tuple[tuple[str, float], ...]


@dataclass(frozen=True, eq=False)
class Sheet:
    """All that a drawing says.

    Attributes:
        name: Of the target.
        image: (H, W, 3).
        facts: One (term, text) each.
        rows: The x-features.
    """

    name: str
    image: UInt8[np.ndarray, "height width 3"]
    facts: tuple[tuple[str, str], ...]
    rows: tuple[SheetRow, ...]

    @property
    def largest(self) -> float:
        """The largest change, for the scale of the bars."""
        sizes = (abs(value) for row in self.rows for _, value in row.bars)
        return max(sizes, default=0.0) or 1.0


def draw_sheet(sheet: Sheet) -> Figure:
    """Draw per x-feature a row: its map, the image without its region, and the changes as bars."""
    return Page.fitted(_WIDTH, partial(_draw, sheet=sheet), dpi=150).figure


def _draw(page: Page, sheet: Sheet) -> None:
    height, width = sheet.image.shape[:2]
    across = (_WIDTH - 2 * _MARGIN - _BARS) / len(_HEADINGS) - _GAP
    size = min(across, _PICTURE * width / height), min(_PICTURE, across * height / width)
    facts = ", ".join(f"{term.lower()} {text}" for term, text in sheet.facts[:2])
    page.y = _MARGIN
    page.text(_MARGIN, f"{sheet.name}: {facts}", 11.0, _WIDTH - 2 * _MARGIN, weight="bold")
    for row in sheet.rows:
        page.y += _GAP
        for at, (heading, picture) in enumerate(zip(_HEADINGS, row.pictures, strict=True)):
            x = _MARGIN + at * (across + _GAP)
            page.put(x, page.y, page.fit(heading or row.name, _SMALL, across), _SMALL, va="top")
            page.image(x, page.y + 0.18, size, picture)
        page.put(_WIDTH - _MARGIN - _BARS / 2, page.y, "change of the logit", _SMALL, ha="center",
                 va="top", color=MUTED)  # fmt: skip
        _draw_bars(page, row, sheet.largest)
        page.y += 0.18 + max(size[1], len(row.bars) * 0.24)
    page.y += _MARGIN


def _draw_bars(page: Page, row: SheetRow, largest: float) -> None:
    """Bars to both sides of zero, each with its name and number on the side that is empty."""
    zero, top = _WIDTH - _MARGIN - _BARS / 2, page.y + 0.2
    for at, (name, value) in enumerate(row.bars):
        y, length = top + 0.24 * at, _BARS / 2 * abs(value) / largest
        page.bar(zero - (length if value < 0 else 0), y, length, 0.15, colour_of(value))
        x, side = (zero + 0.04, "left") if value <= 0 else (zero - 0.04, "right")
        said = page.fit(f"{name}: {signed(value)}", 6.5, _BARS / 2)
        page.put(x, y + 0.07, said, 6.5, color=INK, ha=side, va="center")
    page.bar(zero, top - 0.03, 0.01, 0.24 * len(row.bars), FAINT)


def render_sheet(sheet: Sheet) -> bytes:
    """One HTML page that requests nothing."""
    rows = [
        {
            "name": row.name,
            "sentence": row.sentence,
            "pictures": [data_uri(picture) for picture in row.pictures],
            "bars": [_bar(name, value, sheet.largest) for name, value in row.bars],
        }
        for row in sheet.rows
    ]
    title, image = f"What if: {sheet.name}", data_uri(sheet.image)
    return render(_PAGE, title=title, facts=sheet.facts, image=image, rows=rows)


def _bar(name: str, value: float, largest: float) -> dict[str, Any]:
    width = round(50 * abs(value) / largest, 2)
    start = 50 if value > 0 else round(50 - width, 2)
    text, sign = signed(value), sign_of(value)
    return {"name": name, "text": text, "sign": sign, "start": start, "width": width}
