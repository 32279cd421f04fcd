"""What a drawing of one explanation says, whatever is explained and whatever draws it.

A `Card` holds words and order, a `Panel` one x-feature or one logit. What a panel shows depends on
the input: a `Heatmap` on an image, `Tokens` of a text or `Columns` of a row. Figures and pages draw
each of them in one place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Real, UInt8

from torchxnn.attribution.base import WEAK_MASS
from torchxnn.explanations.drawing.overlay import (
    LEVELS,
    cutout,
    faded,
    number,
    overlay,
    sign_of,
    signed,
)

SPOKEN = 0.1  # of the largest: from there on a token carries its number
TOP = 8  # columns that are drawn as bars; all are in the table


def strength(mass: float | None) -> str:
    """The contrast mass of a map, in words; empty where nobody measured it.

    As in "mass 3.2%", or "weak: mass 0.02%" below `WEAK_MASS`.
    """
    if mass is None:
        return ""
    return f"{'weak: ' if mass < WEAK_MASS else ''}mass {100 * mass:.2g}%"


def weakness(mass: float | None) -> str:
    """The same of a weak map; empty of any other."""
    return strength(mass) if mass is not None and mass < WEAK_MASS else ""


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Relevance on the explained image.

    Attributes:
        image: (height, width, 3).
        relevance: (height, width), signed; drawn by its positive part.
        intensity: (height, width), between 0 and 1, see `intensities`.
        slices: of a volume, the 0-based numbers of the slices that lie side by side in the image.
    """

    image: UInt8[np.ndarray, "height width 3"]
    relevance: Real[np.ndarray, "height width"]
    intensity: Real[np.ndarray, "height width"]
    slices: tuple[int, ...] = ()

    def pictures(self, inactive: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Where it looks and what is there; the pale image twice if the x-feature is inactive."""
        if inactive:
            return (faded(self.image),) * 2
        return self._both

    @cached_property
    def _both(self) -> tuple[np.ndarray, np.ndarray]:
        """Drawn once for the page, the figure and the files of one card."""
        return overlay(self.image, self.intensity), cutout(self.image, self.relevance)


@dataclass(frozen=True, eq=False)
class Attributions:
    """What every entry of a list adds, as colours and as bars to the left and right of zero.

    Attributes:
        entries: tokens of a text, or names of columns.
        values: (entries,), signed.
        bounds: how far colours and bars go below and above zero; neither is negative.
    """

    entries: tuple[str, ...]
    values: Real[np.ndarray, " entries"]
    bounds: tuple[float, float]

    def levels(self) -> list[int]:
        """Strength of every entry from -8 (most negative) to 8."""
        top = max(self.bounds)
        return [round(LEVELS * float(value) / top) if top else 0 for value in self.values]

    def order(self) -> list[int]:
        """Entries by decreasing absolute attribution; ties keep their order."""
        return np.argsort(-np.abs(self.values), kind="stable").tolist()

    def is_spoken(self, entry: int) -> bool:
        """Whether an entry is strong enough that its number stands beside it."""
        size = abs(float(self.values[entry]))
        return size > 0 and size >= SPOKEN * max(self.bounds)

    def zero(self) -> float:
        """Where bars start, as a fraction of their room from the left: 0 if none is negative."""
        return self.bounds[0] / (sum(self.bounds) or 1.0)

    def reach(self, entry: int) -> float:
        """Length of an entry's bar as a fraction of the room for bars."""
        return abs(float(self.values[entry])) / (sum(self.bounds) or 1.0)


class Tokens(Attributions):
    """What every token of a text adds."""


@dataclass(frozen=True, eq=False)
class Columns(Attributions):
    """What every column of a row adds.

    Attributes:
        shown: the value of every column in words.
    """

    shown: tuple[str, ...]

    def rest(self) -> tuple[int, float]:
        """How many columns are too weak for a bar, and what they add together."""
        weak = self.order()[TOP:]
        return len(weak), float(self.values[weak].sum())


Evidence = Heatmap | Tokens | Columns


@dataclass(frozen=True, eq=False)
class Panel:
    """One x-feature of a card, or one logit.

    Attributes:
        name: What is shown ("x-feature 3", "The whole logit").
        evidence: Where it looks.
        values: The contribution to each row's logit; of a logit: empty.
        note: Why there is nothing to see ("inactive here"), else empty.
        details: What the fit knows of an x-feature, in few words each.
        like: Which other x-features it is like; empty if there are none.
        weak: That the map is a residue, one of the details; empty if it is not, or nobody knows.
        verdict: Whether the network was shown to use it, one of the details; empty if nobody asked.
    """

    name: str
    evidence: Evidence
    values: tuple[float, ...] = ()
    note: str = ""
    details: tuple[str, ...] = ()
    like: str = ""
    weak: str = ""
    verdict: str = ""

    @property
    def pictures(self) -> tuple[np.ndarray, ...]:
        """Of an image, where it looks and what is there; of a text or row none."""
        evidence = self.evidence
        return evidence.pictures(bool(self.note)) if isinstance(evidence, Heatmap) else ()


@dataclass(frozen=True)
class Row:
    """One target of a card: its logit, and how the x-features add up to it.

    `constant` says what the intercept is, in few words.
    """

    name: str
    logit: float
    reproduced: float
    intercept: float
    constant: str
    equation: str


@dataclass(frozen=True, eq=False)
class Card:
    """All that a drawing of one explanation says, in the order in which it says it.

    Attributes:
        sentence: "A is B because of C, D and E".
        facts: Predicted class, true class, file: one (term, text) each.
        rows: The targets.
        panels: The x-features by decreasing contribution to the first row.
        logit_panels: One for each row's logit.
        certificate: Lines that say how far the explanation can be trusted.
        warnings: Reasons not to trust it; empty when fine.
        caption: How to read colours and numbers.
        truth: What is known to add to the logit, name and logits; empty where nothing is known.
    """

    sentence: str
    facts: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    panels: tuple[Panel, ...]
    logit_panels: tuple[Panel, ...]
    certificate: tuple[str, ...]
    warnings: tuple[str, ...]
    caption: str
    truth: tuple[tuple[str, float], ...] = ()

    @property
    def largest(self) -> float:
        """Size of the largest contribution of an x-feature to a row; 1 if all are 0."""
        return max((abs(v) for panel in self.panels for v in panel.values), default=0.0) or 1.0

    def amounts(self, panel: Panel) -> list[tuple[str, str, str]]:
        """What a panel adds to each row, or how large a logit is: text, sign, name of the row."""
        if panel in self.logit_panels:
            row = self.rows[self.logit_panels.index(panel)]
            return [(number(row.logit), "", row.name)]
        pairs = zip(panel.values, self.rows, strict=True)
        return [(signed(value), sign_of(value), row.name) for value, row in pairs]

    @property
    def kind(self) -> Literal["image", "text", "table"]:
        """What was explained."""
        match self.logit_panels[0].evidence:
            case Heatmap():
                return "image"
            case Tokens():
                return "text"
        return "table"

    @property
    def image(self) -> UInt8[np.ndarray, "height width 3"]:
        """The explained image, (height, width, 3).

        Raises:
            TypeError: A text or a row was explained.
        """
        evidence = self.logit_panels[0].evidence
        if not isinstance(evidence, Heatmap):
            raise TypeError(f"the card of a {self.kind} shows no image")
        return evidence.image

    @property
    def slices(self) -> tuple[int, ...]:
        """Of a volume, the 0-based numbers of the slices in `image`; none of anything else."""
        evidence = self.logit_panels[0].evidence
        return evidence.slices if isinstance(evidence, Heatmap) else ()
