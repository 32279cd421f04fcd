"""Box plots of purity as in the paper's figure 4, Likert bars as in its figure 5.

Colours are those of Okabe and Ito and ColorBrewer's PuOr, which people with any colour vision tell
apart; stages are named on the axis, so that no colour is needed to read a figure.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from torchxnn.apps.study.analysis.descriptives import Cell
from torchxnn.apps.study.analysis.options import (
    NO_VISUALISATION,
    ONE_HEATMAP,
    STAGES,
    XNN_STAGE,
    stage_name,
)
from torchxnn.apps.study.analysis.results import Ratings
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.explanations.drawing.overlay import INK, MUTED

CONFIDENCE_LEVELS = ("Zero", "Very low", "Low", "Mediocre", "High", "Very high", "100%")
RATING_LEVELS = (
    *("Very poor", "Poor", "Slightly poor", "Neutral or N/A", "Slightly good", "Good"),
    "Very good",
)
FORMATS = ("png", "pdf", "svg")

STAGE_COLOURS = ("#999999", "#0072B2", "#56B4E9", "#E69F00", "#009E73")
_LIKERT_COLOURS = ("#b35806", "#f1a340", "#fee0b6", "#e6e6e6", "#c3bce6", "#6f619f", "#42206f")
CHANCE = "#D55E00"
_BANNER = "#8f1d14"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "torchxnn",
    "pdf.fonttype": 42,
}
_JITTER = 0.16
_STRIP, _GAP = 0.36, 0.06  # inches: height of the banner, and free space below it
_LETTER = 0.68  # mean width of a bold letter, in units of the type size
_LABELLED = 7.0  # percent of a bar that has room for its number
_PURITY_LEGEND = (
    Line2D([], [], color=INK, lw=2, label="median"),
    Line2D([], [], marker="D", ls="", mfc="white", mec=INK, label="mean"),
    Line2D([], [], marker="o", ls="", color=INK, alpha=0.55, ms=4, label="one participant"),
    Line2D([], [], color=CHANCE, ls="--", lw=1.8, label="chance level"),
)
_METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure with its words.

    Attributes:
        name: of the files.
        caption: below it.
        alternative: what it shows, for people who cannot see it.
        files: bytes by format, see `FORMATS`.
    """

    name: str
    caption: str
    alternative: str
    files: dict[str, bytes]

    @property
    def source(self) -> str:
        """The figure as a data URI, which a page holds in itself."""
        return f"data:image/svg+xml;base64,{b64encode(self.files['svg']).decode('ascii')}"


def purity_figure(
    scores: pd.DataFrame, cells: Sequence[Cell], plan: StudyPlan, seed: int
) -> Figure:
    """Box plots of purity, a panel per data set, a box per stage (paper figure 4).

    Boxes span the quartiles, whiskers reach the farthest point within 1.5 of their length; every
    point is a participant, with a horizontal jitter drawn from `seed`. NoVis is that of the main
    arm.
    """
    columns = _columns(cells, plan)
    keys = [d.key for d in plan.data_sets if any(c.data_set == d.key for c in cells)]
    with matplotlib.rc_context(STYLE):
        width = max(4.6, 1.35 * len(columns) + 0.8)
        figure = Figure(figsize=(width * len(keys), 4.6), layout="constrained")
        axes = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
        rng = np.random.default_rng(seed)
        for letter, axis, key in zip("abcdefgh"[: len(keys)], axes, keys, strict=True):
            _boxes(axis, scores, [c for c in cells if c.data_set == key], columns, rng)
            prefix = f"({letter}) " if len(keys) > 1 else ""
            axis.set_title(prefix + plan.data_set_name(key))
        axes[0].set_ylabel("Clustering purity (%)")
        figure.legend(handles=_PURITY_LEGEND, loc="outside lower center", ncols=4)
    return figure


def confidence_figure(cells: Sequence[Cell], plan: StudyPlan) -> Figure:
    """Diverging bars of confidence, a panel per data set, a bar per stage (paper figure 5a, b)."""
    columns = _columns(cells, plan)
    keys = [
        d.key for d in plan.data_sets if any(c.data_set == d.key and c.confidence for c in cells)
    ]
    rows = []
    for key in keys:
        found = {(c.arm, c.stage): c for c in cells if c.data_set == key and c.confidence}
        bars = [(name, found[where].answers) for where, name in columns if where in found]
        rows.append((plan.data_set_name(key), bars))
    return _likert(rows, CONFIDENCE_LEVELS)


def rating_figure(ratings: Ratings, plan: StudyPlan) -> Figure:
    """Diverging bars of the ratings of the two agents (paper figure 5c)."""
    bars = [
        (stage_name(ONE_HEATMAP, plan.main.method), ratings.one_heatmap_answers),
        (XNN_STAGE, ratings.xnn_answers),
    ]
    return _likert([("Rating of the AI agent", [b for b in bars if sum(b[1])])], RATING_LEVELS)


def draw_files(figure: Figure, name: str, caption: str, alternative: str, banner: str) -> Drawing:
    """The figure in every format, below the banner; the same figure gives the same bytes."""
    files = {}
    with matplotlib.rc_context(STYLE):
        if banner:
            _add_banner(figure, banner)
        for kind in FORMATS:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=200, metadata=_METADATA[kind])
            files[kind] = buffer.getvalue()
    return Drawing(name, caption, alternative, files)


