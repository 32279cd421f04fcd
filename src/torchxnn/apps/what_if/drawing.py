"""What the absence of x-features on one image looks like: a figure, a page, and a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from torchxnn.explanations.drawing.html import data_uri, render
from torchxnn.explanations.drawing.overlay import (
    INK,
    MUTED,
    colour_of,
    faded,
    intensities,
    overlay,
    signed,
)
from torchxnn.storage.artifact import Format
from torchxnn.storage.files import replace_folder

MARKER = "what_if.json"
FORMAT = Format("torchxnn.what_if", 1, "a saved what-if")
_ARRAYS = ("heatmap", "region", "masked", "control")
_ROW = 1.75  # inches
_LONGEST = 40  # characters of a name above a picture


@dataclass(frozen=True, eq=False)
class Change:
    """What one x-feature's absence changes on one image, in logits of one target.

    Attributes:
        feature: 0-based.
        name: for people.
        activation: E.
        contribution: v E.
        pixels: of its region; 0 if it is inactive or its map is empty, and nothing is painted over.
        set_reproduced: (a) the reproduced logit, if E is set to the value.
        masked_real: (b) the network's own logit, if the region is painted over.
        masked_reproduced: (b) the reproduced logit, likewise.
        control_real: likewise for each region elsewhere.
        control_reproduced: likewise.
        decoded_real: (c) the network's logit on the reconstruction without the x-feature minus that
            with it; None where x-features are maps.
        heatmap: (H, W), signed.
        region: (H, W).
        masked: (H, W, 3), the picture with the region painted over.
        control: (H, W, 3), the same for the first control.
    """

    feature: int
    name: str
    activation: float
    contribution: float
    pixels: int
    set_reproduced: float
    masked_real: float
    masked_reproduced: float
    control_real: tuple[float, ...]
    control_reproduced: tuple[float, ...]
    decoded_real: float | None
    heatmap: Float[np.ndarray, "height width"]
    region: Bool[np.ndarray, "height width"]
    masked: UInt8[np.ndarray, "height width 3"]
    control: UInt8[np.ndarray, "height width 3"]

    @property
    def control_mean(self) -> float:
        """Mean change of the network's own logit over the controls."""
        return float(np.mean(self.control_real)) if self.control_real else 0.0

    @property
    def used(self) -> bool | None:
        """Whether the network's logit moves as the x-feature claims, further than every control.

        None where there is no region, or the x-feature claims nothing.
        """
        if self.pixels == 0 or self.set_reproduced == 0:
            return None
        sign = 1 if self.set_reproduced > 0 else -1
        return sign * self.masked_real > max(0.0, *(sign * each for each in self.control_real))

    def record(self) -> dict[str, Any]:
        """The numbers as plain values."""
        names = [each.name for each in fields(self) if each.name not in _ARRAYS]
        return {name: getattr(self, name) for name in names} | {"used": self.used}

    def bars(self) -> tuple[tuple[str, float], ...]:
        """The changes with their names, in the order in which they are drawn."""
        bars = [
            ("reproduced, x-feature set", self.set_reproduced),
            ("network, region painted over", self.masked_real),
            ("network, regions elsewhere (mean)", self.control_mean),
            ("reproduced, region painted over", self.masked_reproduced),
        ]
        if self.decoded_real is not None:
            bars.append(("network, reconstruction without it", self.decoded_real))
        return tuple(bars)


@dataclass(frozen=True, eq=False)
class Sheet:
    """All that a drawing says.

    Attributes:
        name: of the target.
        picture: (H, W, 3).
        facts: (term, text).
        changes: one row each.
        sentences: one per row.
    """

    name: str
    picture: UInt8[np.ndarray, "height width 3"]
    facts: tuple[tuple[str, str], ...]
    changes: tuple[Change, ...]
    sentences: tuple[str, ...]

    @property
    def largest(self) -> float:
        """The largest change, for the scale of the bars."""
        sizes = (abs(value) for one in self.changes for _, value in one.bars())
        return max(sizes, default=0.0) or 1.0


