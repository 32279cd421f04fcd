"""The paper's figures 6 and 7: which parts of one image the x-features look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from torchxnn.apps.benchmark.figures.columns import CAPTION, VALUE, draw_tile, feature_tile
from torchxnn.apps.benchmark.figures.looks import Look, look_at, target_of
from torchxnn.data.datasets.base import Sample
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.canvas import Page
from torchxnn.explanations.drawing.figure import write_caption, write_header
from torchxnn.explanations.drawing.form import GAP, MARGIN, WIDE_GAP
from torchxnn.explanations.drawing.overlay import (
    FAINT,
    INK,
    MUTED,
    colour_of,
    faded,
    number,
    signed,
)
from torchxnn.metrics.locality import RelevanceHistograms
from torchxnn.metrics.part_weights import (
    CONTEXT,
    PixelWeights,
    pixel_weights_points,
    pixel_weights_voronoi,
)
from torchxnn.xnn import XNN

IMAGE = 2.4  # inches, height of an image of the first line
LABELS = 0.95  # inches, for part names beside an image
LARGEST_MAP = 2.2
BAR, PANEL, NAMES = 0.19, 1.3, 1.15  # inches: a bar's line, a panel's width, the names' width
_TAB20_GREYS = (14, 15)
_TAB20 = matplotlib.colormaps["tab20"](np.arange(20))
_PART_COLOURS = tuple(to_hex(c) for i, c in enumerate(_TAB20) if i not in _TAB20_GREYS)


def parts_figure(
    xnn: XNN, sample: Sample, part_names: Sequence[str], target: int | None = None
) -> Figure:
    """One image, its parts, their Voronoi diagram, and the x-features' maps (paper figure 6).

    The x-features are sorted by decreasing v_i E_i of this image. The diagram is the one that
    locality is measured with (`pixel_weights_voronoi`).

    Args:
        xnn: fitted.
        sample: with parts and box.
        part_names: in the order of `sample.parts`.
        target: class whose logit is explained; None takes the first that the XNN explains.

    Raises:
        DataError: the sample has no parts or no box, or another number of parts than of names.
    """
    parts, _, cells = _weights(sample, part_names)
    look, title, facts = _look(xnn, sample, target)
    height, width = look.picture.shape[:2]
    size = (IMAGE * width / height, IMAGE)
    total = 2 * MARGIN + 3 * size[0] + 2 * WIDE_GAP + 2 * LABELS
    order = _order(look)
    room = (total - 2 * MARGIN + GAP) / len(order) - GAP
    tile_width = min(room, LARGEST_MAP)
    tile = (tile_width, tile_width * height / width)
    caption = f"{_hidden_text(parts, part_names)}{CAPTION}"

    def draw(page: Page) -> None:
        write_header(page, title, facts)
        _first_line(page, look, cells, parts, part_names, (page.y + 0.25, size))
        second = page.y + 0.25 + size[1] + 0.2
        for column, feature in enumerate(order):
            x = MARGIN + column * (tile[0] + GAP)
            name = page.fit(xnn.feature_names[feature], 10.5, tile[0])
            page.put(x, second + 0.2, name, 10.5, color=MUTED, va="bottom")
            draw_tile(page, x, second + 0.22, feature_tile(look, feature), tile)
        page.y = second + 0.25 + VALUE + tile[1] + 0.15
        write_caption(page, caption)

    return Page.fitted(total, draw).figure


def probability_figure(
    xnn: XNN, sample: Sample, part_names: Sequence[str], target: int | None = None
) -> Figure:
    """Relevance of every part for every x-feature on one image (paper figure 7).

    (a) the pixel-level probability, at the pixel of each part; (b) the Voronoi-based probability
    of Algorithm 1, with the context. A panel per x-feature, in the order of `parts_figure`; the
    panels of a line share one scale. A tick shows what a uniform map would have.

    Takes the arguments of `parts_figure` and raises the same.
    """
    _, points, cells = _weights(sample, part_names)
    look, title, facts = _look(xnn, sample, target)
    names = (*part_names, CONTEXT)
    order = _order(look)
    total = max(2 * MARGIN + NAMES + len(order) * (PANEL + GAP), 6.0)
    caption = (
        "Bars: share of the x-feature's relevance (its positive part, normalised to sum 1 over the "
        "image) on each part; the panels of a line share the scale on the left. Upright ticks: the "
        "share that a uniform map would have, where it is within the panel. In the cells of (b) "
        "relevance counts less the farther it is from the part, so the bars need not add up to 1. "
        "Parts in grey are not visible."
    )
    lines = (
        ("(a) Pixel-level probability", points, names[:-1]),
        ("(b) Voronoi-based probability", cells, names),
    )

    def draw(page: Page) -> None:
        write_header(page, title, facts)
        for heading, weights, shown in lines:
            page.put(MARGIN, page.y + 0.2, heading, 12.0, weight="bold", va="bottom")
            _bars(page, xnn, look, weights, shown, page.y + 0.7)
            page.y += 0.9 + BAR * len(shown)
        page.y += 0.05
        write_caption(page, caption, legend=0.0)

    return Page.fitted(total, draw).figure


def _weights(
    sample: Sample, part_names: Sequence[str]
) -> tuple[Float[np.ndarray, "parts 3"], PixelWeights, PixelWeights]:
    """The parts, their pixels, and their Voronoi cells."""
    if sample.parts is None or sample.box is None:
        raise DataError(
            f"{sample.path} has no part locations or no box; figures 6 and 7 need both (CUB)"
        )
    if len(part_names) != len(sample.parts):
        raise DataError(
            f"{sample.path} has {len(sample.parts)} parts, but there are {len(part_names)} names"
        )
    size = (sample.image.shape[1], sample.image.shape[2])
    points = pixel_weights_points(sample.parts, size)
    cells = pixel_weights_voronoi(sample.parts, sample.box, size)
    return sample.parts.double().cpu().numpy(), points, cells


def _look(xnn: XNN, sample: Sample, target: int | None) -> tuple[Look, str, tuple[str, ...]]:
    """What the XNN sees, with a figure's title and the line below it."""
    target = target_of(xnn, target)
    (look,) = look_at(xnn, [sample], target)
    verdict = f" The network takes it for {look.verdict}." if look.right is False else ""
    order = "x-features by decreasing contribution on this image."
    return look, xnn.target_name(target), (f"Logit {number(look.logit)}; {order}{verdict}",)


