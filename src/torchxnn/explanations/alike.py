"""Which x-features of one explanation are alike: one reason under several names.

The paper's figure 12 calls it degeneration: x-features whose heatmaps show the same place. Two are
alike if what is drawn of them agrees on this input (`MAPS_ALIKE`), or if they rise and fall
together over the images of the class (`VARY_ALIKE`). Chains join: if a is like b and b like c, the
three are one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Real

from torchxnn.explanations.drawing.overlay import intensities
from torchxnn.explanations.summands import joined

ALIKE = "Alike"
"""The term under which pages name such x-features."""

MAPS_ALIKE = 0.9
"""Correlation of two drawn heatmaps from which they show the same place.

Measured on four classes of birds (SqueezeNet, ten test images each), drawn through effective
weights: of 400 pairs of maps from different images none reaches .9, and 99% stay below .72, so it
is not what all birds have in common in the middle of the image. One and the same x-feature, drawn
again on the image shifted by four pixels, agrees with itself by .94 (median; .87 at the lower
quartile). So from .9 two x-features differ no more than one does from itself. Of pairs on the same
image 12% do. By the paper's rule (six classes) the figures are .71, .93, .84 and 9%.
"""

VARY_ALIKE = 0.9
"""Correlation over the images of the class, the logit taken out, from which two vary alike.

They then share 81% of what is left of their variation. In the same fits shuffled images reach .46
in 1% of the pairs, and different x-features .30 at most (.63 without independent components).
"""


@dataclass(frozen=True)
class Pair:
    """Two x-features that are alike.

    Attributes:
        first: 0-based.
        second: the later one.
        maps: correlation of what is drawn of them on this input, if it is what makes them alike.
        variation: correlation over the images of the class, if it does.
    """

    first: int
    second: int
    maps: float | None
    variation: float | None

    def text(self, names: Sequence[str], where: str = "the class") -> str:
        """Both names and what agrees, as in: "wing and x-feature 3 (maps r = .95)".

        `where` is what the images have in common on which they vary alike.
        """
        found = [("maps", self.maps), (f"variation on {where}", self.variation)]
        known = [f"{what} r = {value:.2f}" for what, value in found if value is not None]
        return f"{joined([names[self.first], names[self.second]])} ({', '.join(known)})"


def drawn_correlation(
    heatmaps: Sequence[Real[np.ndarray, "height width"]],
) -> Float[np.ndarray, "maps maps"]:
    """Correlation over the pixels of heatmaps as they are drawn, (n, n): the positive part, smooth.

    A map with nothing to draw has correlation 0 with the others.
    """
    return correlate(intensities(heatmaps))


def correlate(drawn: Sequence[Float[np.ndarray, "height width"]]) -> Float[np.ndarray, "maps maps"]:
    """The same of intensities in [0, 1], as `intensities` gives them."""
    rows = np.stack([each.ravel() for each in drawn])
    centred = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(length > 0, length, 1)
    found: np.ndarray = unit @ unit.T
    np.fill_diagonal(found, 1)
    return found


def overlap(correlation: Float[np.ndarray, "maps maps"]) -> float:
    """Mean squared correlation of different maps: 0 if each shows a place of its own, at most 1."""
    pairs = correlation[np.triu_indices(len(correlation), 1)]
    return float(np.square(pairs).mean()) if len(pairs) else 0.0


def find_alike(
    maps: Float[np.ndarray, "features features"] | None, variation: Sequence[Sequence[float]]
) -> tuple[Pair, ...]:
    """All pairs of x-features that are alike, in their order.

    Args:
        maps: from `drawn_correlation`; None where maps cannot be compared.
        variation: see `AmongPositives`; empty where nobody knows.
    """
    count = len(variation) if maps is None else len(maps)
    pairs = (
        Pair(
            first,
            second,
            None if maps is None else _reached(float(maps[first, second]), MAPS_ALIKE),
            _reached(variation[first][second], VARY_ALIKE) if variation else None,
        )
        for first in range(count)
        for second in range(first + 1, count)
    )
    return tuple(pair for pair in pairs if pair.maps is not None or pair.variation is not None)


def _reached(value: float, threshold: float) -> float | None:
    return value if value >= threshold else None


def likeness(pairs: Sequence[Pair], names: Sequence[str]) -> tuple[str, ...]:
    """Of each x-feature which others it is like, as in "like x-features 1 and 3"; or empty."""
    groups = groups_of(pairs, len(names))
    others = [
        [name for j, name in enumerate(names) if j != i and groups[j] == group]
        for i, group in enumerate(groups)
    ]
    return tuple(f"like {joined(each)}" if each else "" for each in others)


def groups_of(pairs: Sequence[Pair], count: int) -> tuple[int, ...]:
    """The group of each of so many x-features, numbered; those alike, also by chains, share one."""
    if not pairs:
        return tuple(range(count))
    together = np.eye(count, dtype=bool)
    for pair in pairs:
        together[[pair.first, pair.second], [pair.second, pair.first]] = True
    firsts = np.linalg.matrix_power(together, count).argmax(1)  # by chains of any length
    return tuple(np.unique(firsts, return_inverse=True)[1].tolist())
