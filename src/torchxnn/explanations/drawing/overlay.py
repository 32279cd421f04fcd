"""How explanations look: heatmaps laid over the explained image, colours and numbers.

Everything here is a pure function of arrays and numbers. What is said (order, captions, sentence)
is decided in `explanations.base` and handed over as a `Card`, which figures and pages draw, so that
they can never disagree.

A heatmap of excitation backprop is sharp to the pixel and very sparse. For *drawing only*, its
positive part is smoothed lightly (`BLUR` of the shorter side) and scaled so that `PERCENTILE` of
the pixels reach the top of the colour scale; figures and metrics never use the smoothed map.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Real, UInt8

Scale = Literal["each", "shared"]

POSITIVE, NEGATIVE = "#b2182b", "#1f5fa8"  # red and blue that colour-blind people tell apart
INK, MUTED, FAINT = "#1b1f24", "#59636e", "#d1d6db"
WARNING = "#8f1d14"
OUTLINE = (255, 0, 212)  # of what is painted over; a colour that images seldom have
BLUR = 0.0135  # standard deviation of the drawing blur, of the shorter side (3 of 224 pixels)
PERCENTILE = 99.5
CUTOUT_SHARE = 0.5
TINY = 0.0005  # logits
LEVELS = 8  # strengths of the colour behind a token
STRONGEST = 0.45  # opacity of the strongest colour, so that dark text stays readable on it
_OPACITY = 0.82


def signed(value: float) -> str:
    """A number with its sign written out ("+6.31", "−0.42", "0"), so that colour is not needed."""
    if not np.isfinite(value):
        return str(value)
    size = abs(value)
    if size < TINY:
        return "≈0" if size else "0"
    text = f"{size:.1f}" if size >= 100 else f"{size:.2f}" if size >= 0.095 else f"{size:.1g}"
    return ("+" if value > 0 else "\N{MINUS SIGN}") + text


def number(value: float) -> str:
    """A number like `signed`, without the plus."""
    return signed(value).removeprefix("+")


def colour_of(value: float) -> str:
    """Red for a positive contribution, blue for a negative one, grey for none."""
    return POSITIVE if value > 0 else NEGATIVE if value < 0 else MUTED


def sign_of(value: float) -> str:
    """The same in a word that style sheets know."""
    return "positive" if value > 0 else "negative" if value < 0 else "none"


def tint(level: int) -> str:
    """Colour behind a token: white at 0, towards red above and blue below, as "#rrggbb"."""
    colour, strength = POSITIVE if level > 0 else NEGATIVE, STRONGEST * abs(level) / LEVELS
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 * (1 - strength) + strength * c):02x}" for c in channels)


def smooth(
    heatmap: Real[np.ndarray, "height width"], sigma: float
) -> Float[np.ndarray, "height width"]:
    """Gaussian blur with zero outside the image; `sigma` in pixels, 0 changes nothing."""
    result = np.asarray(heatmap, dtype=np.float64)
    if sigma <= 0:
        return result
    rows, columns = (_blur(size, sigma) for size in result.shape)
    return rows @ result @ columns


@lru_cache(maxsize=16)
def _blur(size: int, sigma: float) -> Float[np.ndarray, "size size"]:
    """What a Gaussian, cut off at three standard deviations, makes of a line of pixels.

    By hand, since the import of scipy.ndimage takes longer than all maps of a page.
    """
    radius, places = max(1, round(3 * sigma)), np.arange(size)
    distances = np.abs(places[:, None] - places)
    total = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).sum()
    return np.where(distances <= radius, np.exp(-0.5 * (distances / sigma) ** 2), 0) / total


def intensities(
    heatmaps: Sequence[Real[np.ndarray, "height width"]],
    scale: Scale = "each",
    blur: float = BLUR,
    percentile: float = PERCENTILE,
) -> list[Float[np.ndarray, "height width"]]:
    """Turn signed heatmaps into [0, 1] for drawing: blur(max(C, 0)) / top, clipped at 1.

    Args:
        heatmaps: Signed maps of one image.
        scale: "each": `top` is each map's own percentile, so that every map uses the whole colour
            scale (paper); "shared": the largest of these, so that maps can be compared.
        blur: Standard deviation of the blur as a fraction of the shorter side.
        percentile: Of the pixels of a map, in percent; robust against single pixels.

    Raises:
        ValueError: An unknown scale or a heatmap that is not finite.
    """
    if scale not in ("each", "shared"):
        raise ValueError(f"scale is {scale!r}; it must be 'each' or 'shared'")
    clipped = []
    for heatmap in heatmaps:
        if not np.isfinite(heatmap).all():
            raise ValueError("a heatmap holds NaN or infinity and cannot be drawn")
        clipped.append(smooth(np.maximum(heatmap, 0), blur * min(heatmap.shape)))
    tops = [float(np.percentile(c, percentile)) or float(c.max(initial=0)) for c in clipped]
    if scale == "shared":
        tops = [max(tops, default=0.0)] * len(tops)
    return [
        np.clip(c / top, 0, 1) if top > 0 else np.zeros_like(c)
        for c, top in zip(clipped, tops, strict=True)
    ]


def overlay(
    image: UInt8[np.ndarray, "height width 3"], intensity: Real[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay a map in [0, 1] over the image, which turns light grey and stays visible.

    The colours are perceptually uniform and colour-blind safe; opacity grows with intensity.
    """
    base = _grey(image, 0.22)
    colours = _colours()[np.clip(intensity * 255, 0, 255).astype(np.intp)]
    opacity = (np.clip(2 * intensity, 0, 1) * _OPACITY)[..., None]
    return _bytes(base * (1 - opacity) + colours * opacity)


