"""The forms of a figure, for a screen and for a paper's columns, in inches and points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torchxnn.explanations.card import Panel
from torchxnn.explanations.drawing.canvas import DPI

Style = Literal["screen", "paper"]
PaperColumns = Literal[1, 2]

MARGIN, GAP, WIDE_GAP = 0.3, 0.12, 0.38  # inches, on a screen
PANEL = 1.65  # height of a heatmap in inches, on a screen
PER_LINE = 7  # x-features beside each other, on a screen


@dataclass(frozen=True)
class Form:
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
        """Width between the margins."""
        return self.width - 2 * self.margin

    def across(self, count: int) -> float:
        """Width of each of so many cells beside each other."""
        return (self.room - (count - 1) * self.gap) / count

    def heading(self, valued: bool) -> float:
        """Height above an image: its name, and the contribution below that."""
        return line_height(self.text) + (line_height(self.value) if valued else 0) + self.lift

    @property
    def lift(self) -> float:
        """Between a heading and its image: room for the bar."""
        return 0.1 if self.words else 0.02


SCREEN = Form(9.6, MARGIN, GAP, 15.0, 17.0, 10.5, 9.0, (7,), True, DPI)
PAPER = {
    1: Form(3.3, 0.02, 0.05, 8.0, 8.0, 7.5, 7.0, (4, 3, 5), False, 300),
    2: Form(6.9, 0.02, 0.05, 8.0, 8.0, 7.5, 7.0, (8, 7, 9, 6), False, 300),
}  # as wide as most templates of two columns have them


def line_height(points: float) -> float:
    """Height of a line of text in inches."""
    return points * 1.4 / 72


def shown_details(panel: Panel, form: Form) -> tuple[str, ...]:
    """What stands under a map: which others it is like, that it is weak; on a screen all.

    A paper's columns are narrow, so there x-features are numbers: "like 1 and 3".
    """
    if form.words:
        return (panel.like, *panel.details) if panel.like else panel.details
    weak = "weak" if panel.weak else ""  # its mass stands in the certificate
    return tuple(text for text in (re.sub(r"x-features? ", "", panel.like), weak) if text)