def _order(look: Look) -> list[int]:
    return np.argsort(-look.contributions, kind="stable").tolist()


def _hidden_text(parts: Float[np.ndarray, "parts 3"], names: Sequence[str]) -> str:
    hidden = [name for name, part in zip(names, parts, strict=True) if part[2] <= 0]
    return f"Not visible: {', '.join(hidden)}. " if hidden else ""


def _first_line(
    page: Page,
    look: Look,
    cells: PixelWeights,
    parts: Float[np.ndarray, "parts 3"],
    names: Sequence[str],
    place: tuple[float, tuple[float, float]],
) -> None:
    """Image, image with named parts, Voronoi diagram."""
    top, size = place
    labelled = MARGIN + size[0] + WIDE_GAP + LABELS
    diagram = labelled + size[0] + LABELS + WIDE_GAP
    images = (look.picture, look.picture, draw_cells(look.picture, cells))
    headings = ("Image", "Parts", "Voronoi diagram in the box")
    for x, pixels, heading in zip((MARGIN, labelled, diagram), images, headings, strict=True):
        page.put(x, top - 0.06, heading, 10.5, color=MUTED, va="bottom")
        page.image(x, top, size, pixels)
    scale = size[1] / look.picture.shape[0]
    # the centre of the pixel that the part lies on
    at = {
        p: ((np.floor(x) + 0.5) * scale, (np.floor(y) + 0.5) * scale)
        for p, (x, y, visible) in enumerate(parts)
        if visible > 0
    }
    _part_labels(page, at, names, (labelled, top), size)
    for x in (labelled, diagram):
        for part, (across, down) in at.items():
            draw_dot(page, x + across, top + down, part_colour(part))


