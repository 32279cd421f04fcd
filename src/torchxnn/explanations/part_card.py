"""What a drawing of an explained text or row says; figure and page draw the same card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Real

from torchxnn.explanations.card import Row
from torchxnn.explanations.drawing.overlay import NEGATIVE, POSITIVE

LEVELS = 8
SPOKEN = 0.1  # of a panel's largest: from there on a token carries its number
TOP = 8  # features that are drawn as bars; all are in the table
STRONGEST = 0.45  # opacity of the strongest colour, so that dark text stays readable on it


@dataclass(frozen=True, eq=False)
class PartPanel:
    """One x-feature of a card, or one logit.

    Attributes:
        name: what the attributions are of ("x-feature 3").
        attributions: (parts,), signed.
        values: the contribution v_i E_i to each row's logit (of a logit: empty).
        note: why there is nothing to see ("inactive here"), else empty.
    """

    name: str
    attributions: Real[np.ndarray, " parts"]
    values: tuple[float, ...] = ()
    note: str = ""

    def levels(self) -> list[int]:
        """Strength of every part from -8 (most negative) to 8, on the panel's own scale."""
        top = float(np.abs(self.attributions).max(initial=0))
        return [round(LEVELS * float(a) / top) if top else 0 for a in self.attributions]

    def order(self) -> list[int]:
        """Parts by decreasing absolute attribution; ties keep their order."""
        return np.argsort(-np.abs(self.attributions), kind="stable").tolist()

    def is_spoken(self, part: int) -> bool:
        """Whether a part is strong enough that its number stands beside it."""
        top = float(np.abs(self.attributions).max(initial=0))
        return bool(top > 0 and abs(float(self.attributions[part])) >= SPOKEN * top)

    def zero(self) -> float:
        """Where bars start, as a fraction of their room from the left: 0 if none is negative."""
        return float(self._span()[0] / sum(self._span()))

    def reach(self, part: int) -> float:
        """Length of a part's bar as a fraction of the room for bars."""
        return float(abs(float(self.attributions[part])) / sum(self._span()))

    def _span(self) -> tuple[float, float]:
        """How far bars reach to the left and to the right of zero."""
        low, high = (max(0.0, float((s * self.attributions).max(initial=0))) for s in (-1, 1))
        return (low, high) if low + high > 0 else (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class PartCard:
    """All that a drawing of one explained text or row says, in order.

    Attributes:
        kind: "text" or "table".
        parts: tokens, or names of columns.
        shown: the value of every column in words; of a text, empty.
        sentence: "A is B because of C, D and E".
        facts: predicted class, true class, source: one (term, text) each.
        rows: the targets.
        panels: the x-features by decreasing contribution to the first row.
        logit_panels: one for each row's logit.
        certificate: lines that say how far the explanation can be trusted.
        warnings: reasons not to trust it; empty when fine.
        caption: how to read colours and numbers.
    """

    kind: Literal["text", "table"]
    parts: tuple[str, ...]
    shown: tuple[str, ...]
    sentence: str
    facts: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    panels: tuple[PartPanel, ...]
    logit_panels: tuple[PartPanel, ...]
    certificate: tuple[str, ...]
    warnings: tuple[str, ...]
    caption: str


def tint(level: int) -> str:
    """Colour behind a part: white at 0, towards red above and blue below, as "#rrggbb"."""
    colour = POSITIVE if level > 0 else NEGATIVE
    strength = STRONGEST * abs(level) / LEVELS
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 * (1 - strength) + strength * c):02x}" for c in channels)
