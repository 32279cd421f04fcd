"""What a drawing of one explanation says, whatever draws it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Real, UInt8

Scale = Literal["each", "shared"]


@dataclass(frozen=True, eq=False)
class Panel:
    """One heatmap of a card.

    Attributes:
        name: What it is the heatmap of ("x-feature 3").
        heatmap: (height, width), signed; drawn by its positive part.
        values: The contribution v_i E_i to each row's logit (for a logit's heatmap: empty).
        note: Why there is nothing to see ("inactive here"), else empty.
    """

    name: str
    heatmap: Real[np.ndarray, "height width"]
    values: tuple[float, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Row:
    """One target of a card: its logit, and how the x-features add up to it."""

    name: str
    logit: float
    reproduced: float
    intercept: float
    equation: str


@dataclass(frozen=True, eq=False)
class Card:
    """All that a drawing of one explanation says, in the order in which it says it.

    Attributes:
        picture: (height, width, 3), the photograph.
        sentence: "A is B because of C, D and E".
        facts: Predicted class, true class, file: one (term, text) each.
        rows: The targets.
        panels: The x-features by decreasing contribution to the first row.
        logit_panels: The single heatmap of each row's logit.
        certificate: Lines that say how far the explanation can be trusted.
        warnings: Reasons not to trust it; empty when fine.
        caption: How the heatmaps were scaled and smoothed.
        scale: "each" or "shared", see `intensities`.
        logit_heading: What stands above the last column where there is one row.
    """

    picture: UInt8[np.ndarray, "height width 3"]
    sentence: str
    facts: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]
    panels: tuple[Panel, ...]
    logit_panels: tuple[Panel, ...]
    certificate: tuple[str, ...]
    warnings: tuple[str, ...]
    caption: str
    scale: Scale = "each"
    logit_heading: str = "The whole logit"
