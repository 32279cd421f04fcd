"""An image of a figure with what stands around it, and the layout of a paper: line after line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from torchxnn.explanations.drawing.canvas import Page, extent
from torchxnn.explanations.drawing.form import Form, line_height
from torchxnn.explanations.drawing.overlay import INK, MUTED


@dataclass(frozen=True, eq=False)
class Cell:
    """An image, and perhaps one below it, with what stands above and under them."""

    name: str
    pictures: Sequence[np.ndarray]
    value: str = ""
    colour: str = INK
    share: float | None = None  # of the largest contribution, as a bar
    note: str = ""
    lines: tuple[tuple[str, str], ...] = ()  # with several targets: text and colour
    details: tuple[str, ...] = ()  # below that, in small letters

    def draw(self, page: Page, x: float, y: float, size: tuple[float, float], form: Form) -> None:
        """Draw it; (x, y) is the top left of the first image."""
        width, height = size
        above = y - form.lift
        if self.value:
            value = page.fit(self.value, form.value, width, "bold")
            style = {"color": self.colour, "weight": "bold", "va": "bottom"}
            page.put(x, above, value, form.value, **style)
            above -= line_height(form.value)
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
            y += line_height(form.text)
        for text in self.details:
            text = page.fit(text, form.small, width)
            page.put(x, y, text, form.small, color=MUTED, va="top")
            y += line_height(form.small)

    def below(self, form: Form) -> float:
        """Height of what stands under the images."""
        return len(self.lines) * line_height(form.text) + len(self.details) * line_height(
            form.small
        )


def _best_per_line(names: Sequence[str], form: Form) -> int:
    """How many maps stand beside each other: first so that few names are cut, then full lines."""

    def loss(count: int) -> tuple[int, int]:
        cut = sum(extent(name, form.text, "normal") > form.across(count) for name in names)
        return cut, -(len(names) + 2) % count  # the image takes the room of two

    return min(form.per_line, key=loss)


def draw_in_lines(page: Page, cells: Sequence[Cell], aspect: float, form: Form) -> None:
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