def draw_sheet(sheet: Sheet) -> Figure:
    """Per x-feature a row: its map, the picture without its region, and the changes as bars."""
    rows = len(sheet.changes)
    figure = Figure(figsize=(8.2, 0.6 + _ROW * rows), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    facts = ", ".join(f"{term.lower()} {text}" for term, text in sheet.facts[:2])
    figure.suptitle(
        _plain(f"{sheet.name}: {facts}"),
        x=0.01, ha="left", fontsize=10, fontweight="bold", color=INK,
    )  # fmt: skip
    axes = figure.subplots(rows, 4, width_ratios=(1, 1, 1, 2.1), squeeze=False)
    for row, one in zip(axes, sheet.changes, strict=True):
        pictures = (
            (_short(one.name), _overlay(sheet, one)),
            ("without its region", one.masked),
            ("without one elsewhere", one.control),
        )
        for place, (name, picture) in zip(row, pictures, strict=False):
            place.imshow(picture)
            place.set_title(_plain(name), fontsize=8, color=INK)
            place.set_axis_off()
        _draw_bars(row[3], one.bars(), sheet.largest)
    return figure


def _draw_bars(place: Any, bars: Sequence[tuple[str, float]], most: float) -> None:
    heights = np.arange(len(bars))[::-1]
    values = [value for _, value in bars]
    place.barh(heights, values, color=[colour_of(value) for value in values], height=0.62)
    place.axvline(0, color=MUTED, linewidth=0.8)
    for height, (name, value) in zip(heights, bars, strict=True):
        place.annotate(
            f"{name}: {signed(value)}", (0, height), (3 if value <= 0 else -3, 0),
            textcoords="offset points", va="center", ha="left" if value <= 0 else "right",
            fontsize=6.5, color=INK,
        )  # fmt: skip
    place.set_xlim(-1.4 * most, 1.4 * most)
    place.set_yticks([])
    place.tick_params(labelsize=6.5, colors=MUTED)
    for side in ("top", "right", "left"):
        place.spines[side].set_visible(False)
    place.set_title("change of the logit", fontsize=8, color=INK)


def render_sheet(sheet: Sheet) -> bytes:
    """One HTML page that requests nothing."""
    return render(
        Path(__file__).parent / "templates" / "what_if.html.j2",
        title=f"What if: {sheet.name}",
        facts=sheet.facts,
        picture=data_uri(sheet.picture),
        rows=[
            {
                "name": one.name,
                "sentence": sentence,
                "map": data_uri(_overlay(sheet, one)),
                "masked": data_uri(one.masked),
                "control": data_uri(one.control),
                "bars": [_bar(name, value, sheet.largest) for name, value in one.bars()],
            }
            for one, sentence in zip(sheet.changes, sheet.sentences, strict=True)
        ],
    )


def save_sheet(sheet: Sheet, record: dict[str, Any], directory: Path) -> None:
    """Write a folder with the numbers, the page, the figure and the pictures."""
    with replace_folder(directory, MARKER) as folder:
        Image.fromarray(sheet.picture).save(folder / "picture.png")
        for one in sheet.changes:
            stem = f"x_feature_{one.feature + 1}"
            Image.fromarray(_overlay(sheet, one)).save(folder / f"{stem}.png")
            Image.fromarray(one.masked).save(folder / f"{stem}_masked.png")
            Image.fromarray(one.control).save(folder / f"{stem}_control.png")
        draw_sheet(sheet).savefig(folder / "figure.png")
        (folder / "what_if.html").write_bytes(render_sheet(sheet))
        (folder / MARKER).write_bytes(FORMAT.encode(record))


def _bar(name: str, value: float, most: float) -> dict[str, Any]:
    width = round(50 * abs(value) / most, 2)
    return {
        "name": name,
        "text": signed(value),
        "sign": "positive" if value > 0 else "negative" if value < 0 else "none",
        "start": 50 if value > 0 else round(50 - width, 2),
        "width": width,
    }


def _overlay(sheet: Sheet, one: Change) -> np.ndarray:
    if one.pixels == 0:
        return faded(sheet.picture)
    (intensity,) = intensities([one.heatmap])
    return overlay(sheet.picture, intensity)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"


def _plain(text: str) -> str:
    """Names are not mathematics: matplotlib would typeset what stands between two dollars."""
    kept = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return kept.replace("$", r"\$")