def _add_banner(figure: Figure, banner: str) -> None:
    """A strip of the figure's full width above everything else, which grows by it."""
    width, height = figure.get_size_inches()
    taller = height + _STRIP
    figure.set_size_inches(width, taller)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, (height - _GAP) / taller))
    share = _STRIP / taller
    figure.add_artist(
        Rectangle((0, 1 - share), 1, share, transform=figure.transFigure, color=_BANNER)
    )
    size = min(11.0, 72 * 0.94 * width / (_LETTER * len(banner)))
    figure.text(
        *(0.5, 1 - share / 2, banner),
        color="white",
        weight="bold",
        size=size,
        ha="center",
        va="center_baseline",
        in_layout=False,
    )


def _columns(cells: Sequence[Cell], plan: StudyPlan) -> tuple[tuple[tuple[str, str], str], ...]:
    """What stands side by side: ((arm, stage), name), by stage; NoVis of the main arm alone.

    Names of further arms have a star each, as in the paper.
    """
    found = {}
    for stage in STAGES:
        for stars, arm in enumerate(plan.arms):
            cell = next((c for c in cells if (c.arm, c.stage) == (arm.name, stage)), None)
            if cell is not None and (stars == 0 or stage != NO_VISUALISATION):
                found[arm.name, stage] = cell.name + "*" * stars
    return tuple(found.items())


def _boxes(
    axis: Axes,
    scores: pd.DataFrame,
    cells: Sequence[Cell],
    columns: Sequence[tuple[tuple[str, str], str]],
    rng: np.random.Generator,
) -> None:
    known = {(c.arm, c.stage): c for c in cells}
    labels = []
    for place, ((arm, stage), name) in enumerate(columns):
        cell = known.get((arm, stage))
        label = name.replace(" (", "\n(")
        labels.append(f"{label}\nn = {cell.purity.n if cell else 0}")
        if cell is None:
            continue
        rows = (scores["arm"] == arm) & (scores["stage"] == stage)
        rows &= scores["data_set"] == cell.data_set
        values = 100 * scores.loc[rows, "purity"].to_numpy(dtype="float64")
        colour = STAGE_COLOURS[min(place, len(STAGE_COLOURS) - 1)]
        draw_box(axis, place, values, colour, rng)
        chance = 100 * cell.chance
        axis.plot([place - 0.42, place + 0.42], [chance] * 2, color=CHANCE, ls="--", lw=1.8)
    axis.set_xticks(range(len(columns)), labels)
    axis.set_xlim(-0.6, len(columns) - 0.4)
    axis.set_ylim(0, 103)
    axis.set_yticks(range(0, 101, 20))
    axis.grid(axis="y", color="#e3e6e9", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def draw_box(
    axis: Axes, place: int, values: np.ndarray, colour: str, rng: np.random.Generator
) -> None:
    """A box at a place, with a point for each value and a diamond at their mean."""
    axis.boxplot(
        [values],
        positions=[place],
        widths=0.6,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": (*to_rgb(colour), 0.45), "edgecolor": INK},
        medianprops={"color": INK, "linewidth": 2},
        whiskerprops={"color": INK},
        capprops={"color": INK},
    )
    spots = place + rng.uniform(-_JITTER, _JITTER, len(values))
    axis.scatter(spots, values, s=14, color=INK, alpha=0.55, linewidths=0, zorder=3)
    axis.scatter(place, values.mean(), s=48, marker="D", facecolor="white", edgecolor=INK, zorder=4)


def _likert(
    panels: Sequence[tuple[str, Sequence[tuple[str, Sequence[int]]]]], levels: Sequence[str]
) -> Figure:
    """Bars of 100%, centred on the middle answer, a panel per title."""
    heights = [0.55 * len(bars) + 0.55 for _, bars in panels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, sum(heights) + 0.9), layout="constrained")
        axes = figure.subplots(
            len(panels), 1, squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        letters = "abcdefgh" if len(panels) > 1 else [""]
        for letter, axis, (title, bars) in zip(letters, axes, panels, strict=False):
            for row, (_, counts) in enumerate(bars):
                _bar(axis, row, counts)
            prefix = f"({letter}) " if letter else ""
            axis.set_title(prefix + title)
            names = [f"{name}, n = {sum(counts)}" for name, counts in bars]
            axis.set_yticks(range(len(bars)), names)
            axis.set_ylim(len(bars) - 0.5, -0.5)
            axis.axvline(0, color=INK, lw=1, zorder=0.5)
            axis.spines[["top", "right", "left"]].set_visible(False)
            axis.tick_params(axis="y", length=0)
        axes[-1].set_xlim(-102, 102)
        ticks = range(-100, 101, 25)
        axes[-1].set_xticks(ticks, [f"{abs(t)}%" for t in ticks])
        axes[-1].set_xlabel("Share of answers, centred on the middle one")
        figure.legend(
            handles=[
                Patch(facecolor=colour, edgecolor=MUTED, linewidth=0.5, label=level)
                for colour, level in zip(_LIKERT_COLOURS, levels, strict=True)
            ],
            loc="outside lower center",
            ncols=7,
            handlelength=1.2,
            columnspacing=1.2,
        )
    return figure


def _bar(axis: Axes, row: int, counts: Sequence[int]) -> None:
    share = 100 * np.array(counts) / sum(counts)
    middle = len(share) // 2
    left = -float(share[:middle].sum() + share[middle] / 2)
    for width, colour in zip(share.tolist(), _LIKERT_COLOURS, strict=True):
        bar = axis.barh(row, width, left=left, height=0.72, color=colour, edgecolor="white", lw=0.6)
        if width >= _LABELLED:
            dark = float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114))) < 0.55
            ink = "white" if dark else INK
            axis.bar_label(bar, [f"{width:.0f}%"], label_type="center", fontsize=9, color=ink)
        left += width