def _part_labels(
    page: Page,
    at: dict[int, tuple[float, float]],
    names: Sequence[str],
    corner: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Names in the margins, a line to each part; the left half of the parts on the left."""
    by_column = sorted(at, key=lambda part: at[part])
    half = (len(by_column) + 1) // 2
    for side, members in (("left", by_column[:half]), ("right", by_column[half:])):
        members = sorted(members, key=lambda part: at[part][1])
        heights = move_apart([at[p][1] for p in members], 0.19, 0.08, size[1] - 0.08)
        edge = corner[0] if side == "left" else corner[0] + size[0]
        outward = -1 if side == "left" else 1
        for part, height in zip(members, heights, strict=True):
            y = corner[1] + height
            label = page.fit(names[part], 9.0, LABELS - 0.22)
            align = "right" if side == "left" else "left"
            page.put(edge + outward * 0.17, y, label, 9.0, va="center", ha=align)
            xs = (edge + outward * 0.14, edge + outward * 0.04, corner[0] + at[part][0])
            draw_line(page, xs, (y, y, corner[1] + at[part][1]), part_colour(part))


def _bars(
    page: Page, xnn: XNN, look: Look, weights: PixelWeights, names: Sequence[str], top: float
) -> None:
    """One line of panels: a bar for every part, for every x-feature."""
    histograms = RelevanceHistograms(len(look.features), names)
    histograms.update(torch.from_numpy(look.heatmaps).unsqueeze(0), [weights])
    shares, chance = histograms.per_image()[0].numpy(), weights.uniform().numpy()
    visible = weights.measured.numpy()
    colours = [
        (MUTED if name == CONTEXT else part_colour(part)) if visible[part] else None
        for part, name in enumerate(names)
    ]
    shown = [i for i in range(len(shares)) if not look.note(i)]
    largest = float(shares[shown].max(initial=0)) or 1.0
    bottom = top + BAR * len(names)
    for row, name in enumerate(names):
        style = {"color": INK if visible[row] else MUTED, "va": "center", "ha": "right"}
        y = top + (row + 0.5) * BAR
        page.put(MARGIN + NAMES - 0.1, y, page.fit(name, 9.0, NAMES - 0.1), 9.0, **style)
    for column, feature in enumerate(_order(look)):
        x = MARGIN + NAMES + column * (PANEL + GAP)
        value = float(look.contributions[feature])
        name = page.fit(xnn.feature_names[feature], 9.0, PANEL)
        page.put(x, top - 0.25, name, 9.0, color=MUTED, va="bottom")
        style = {"color": colour_of(value), "weight": "bold", "va": "bottom"}
        page.put(x, top - 0.06, signed(value), 10.5, **style)
        draw_line(page, (x, x), (top, bottom), FAINT)
        if note := look.note(feature):
            page.put(x + PANEL / 2, (top + bottom) / 2, note, 10.5, color=MUTED, ha="center")
            continue
        _panel(page, (x, top), shares[feature] / largest, chance / largest, colours)
    scale = page.fit(f"0 to {largest:.2g}", 9.0, NAMES - 0.1)
    page.put(MARGIN + NAMES - 0.1, top - 0.06, scale, 9.0, color=MUTED, va="bottom", ha="right")


def _panel(
    page: Page,
    corner: tuple[float, float],
    lengths: Float[np.ndarray, " parts"],
    chance: Float[np.ndarray, " parts"],
    colours: Sequence[str | None],
) -> None:
    """The bars of one x-feature, as shares of the panel's width; none for a part without colour."""
    width = PANEL - 0.06
    for row, colour in enumerate(colours):
        if colour is None:
            continue
        x, y = corner[0], corner[1] + row * BAR
        page.bar(x, y + 0.035, width * float(lengths[row]), BAR - 0.07, colour)
        mark = x + width * float(chance[row])
        if mark <= x + width:
            draw_line(page, (mark, mark), (y + 0.02, y + BAR - 0.02), INK)


def part_colour(part: int) -> str:
    """A colour for every part; there are 18, then they repeat."""
    return _PART_COLOURS[part % len(_PART_COLOURS)]


def voronoi_cells(weights: PixelWeights) -> Int64[np.ndarray, "height width"]:
    """The part that owns each pixel, from `pixel_weights_voronoi`; -1 for none.

    The last part is the context. The weights themselves do not tell: the farthest pixel of a cell
    belongs to its part with weight 0.
    """
    cells = np.full(weights.size[0] * weights.size[1], -1, dtype=np.int64)
    cells[weights.pixels.numpy()] = weights.parts.numpy()
    return cells.reshape(weights.size)


def draw_cells(
    image: UInt8[np.ndarray, "height width 3"], weights: PixelWeights
) -> UInt8[np.ndarray, "height width 3"]:
    """The cells in their colours over the image, with lines between them; outside it fades."""
    cells, context = voronoi_cells(weights), weights.n_parts - 1
    palette = np.rint(255 * to_rgba_array([part_colour(p) for p in range(context)])[:, :3])
    result = faded(image).astype(np.float64)
    inside = (cells >= 0) & (cells < context)
    grey = image[inside].mean(-1, keepdims=True)
    result[inside] = 0.45 * (64 + 0.75 * grey) + 0.55 * palette[cells[inside]]
    border = np.zeros_like(inside)
    border[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    border[1:] |= cells[1:] != cells[:-1]
    result[border] = 32
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def move_apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move rising positions apart to at least `gap` within [low, high], each as little as needed.

    A gap that leaves no room is made smaller.
    """
    if len(wanted) > 1:
        gap = min(gap, (high - low) / (len(wanted) - 1))
    places: list[float] = []
    for place in wanted:
        places.append(max(place, low if not places else places[-1] + gap))
    limit = high
    for index in reversed(range(len(places))):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    return places


def draw_line(
    page: Page, xs: Sequence[float], ys: Sequence[float], colour: str, **style: Any
) -> None:
    """A hairline through points in inches, or what `style` makes of it."""
    across, up = [x / page.width for x in xs], [1 - y / page.height for y in ys]
    page.figure.add_artist(Line2D(across, up, color=colour, linewidth=0.7, **style))


def draw_dot(page: Page, x: float, y: float, colour: str) -> None:
    """A dot with a white rim at a point in inches."""
    dot = {"marker": "o", "markersize": 5.5, "linestyle": "none", "zorder": 2.5}
    draw_line(page, [x], [y], colour, markeredgecolor="white", markeredgewidth=0.8, **dot)