def heatmap_over(
    image: UInt8[np.ndarray, "height width 3"], heatmap: Real[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Lay a signed heatmap over its image, on a colour scale of its own."""
    return overlay(image, intensities([heatmap])[0])


def cutout(
    image: UInt8[np.ndarray, "height width 3"],
    heatmap: Real[np.ndarray, "height width"],
    share: float = CUTOUT_SHARE,
    blur: float = 2 * BLUR,
) -> UInt8[np.ndarray, "height width 3"]:
    """Show in their own colours the fewest pixels that hold `share` of max(C, 0), the rest faded.

    An overlay says where a concept is; the cut-out says what is there (its colour and texture).
    The map is smoothed twice as much as in an overlay, so that regions hold together.
    """
    base = _grey(image, 0.5)
    smoothed = smooth(np.maximum(heatmap, 0), blur * min(heatmap.shape))
    total = smoothed.sum()
    if not total > 0:
        return _bytes(base)
    falling = np.sort(smoothed, axis=None)[::-1]
    level = falling[min(int(np.searchsorted(np.cumsum(falling), share * total)), falling.size - 1)]
    inside = smoothed >= level
    result = np.where(inside[..., None], image / 255, base)
    result[inside & ~_core(inside)] = 0.13
    return _bytes(result)


def _core(inside: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Pixels of a region of which all four neighbours are in it; beyond the image all are."""
    wide = np.pad(inside, 1, constant_values=True)
    beside = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return inside & beside


def outlined(
    image: UInt8[np.ndarray, "height width 3"], region: Bool[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """The image with a line around a region, outside of it, so that all of the region is seen."""
    core = ~region
    for _ in range(max(1, round(max(region.shape) / 256))):
        core = _core(core)
    result = image.copy()
    result[~region & ~core] = OUTLINE
    return result


def faded(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """The image in pale grey: an x-feature that is inactive here."""
    return _bytes(_grey(image, 0.6))


def colour_scale(width: int = 256, height: int = 12) -> UInt8[np.ndarray, "height width 3"]:
    """The overlay's colours from low to high on a light ground, as a legend."""
    ground = np.full((height, width, 3), 216, dtype=np.uint8)
    return overlay(ground, np.tile(np.linspace(0, 1, width), (height, 1)))


@cache
def _colours() -> Float[np.ndarray, "256 3"]:
    """Colours of an intensity from 0 to 255, red, green and blue in [0, 1]."""
    import matplotlib

    return matplotlib.colormaps["inferno"](np.linspace(0.2, 1.0, 256))[:, :3]


def _grey(image: np.ndarray, lift: float) -> np.ndarray:
    grey = image @ np.array([0.299, 0.587, 0.114]) / 255
    return np.repeat((lift + (1 - lift) * (0.3 + 0.7 * grey))[..., None], 3, axis=-1)


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
