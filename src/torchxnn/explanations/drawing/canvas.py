"""A matplotlib figure measured in inches from the top left, on which text wraps.

Drawn with the object-oriented API alone: no pyplot, no global state, nothing to close.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.patches import Rectangle

from torchxnn.errors import DataError
from torchxnn.explanations.drawing.overlay import FAINT, INK
from torchxnn.storage.files import replace_file

DPI = 110
VECTOR: Any = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}
"""Text stays text: TrueType in a PDF, characters in an SVG."""
_METADATA: dict[str, dict[str, Any]] = {  # no dates: the same figure gives the same bytes
    "png": {},
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
}
_FALLBACK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Devanagari",
    "Arial Unicode MS", "Microsoft YaHei", "PingFang SC",
)  # fmt: skip


class VectorFigure(Figure):
    """A figure whose text stays text in a PDF or SVG, however it is saved."""

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """Save the figure; takes what `Figure.savefig` takes."""
        with rc_context(VECTOR):
            super().savefig(*arguments, **options)


def save_figure(figure: Figure, path: Path | str, dpi: int | None = None) -> None:
    """Write a figure as PNG, PDF or SVG by the file name's ending, whole or not at all.

    The same figure gives the same bytes. Text stays text in a PDF (TrueType, as journals ask) and
    in an SVG.

    Args:
        figure: A figure from any function of this package, or any other.
        path: The file to write; missing parent folders are made.
        dpi: Dots per inch of what is not vectors; None takes the figure's own.

    Raises:
        DataError: The file name has another ending.
        OSError: The file cannot be written; an old one is as it was.
    """
    replace_file(Path(path), figure_bytes(figure, Path(path).suffix.lower()[1:], dpi))


def figure_bytes(figure: Figure, kind: str, dpi: int | None = None) -> bytes:
    """A figure as the bytes of a "png", "pdf" or "svg" file; see `save_figure`."""
    if kind not in _METADATA:
        raise DataError(f"a figure cannot be saved as {kind!r}; end the name in .png, .pdf or .svg")
    buffer = io.BytesIO()
    with rc_context({**VECTOR, "svg.hashsalt": "torchxnn"}):
        figure.savefig(
            buffer, format=kind, dpi="figure" if dpi is None else dpi, metadata=_METADATA[kind]
        )
    return buffer.getvalue()


@dataclass
class Page:
    """A figure measured in inches from the top left, with a cursor that moves down."""

    width: float
    height: float
    y: float = 0.0
    dpi: int = DPI
    figure: Figure = field(init=False)
    draws: bool = True  # without it, the cursor moves and nothing else happens

    def __post_init__(self) -> None:
        self.figure = VectorFigure(
            figsize=(self.width, self.height), dpi=self.dpi, facecolor="white"
        )
        FigureCanvasAgg(self.figure)

    @classmethod
    def fitted(cls, width: float, draw: Callable[[Page], None], dpi: int = DPI) -> Page:
        """A page that is as high as what `draw(page)` draws on it; `draw` is called twice."""
        measured = cls(width, 1.0, draws=False)
        draw(measured)
        page = cls(width, measured.y, dpi=dpi)
        draw(page)
        return page

    def text(self, x: float, text: str, size: float, width: float, **style: Any) -> None:
        """Write wrapped text at the cursor and move the cursor below it."""
        for line in self.wrap(text, size, width, str(style.get("weight", "normal"))):
            self.put(x, self.y, line, size, va="top", **style)
            self.y += size * 1.42 / 72

    def put(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        """Write one line at a point in inches."""
        if not self.draws:
            return
        options: dict[str, Any] = {
            "color": INK,
            "family": list(families()),
            "parse_math": False,
            "usetex": False,
        } | style
        self.figure.text(x / self.width, 1 - y / self.height, drawable(text), size=size, **options)

    @staticmethod
    def wrap(text: str, size: float, width: float, weight: str = "normal") -> list[str]:
        """Break a text into lines no wider than `width`."""
        lines: list[str] = []
        room = 0.0
        for word in text.split(" "):
            needed = extent(f" {word}", size, weight)
            if lines and needed <= room:
                lines[-1] += f" {word}"
            else:
                lines.append(Page.fit(word, size, width, weight))
                room = width
            room -= needed
        return lines

    @staticmethod
    def fit(text: str, size: float, width: float, weight: str = "normal") -> str:
        """Shorten a line with an ellipsis until it is no wider than `width`."""
        if extent(text, size, weight) <= width:
            return text
        while text and extent(text + "…", size, weight) > width:
            text = text[:-1]
        return text + "…"

    def image(self, x: float, y: float, size: tuple[float, float], pixels: np.ndarray) -> None:
        """Show an image with a hairline frame in the box whose top left is (x, y)."""
        if not self.draws:
            return
        axes = self.figure.add_axes(self._box(x, y, *size))
        axes.imshow(pixels, interpolation="lanczos" if pixels.shape[0] < 400 else "antialiased")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_edgecolor(FAINT)
            spine.set_linewidth(0.6)

    def tag(self, x: float, y: float, text: str, size: float = 9.0, ha: str = "left") -> None:
        """Write a small label on white over an image."""
        box = {"facecolor": "white", "edgecolor": FAINT, "linewidth": 0.6, "pad": size / 3}
        self.put(x, y, text, size, ha=ha, va="center", bbox=box)

    def bar(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Fill a rectangle whose top left is (x, y)."""
        if not self.draws:
            return
        left, bottom, across, up = self._box(x, y, width, height)
        self.figure.add_artist(Rectangle((left, bottom), across, up, color=color, linewidth=0))

    def _box(
        self, x: float, y: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        return (
            x / self.width,
            1 - (y + height) / self.height,
            width / self.width,
            height / self.height,
        )


@lru_cache(maxsize=4096)
def extent(text: str, size: float, weight: str) -> float:
    """Width of a line in inches."""
    font = FontProperties(family=list(families()), size=size, weight=weight)
    return _renderer().get_text_width_height_descent(drawable(text), font, False)[0] / DPI


@cache
def _renderer() -> RendererAgg:
    return RendererAgg(1, 1, DPI)


@cache
def families() -> tuple[str, ...]:
    """Fonts to draw with, in order; the first is always there."""
    installed = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _FALLBACK_FONTS if name in installed))


@cache
def _characters() -> frozenset[int]:
    paths = {findfont(FontProperties(family=name)) for name in families()}
    return frozenset(code for path in paths for code in get_font(path).get_charmap())


def drawable(text: str) -> str:
    """Replace characters that no installed font can draw by "?", instead of warning at each."""
    return "".join(c if ord(c) in _characters() else "?" for c in text)
