"""What the absence of x-features changes on one image: numbers, sentences, a figure, a page."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

from torchxnn.apps.what_if.change import ARRAYS, ELSEWHERE, Change
from torchxnn.apps.what_if.config import CLAIM_LEVEL, WhatIfConfig
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.canvas import Page
from torchxnn.explanations.drawing.html import render
from torchxnn.explanations.drawing.overlay import (
    FAINT,
    INK,
    MUTED,
    colour_of,
    faded,
    heatmap_over,
    number,
    outlined,
    signed,
)
from torchxnn.explanations.saved_result import SavedResult
from torchxnn.metrics.intervals import holm_adjust
from torchxnn.storage.artifact import Format, structure

_PLAIN = ("target", "target_name", "logit", "reproduced", "decoded", "path")
_TEMPLATE = Path(__file__).parent / "templates" / "what_if.html.j2"
_HEADINGS = ("", "its region painted over", "one of the other places")
_STYLE = """
.sums .bar { height: 13px; min-width: 8rem; } .range { fill: #1b1f24; }
.wide { grid-template-columns: repeat(4, minmax(0, 16rem)); }
.wide figcaption { min-height: 0; }
@media screen and (max-width: 40rem) { .wide { grid-template-columns: 1fr 1fr; } }
"""
_WIDTH, _MARGIN, _GAP, _PICTURE, _BARS = 9.0, 0.2, 0.12, 1.3, 3.9  # inches
_SMALL = 8.0  # points


@final
@dataclass(frozen=True, eq=False)
class WhatIf(SavedResult):
    """What each x-feature's absence changes on one image.

    Attributes:
        image: (H, W, 3), as the network saw it.
        target: 0-based class.
        target_name: its name.
        logit: the network's own.
        reproduced: from the x-features.
        decoded: the network's logit on the embedding's reconstruction of the layer; far from
            `logit` where the reconstruction is poor, and then `decoded_real` says little.
        changes: per x-feature, by decreasing size of the contribution.
        config: the settings.
        path: where the image came from, for people.
    """

    stem = "what_if"
    format = Format("torchxnn.what_if", 1, "a saved what-if")
    image: UInt8[np.ndarray, "height width 3"]
    target: int
    target_name: str
    logit: float
    reproduced: float
    decoded: float | None
    changes: tuple[Change, ...]
    config: WhatIfConfig
    path: str | None = None

    def change(self, feature: int) -> Change:
        """What the absence of one x-feature changes; `feature` is 0-based.

        Raises:
            DataError: it was not asked for.
        """
        for each in self.changes:
            if each.feature == feature:
                return each
        asked = [each.feature for each in self.changes]
        raise DataError(f"x-feature {feature} was not asked for, only {asked}")

    def p_holm(self, feature: int) -> float | None:
        """`Change.p`, corrected after Holm for all x-features asked for that have one.

        Raises:
            DataError: it was not asked for.
        """
        self.change(feature)
        tested = {each.feature: each.p for each in self.changes if each.p is not None}
        corrected = dict(zip(tested, holm_adjust(list(tested.values())), strict=True))
        return corrected.get(feature)

    def used(self, feature: int) -> bool | None:
        """Whether it is shown that the network uses an x-feature as the explanation claims.

        Its own logit moves in the claimed direction, and `p_holm` is at most `CLAIM_LEVEL`. None
        where nothing was tested.

        Raises:
            DataError: it was not asked for.
        """
        one, p = self.change(feature), self.p_holm(feature)
        return None if p is None else p <= CLAIM_LEVEL and one.claimed_sign * one.masked_real > 0

    def uses(self) -> tuple[bool | None, ...]:
        """`used` of the x-features in their order, if all were asked for, as `Reasons` has it."""
        return tuple(self.used(feature) for feature in range(len(self.changes)))

    def sentence(self, feature: int) -> str:
        """One line: what the explanation claims, what the network does, and the control."""
        one = self.change(feature)
        if one.activation == 0:
            return f"{one.name} is inactive on this image."
        if one.pixels == 0:
            return f"{one.name} has an empty map on this image: there is nothing to paint over."
        found, p = "it claims nothing", self.p_holm(feature)
        if p is not None:
            used = self.used(feature)
            found = "the network uses it" if used else self._why_not(one)
            found += f" (p = {p:.3f}{self._correction()}"
            found += ")" if used else f"; needed: at most {CLAIM_LEVEL})"
            found += "" if used else self._too_few(len(one.control_real))
        value = "that of a typical other image"
        if self.config.value is not None:
            value = number(self.config.value) if self.config.value else "zero"
        return (
            f"With {one.name} at {value} the reproduced logit of {self.target_name} changes by "
            f"{signed(one.set_reproduced)}; with its region ({one.extent()}) painted over the "
            f"network's own changes by {signed(one.masked_real)}, and by "
            f"{signed(one.control_mean)} {_elsewhere(one)}: {found}."
        )

    def _why_not(self, one: Change) -> str:
        """By which part of the rule it is not shown that the network uses an x-feature."""
        not_shown = "not show that the network uses it"
        if one.claimed_sign * one.masked_real <= 0:
            return f"the network's own does not move as claimed, so this does {not_shown}"
        if one.as_far:
            moves = "moves" if one.as_far == 1 else "move"
            return (
                f"{one.as_far} of these places {moves} it at least as far, so this does {not_shown}"
            )
        return f"no other place moves it as far, but so few of them do {not_shown}"

    def _too_few(self, controls: int) -> str:
        """That so few controls could not show it, whatever they do; empty if they could."""
        tested = sum(each.p is not None for each in self.changes)
        needed = round(tested / CLAIM_LEVEL) - 1
        return f", nor could it be with fewer than {needed} controls" if controls < needed else ""

    def _correction(self) -> str:
        tested = sum(each.p is not None for each in self.changes)
        return f", corrected for {tested} x-features" if tested > 1 else ""

    def plot(self) -> Figure:
        """Draw a figure: per x-feature its map, the image without it, and the changes."""
        return Page.fitted(_WIDTH, partial(_draw, found=self), dpi=150).figure

    def _page(self) -> bytes:
        title = f"What if: {self.target_name}"
        return render(_TEMPLATE, _STYLE, found=self, title=title, level=CLAIM_LEVEL, mean=ELSEWHERE)

    def _write(self, folder: Path) -> tuple[dict[str, Any], bytes, Figure]:
        arrays: dict[str, Any] = {
            name: np.stack([getattr(one, name) for one in self.changes]) for name in ARRAYS
        }
        np.savez_compressed(folder / "arrays.npz", image=self.image, **arrays)
        pictures = {"image": self.image}
        for one in self.changes:
            stem = f"x_feature_{one.feature + 1}"
            names = stem, f"{stem}_masked", f"{stem}_control"
            pictures |= dict(zip(names, self.pictures(one), strict=True))
        for name, pixels in pictures.items():
            Image.fromarray(pixels).save(folder / f"{name}.png")
        record = {
            **{name: getattr(self, name) for name in _PLAIN},
            "config": self.config,
            "changes": [
                {
                    **one.record(),
                    "p_holm": self.p_holm(one.feature),
                    "used": self.used(one.feature),
                    "sentence": self.sentence(one.feature),
                }
                for one in self.changes
            ],
            "meaning": "changes are after minus before, in logits",
        }
        return record, self._page(), self.plot()

    @classmethod
    def _read(cls, folder: Path, record: dict[str, Any]) -> WhatIf:
        if not (folder / "arrays.npz").is_file():
            raise DataError(
                f"the what-if in {folder} was saved without its arrays; make it anew with `what_if`"
            )
        plain = {name: record[name] for name in _PLAIN}
        given = {"on_object": 0.0, **record["config"]}  # as in files of earlier versions
        config = structure(given, WhatIfConfig, str(folder))
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            image = arrays["image"]
            own = {name: arrays[name] for name in ARRAYS if name in arrays}
        # not in files of earlier versions: the pixels that painting changed
        own.setdefault("control_region", (own["control"] != image).any(-1))
        changes = []
        for at, one in enumerate(record["changes"]):
            values = {f.name: one[f.name] for f in fields(Change) if f.name not in ARRAYS}
            values |= {name: tuple(one[name]) for name in ("control_real", "control_reproduced")}
            changes.append(Change(**values, **{name: own[name][at] for name in ARRAYS}))
        return cls(image=image, changes=tuple(changes), config=config, **plain)

    def facts(self) -> list[tuple[str, str]]:
        """What a drawing says of the whole image, as (term, text)."""
        facts = [("Logit of the network", number(self.logit))]
        facts.append(("Reproduced", number(self.reproduced)))
        if self.decoded is not None:
            facts.append(("On the embedding's reconstruction", number(self.decoded)))
        facts.append(("Region of an x-feature", self.config.definition()))
        controls = max((len(one.control_real) for one in self.changes), default=0)
        if controls:
            near = f", {self.config.on_object:.0%} of them on the object"
            told = f"{controls} other places{near if self.config.on_object else ''}"
            facts.append(("Controls per x-feature", told))
        return facts if self.path is None else [*facts, ("File", self.path)]

    def pictures(self, one: Change) -> tuple[UInt8[np.ndarray, "height width 3"], ...]:
        """An x-feature's map on the image, the image without its region, and without another.

        What is painted over is outlined.
        """
        if not one.pixels:
            return faded(self.image), one.masked, one.control
        return (
            heatmap_over(self.image, one.heatmap),
            outlined(one.masked, one.region),
            outlined(one.control, one.control_region),
        )

    def largest(self) -> float:
        """The size of the largest change, for the scale of the bars."""
        every = (value for one in self.changes for _, value in one.bars())
        ends = (end for one in self.changes for end in one.control_range or ())
        return max(map(abs, chain(every, ends)), default=0.0) or 1.0


def _elsewhere(one: Change) -> str:
    """Where the controls of an x-feature lie, and how far apart they are."""
    if one.control_range is None:
        return "with such a region at another place"
    low, high = map(signed, one.control_range)
    places = len(one.control_real)
    return f"on average ({low} to {high}) with such a region at one of {places} other places"


def _draw(page: Page, found: WhatIf) -> None:
    """Per x-feature a row: its map, the image without its region, and the changes as bars."""
    height, width = found.image.shape[:2]
    across = (_WIDTH - 2 * _MARGIN - _BARS) / len(_HEADINGS) - _GAP
    size = min(across, _PICTURE * width / height), min(_PICTURE, across * height / width)
    facts = ", ".join(f"{term.lower()} {text}" for term, text in found.facts()[:2])
    page.y = _MARGIN
    page.text(_MARGIN, f"{found.target_name}: {facts}", 11.0, _WIDTH - 2 * _MARGIN, weight="bold")
    for one in found.changes:
        page.y += _GAP
        for at, (heading, picture) in enumerate(zip(_HEADINGS, found.pictures(one), strict=True)):
            x = _MARGIN + at * (across + _GAP)
            page.put(x, page.y, page.fit(heading or one.name, _SMALL, across), _SMALL, va="top")
            page.image(x, page.y + 0.18, size, picture)
        page.put(_WIDTH - _MARGIN - _BARS / 2, page.y, "change of the logit", _SMALL, ha="center",
                 va="top", color=MUTED)  # fmt: skip
        _draw_bars(page, one, found.largest())
        page.y += 0.18 + max(size[1], len(one.bars()) * 0.24)
    page.y += _MARGIN


def _draw_bars(page: Page, one: Change, largest: float) -> None:
    """Bars to both sides of zero, each with its name and number on the side that is empty."""
    bars = one.bars()
    zero, top = _WIDTH - _MARGIN - _BARS / 2, page.y + 0.2
    for at, (name, value) in enumerate(bars):
        y, length = top + 0.24 * at, _BARS / 2 * abs(value) / largest
        page.bar(zero - (length if value < 0 else 0), y, length, 0.15, colour_of(value))
        if name == ELSEWHERE and one.control_range is not None:
            low, high = (zero + _BARS / 2 * end / largest for end in one.control_range)
            page.bar(low, y + 0.165, high - low, 0.02, INK)
        x, side = (zero + 0.04, "left") if value <= 0 else (zero - 0.04, "right")
        said = page.fit(f"{name}: {signed(value)}", 6.5, _BARS / 2)
        page.put(x, y + 0.07, said, 6.5, color=INK, ha=side, va="center")
    page.bar(zero, top - 0.03, 0.01, 0.24 * len(bars), FAINT)
