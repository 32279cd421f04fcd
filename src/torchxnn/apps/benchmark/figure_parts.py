"""What the benchmark's figures are built from: looks at images, tiles in columns, part labels.

Colours, overlays and lettering are those of `explanations.drawing`, so that the figures of the
benchmark and those of single explanations look alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from torchxnn.attribution.methods import METHODS
from torchxnn.data.activations import record_activations
from torchxnn.data.datasets.base import Sample
from torchxnn.errors import DataError, XNNError
from torchxnn.explanations.drawing.canvas import Page
from torchxnn.explanations.drawing.figure import GAP, MARGIN, WIDE_GAP
from torchxnn.explanations.drawing.overlay import (
    FAINT,
    INK,
    MUTED,
    WARNING,
    colour_of,
    colour_scale,
    faded,
    intensities,
    number,
    overlay,
    signed,
)
from torchxnn.metrics.part_weights import PixelWeights
from torchxnn.xnn import XNN
from torchxnn.xnn import _draw_input as draw_input

METHOD = "excitation_backprop"
IMAGES_AT_ONCE = 8
TILE = 1.45  # inches, height of a tile
VALUE = 0.27  # inches above a tile, for what is written there
ROW_GAP = 0.08
OFF, EMPTY = "off", "no relevance"
CAPTION = (
    "Heatmaps: the positive part of the relevance (contrastive excitation backprop), lightly "
    "smoothed for drawing only, each with its own colour scale (normalised per x-feature and "
    "image). Above it the contribution v_i E_i to the logit, red for and blue against; "
    f"“{OFF}”: it adds nothing here; “{EMPTY}”: it does, but no pixel has positive relevance."
)
_TAB20_GREYS = (14, 15)
_PART_COLOURS = tuple(
    to_hex(colour)
    for index, colour in enumerate(matplotlib.colormaps["tab20"](np.arange(20)))
    if index not in _TAB20_GREYS
)


@dataclass(frozen=True, eq=False)
class Look:
    """What an XNN sees in one image, for one target.

    Attributes:
        picture: (H, W, 3), the image as the network saw it, without the normalisation.
        features: (n,), the x-features E.
        contributions: (n,), v_i E_i, in logits.
        heatmaps: (n, H, W), signed relevance of each x-feature.
        logit_heatmap: (H, W), signed relevance of the network's own logit (1-Heatmap).
        logit: of the target, the network's own.
        verdict: what the network takes the image for, for people.
        right: whether that is the image's label; None without a label.
    """

    picture: UInt8[np.ndarray, "height width 3"]
    features: Float[np.ndarray, " features"]
    contributions: Float[np.ndarray, " features"]
    heatmaps: Float[np.ndarray, "features height width"]
    logit_heatmap: Float[np.ndarray, "height width"]
    logit: float
    verdict: str
    right: bool | None

    def note(self, feature: int) -> str:
        """Why an x-feature has nothing to show here, else empty."""
        if self.features[feature] == 0 or self.contributions[feature] == 0:
            return OFF
        return "" if (self.heatmaps[feature] > 0).any() else EMPTY


def target_of(xnn: XNN, target: int | None) -> int:
    """The class to draw: the given one, or the first that the XNN explains.

    Raises:
        XNNError: the XNN is not fitted.
        DataError: it does not explain this class.
    """
    if not xnn.targets:
        raise XNNError("this XNN is not fitted yet: call fit() before drawing figures")
    if target is None:
        return xnn.targets[0]
    if target not in xnn.targets:
        raise DataError(f"class {target} is not explained; the targets are {list(xnn.targets)}")
    return target


@torch.no_grad()
def contributions_of(
    xnn: XNN, samples: Sequence[Sample], target: int
) -> Float[torch.Tensor, "samples features"]:
    """v_i E_i of many images, (M, n), on the CPU, without any heatmap."""
    position = xnn.targets.index(target)
    parts = [xnn.contributions(images)[:, position].cpu() for images in _batches(xnn, samples)]
    return torch.cat(parts)


@torch.no_grad()
def look_at(xnn: XNN, samples: Sequence[Sample], target: int) -> list[Look]:
    """Contributions and heatmaps of images, a few at a time.

    Raises:
        DataError: no images, or images of different sizes.
    """
    position, looks = xnn.targets.index(target), list[Look]()
    for images in _batches(xnn, samples):
        recorded = record_activations(xnn.model, xnn.layer, [images], map_dtype="float32")
        found = xnn.embed(recorded.z)
        maps = xnn.attribute(images, METHOD).cpu().numpy()
        logit_maps = METHODS[METHOD](xnn.model).attribute_many(images, [target])
        predictions = recorded.predicted.tolist()
        for row, (logits, predicted) in enumerate(zip(recorded.logits, predictions, strict=True)):
            sample = samples[len(looks)]
            looks.append(
                Look(
                    picture=draw_input(sample.image, xnn.preprocessing),
                    features=found.features[row].numpy(),
                    contributions=found.contributions[row, position].numpy(),
                    heatmaps=maps[row],
                    logit_heatmap=logit_maps[row, 0].cpu().numpy(),
                    logit=float(logits[target]),
                    verdict=xnn.class_name(predicted),
                    right=None if sample.label is None else predicted == sample.label,
                )
            )
    return looks


def _batches(xnn: XNN, samples: Sequence[Sample]) -> list[torch.Tensor]:
    if not samples:
        raise DataError("there are no images to draw a figure of")
    for sample in samples:
        if sample.image.shape != samples[0].image.shape:
            raise DataError(
                f"{sample.path} is {tuple(sample.image.shape)} and {samples[0].path} "
                f"{tuple(samples[0].image.shape)}; images of one figure must be of one size"
            )
    return [
        torch.stack([s.image for s in samples[start : start + IMAGES_AT_ONCE]]).to(xnn.device)
        for start in range(0, len(samples), IMAGES_AT_ONCE)
    ]


# --- tiles in columns, columns in groups


@dataclass(frozen=True, eq=False)
class Tile:
    """A small image, what stands above it, and a label over it if there is nothing to see."""

    pixels: UInt8[np.ndarray, "height width 3"]
    text: str
    colour: str = INK
    note: str = ""
    strong: bool = True


@dataclass(frozen=True, eq=False)
class Column:
    """Tiles below each other, under one heading."""

    heading: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, eq=False)
class Group:
    """Columns that belong together; groups stand side by side, with a line between them."""

    columns: tuple[Column, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def feature_tile(look: Look, feature: int) -> Tile:
    """The heatmap of an x-feature on an image, under its contribution."""
    value = float(look.contributions[feature])
    note = look.note(feature)
    if note:
        return Tile(faded(look.picture), signed(value), colour_of(value), note)
    (intensity,) = intensities([look.heatmaps[feature]])
    return Tile(overlay(look.picture, intensity), signed(value), colour_of(value))


def feature_columns(xnn: XNN, looks: Sequence[Look], order: Sequence[int]) -> tuple[Column, ...]:
    """One column per x-feature, in the given order."""
    return tuple(
        Column(xnn.feature_names[i], tuple(feature_tile(look, i) for look in looks)) for i in order
    )


def picture_column(looks: Sequence[Look]) -> Column:
    """The photographs, under what the network takes them for."""
    tiles = []
    for look in looks:
        wrong = look.right is False
        text = f"taken for {look.verdict}" if wrong else "recognised" if look.right else ""
        colour = WARNING if wrong else MUTED
        tiles.append(Tile(look.picture, text or look.verdict, colour, strong=False))
    return Column("Picture", tuple(tiles))


def logit_column(looks: Sequence[Look]) -> Column:
    """The single heatmap of the original logit (1-Heatmap), under the logit."""
    tiles = []
    for look in looks:
        (intensity,) = intensities([look.logit_heatmap])
        note = "" if intensity.any() else EMPTY
        pixels = faded(look.picture) if note else overlay(look.picture, intensity)
        tiles.append(Tile(pixels, f"logit {number(look.logit)}", INK, note))
    return Column("1-Heatmap", tuple(tiles))


def draw_groups(title: str, facts: Sequence[str], groups: Sequence[Group], caption: str) -> Figure:
    """Lay out titles, groups of columns and the caption.

    Args:
        title: of the figure; wrapped.
        facts: lines below the title.
        groups: from left to right; all tiles are drawn in the shape of the first.
        caption: below everything, beside the colour scale.
    """
    height, width = groups[0].columns[0].tiles[0].pixels.shape[:2]
    tile = (TILE * min(max(width / height, 0.6), 2.0), TILE)
    widths = [len(g.columns) * (tile[0] + GAP) - GAP for g in groups]
    total = max(2 * MARGIN + sum(widths) + WIDE_GAP * (len(groups) - 1), 6.0)
    rows = max(len(c.tiles) for g in groups for c in g.columns)
    body = rows * (VALUE + tile[1] + ROW_GAP) + 0.3
    top = Page.measure(total, lambda page: write_header(page, title, facts))
    heads = [
        Page.measure(total, lambda page, g=g, w=w: _group_head(page, MARGIN, g, w))  # type: ignore[misc]
        for g, w in zip(groups, widths, strict=True)
    ]
    below = top + max(heads)
    foot = Page.measure(total, lambda page: write_footer(page, caption))
    page = Page(total, below + body + foot)
    write_header(page, title, facts)
    x = MARGIN
    for index, (group, across) in enumerate(zip(groups, widths, strict=True)):
        page.y = top
        _group_head(page, x, group, across)
        for position, column in enumerate(group.columns):
            _draw_column(page, x + position * (tile[0] + GAP), below, column, tile)
        if index:
            page.bar(x - WIDE_GAP / 2, top + 0.05, 0.01, below + body - top - 0.15, FAINT)
        x += across + WIDE_GAP
    page.y = below + body
    write_footer(page, caption)
    return page.figure


def write_header(page: Page, title: str, facts: Sequence[str]) -> None:
    """The title and the facts below it; moves the cursor below them."""
    width = page.width - 2 * MARGIN
    page.y = 0.26
    page.text(MARGIN, title, 16.0, width, weight="bold")
    page.y += 0.02
    for fact in facts:
        page.text(MARGIN, fact, 10.5, width, color=MUTED)
    page.y += 0.1


def write_footer(page: Page, caption: str, legend: float = 1.5) -> None:
    """The colour scale with the caption beside it; moves the cursor below them."""
    low, indent = page.y + 0.08, MARGIN + legend + 1.45
    page.put(MARGIN, low, "low", 9.0, color=MUTED, va="center")
    page.image(MARGIN + 0.3, page.y + 0.02, (legend, 0.13), colour_scale())
    page.put(MARGIN + legend + 0.38, low, "high relevance", 9.0, color=MUTED, va="center")
    page.text(indent, caption, 9.0, page.width - MARGIN - indent, color=MUTED)
    page.y += 0.22


def _group_head(page: Page, x: float, group: Group, width: float) -> None:
    if group.title:
        page.text(x, group.title, 12.0, width, weight="bold")
    for note in group.notes:
        page.text(x, note, 9.5, width, color=MUTED)
    for warning in group.warnings:
        page.text(x, warning, 9.5, width, color=WARNING, weight="bold")
    page.y += 0.08 if group.title else 0.0


def _draw_column(
    page: Page, x: float, top: float, column: Column, tile: tuple[float, float]
) -> None:
    page.put(x, top + 0.2, page.fit(column.heading, 10.5, tile[0]), 10.5, color=MUTED, va="bottom")
    for row, shown in enumerate(column.tiles):
        y = top + 0.22 + row * (VALUE + tile[1] + ROW_GAP)
        draw_tile(page, x, y, shown, tile)


def draw_tile(page: Page, x: float, y: float, tile: Tile, size: tuple[float, float]) -> None:
    """A tile whose text starts at y; the image is `VALUE` below."""
    size_of_text, weight = (11.5, "bold") if tile.strong else (9.0, "normal")
    text = page.fit(tile.text, size_of_text, size[0], weight)
    style = {"color": tile.colour, "weight": weight, "va": "bottom"}
    page.put(x, y + VALUE - 0.04, text, size_of_text, **style)
    page.image(x, y + VALUE, size, tile.pixels)
    if tile.note:
        page.tag(x + size[0] / 2, y + VALUE + size[1] / 2, tile.note, ha="center")


# --- parts


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


def voronoi_picture(
    picture: UInt8[np.ndarray, "height width 3"], weights: PixelWeights
) -> UInt8[np.ndarray, "height width 3"]:
    """The cells in their colours over the photograph, with lines between them; outside it fades."""
    cells, context = voronoi_cells(weights), weights.n_parts - 1
    palette = np.array([_rgb(part_colour(p)) for p in range(context)]).reshape(-1, 3)
    result = faded(picture).astype(np.float64)
    inside = (cells >= 0) & (cells < context)
    grey = picture[inside].mean(-1, keepdims=True)
    result[inside] = 0.45 * (64 + 0.75 * grey) + 0.55 * palette[cells[inside]]
    border = np.zeros_like(inside)
    border[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    border[1:] |= cells[1:] != cells[:-1]
    result[border] = 32
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
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


def draw_line(page: Page, xs: Sequence[float], ys: Sequence[float], colour: str = MUTED) -> None:
    """A hairline through points in inches."""
    across, up = [x / page.width for x in xs], [1 - y / page.height for y in ys]
    page.figure.add_artist(Line2D(across, up, color=colour, linewidth=0.7))


def draw_dot(page: Page, x: float, y: float, colour: str, size: float = 5.5) -> None:
    """A dot with a white rim at a point in inches; `size` in points."""
    page.figure.add_artist(
        Line2D(
            [x / page.width], [1 - y / page.height], marker="o", markersize=size, color=colour,
            markeredgecolor="white", markeredgewidth=0.8, linestyle="none", zorder=2.5,
        )
    )  # fmt: skip
