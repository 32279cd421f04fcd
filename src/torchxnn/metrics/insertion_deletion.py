"""Insertion and deletion by x-feature: does the network use what the x-features look at?

An x-feature's region are the pixels where its map is highest. Deleting it paints the region over,
inserting it gives the region of a picture without any of them back. As a control every region is
also moved to another place: it keeps its size and its shape, and with them what painting over does
by itself. Only the difference to the control speaks for the x-feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.errors import DataError, check_finite
from torchxnn.metrics.intervals import (
    LEVEL,
    RESAMPLES,
    Interval,
    bootstrap_counts,
    bootstrap_mean,
    percentile_interval,
)
from torchxnn.metrics.masking import top_pixels


@dataclass(frozen=True)
class StepCurve:
    """A figure as x-features are deleted or inserted one after the other, mean over images.

    Attributes:
        mean: after 0, 1, ..., n steps.
        area: under the curve, with the steps spread over [0, 1]; in the units of the figure. Lower
            is better for deletion, higher for insertion, compared with the controls.
        interval: bootstrap interval of the area over images.
    """

    mean: tuple[float, ...]
    area: float
    interval: Interval


@dataclass(frozen=True)
class FeatureUse:
    """Whether the network uses an x-feature: changes when it is taken away, mean over images.

    A change is the figure afterwards minus the figure before, so what supports a class changes its
    logit by a negative number.

    Attributes:
        reproduced: change of the reproduced logit if the x-feature is set to zero, -v E.
        reproduced_interval: bootstrap interval of it over images.
        real: change of the network's own logit if its region is painted over.
        real_interval: bootstrap interval of it over images.
        control: the same for regions of the same size and shape elsewhere.
        control_interval: bootstrap interval of it over images.
        correlation: Pearson's, over images, of the change of the reproduced logit and that of the
            real one; higher is better; NaN if one of them does not vary.
        correlation_interval: bootstrap interval of it over images.
        images: on which the x-feature is active.
    """

    reproduced: float
    reproduced_interval: Interval
    real: float
    real_interval: Interval
    control: float
    control_interval: Interval
    correlation: float
    correlation_interval: Interval
    images: int


def feature_regions(
    heatmaps: Float[Tensor, "features height width"],
    pixels: int,
    active: Bool[Tensor, " features"] | None = None,
) -> Bool[Tensor, "features height width"]:
    """The region of each x-feature: the pixels where its map is highest and positive.

    Args:
        heatmaps: (n, H, W), signed.
        pixels: of a region, 1 to H W; a map with fewer positive pixels has a smaller one.
        active: x-features that are not 0; the others have an empty region.

    Raises:
        DataError: `pixels` is out of range.
        NonFiniteError: a map holds NaN or infinity.
    """
    regions = top_pixels(heatmaps, pixels)
    return regions if active is None else regions & active[:, None, None]


def shifted_regions(
    regions: Bool[Tensor, "regions height width"], seed: int
) -> Bool[Tensor, "regions height width"]:
    """Regions of the same sizes and shapes at random other places; what leaves comes back opposite.

    A shift is drawn evenly from all but none at all; a picture of one pixel stays as it is. The
    same seed gives the same shifts.
    """
    height, width = regions.shape[1:]
    generator = np.random.default_rng(seed)
    shifted = []
    for region in regions:
        step = int(generator.integers(1, height * width)) if height * width > 1 else 0
        shifted.append(region.roll((step // width, step % width), (0, 1)))
    return torch.stack(shifted)


def control_regions(
    region: Bool[Tensor, "height width"],
    mass: Float[Tensor, "height width"],
    elsewhere: int,
    on_object: int,
    seed: int,
) -> Bool[Tensor, "regions height width"]:
    r"""One region moved to other places, some of them anywhere, the others onto the object.

    What leaves the picture comes back opposite; no shift is drawn twice. Anywhere: all shifts but
    none at all are as likely. On the object a shift s is drawn in proportion to what the moved
    region covers of the object outside of the region G itself, and to the share of G it leaves:

    .. math::
        w(s)\propto\sum_{p\in G,\,p+s\notin G}m(p+s)\;
        \Big(1-\frac{|\{p\in G:p+s\in G\}|}{|G|}\Big)

    Args:
        region: of at least one pixel.
        mass: m, where the object is; non-negative. Without any outside of the region all places are
            drawn from anywhere.
        elsewhere: number of places anywhere.
        on_object: number of places on the object.
        seed: the same seed gives the same places.

    Returns:
        (elsewhere + on_object, H, W), those anywhere first.
    """
    generator = np.random.default_rng(seed)
    inside = region.double()
    fourier = torch.fft.rfft2(inside).conj()
    moved = [
        torch.fft.irfft2(fourier * torch.fft.rfft2(other), s=region.shape)
        for other in (mass.double() * ~region, inside)
    ]
    weights = (moved[0] * (1 - moved[1] / inside.sum())).clamp(min=0).flatten()
    weights[weights < 1e-9 * weights.max()] = 0  # nothing but the rounding of the transform
    weights[0] = 0
    anywhere = torch.ones_like(weights)
    anywhere[0] = 0
    if not bool(weights.any()):
        weights = anywhere
    width, steps = region.shape[1], list[int]()
    for chances, count in ((anywhere, elsewhere), (weights, on_object)):
        again = int((chances > 0).sum()) < count  # pictures of a few pixels
        drawn = (chances / chances.sum()).numpy()
        steps += generator.choice(len(drawn), count, replace=again, p=drawn).tolist()
    return torch.stack([region.roll((step // width, step % width), (0, 1)) for step in steps])


def deletion_masks(
    regions: Bool[Tensor, "regions height width"], order: Int64[Tensor, " regions"]
) -> Bool[Tensor, "steps height width"]:
    """Pixels that stay after 0, 1, ..., n regions were deleted; (n + 1, H, W)."""
    ordered = regions[order].long().cumsum(0) > 0
    return ~torch.cat([torch.zeros_like(ordered[:1]), ordered])


def insertion_masks(
    regions: Bool[Tensor, "regions height width"], order: Int64[Tensor, " regions"]
) -> Bool[Tensor, "steps height width"]:
    """Pixels that are there after 0, 1, ..., n regions were put back; (n + 1, H, W).

    Whatever belongs to no region is there all the time.
    """
    return ~deletion_masks(regions, order) | ~regions.any(0)


def area_under(values: Float[Tensor, "images steps"]) -> Float[Tensor, " images"]:
    r"""Area under each of M curves (M, n + 1) by the trapezoid rule, steps spread over [0, 1].

    .. math:: A=\frac1n\sum_{j=1}^n\frac{y_{j-1}+y_j}2

    Raises:
        DataError: fewer than two steps.
    """
    if values.shape[1] < 2:
        raise DataError("an area needs a curve of at least two steps")
    return ((values[:, 1:] + values[:, :-1]) / 2).mean(1)


def step_curve(
    values: Float[Tensor, "images steps"],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> StepCurve:
    """Mean curve of many images, and the area under it with a bootstrap interval over images.

    Source: Petsiuk et al., RISE, 2018, section 4.2, for pixels; here the steps are x-features.
    `values`, (M, n + 1), are such as the target's logit after 0, 1, ..., n deletions; the other
    arguments are those of `bootstrap_mean`.

    Raises:
        DataError: no images, or fewer than two steps.
        NonFiniteError: NaN or infinity among the values.

    Example:
        >>> step_curve(torch.tensor([[3.0, 1.0, 0.0]])).area
        1.25
    """
    values = values.detach().cpu().double()
    areas = area_under(values)
    if len(values) == 0:
        raise DataError("there are no images to draw a curve of")
    check_finite("a curve of insertion or deletion holds NaN or infinity", values)
    interval = bootstrap_mean(areas, level, resamples, seed)
    return StepCurve(tuple(values.mean(0).tolist()), float(areas.mean()), interval)


def feature_use(
    reproduced: Float[Tensor, " images"],
    real: Float[Tensor, " images"],
    control: Float[Tensor, " images"],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> FeatureUse:
    """Mean changes of one x-feature with intervals, and how they agree over images.

    Args:
        reproduced: (M,), change of the reproduced logit when the x-feature is set to zero.
        real: (M,), change of the network's logit when its region is painted over.
        control: (M,), change of the network's logit when regions elsewhere are painted over.
        level: of the intervals.
        resamples: B.
        seed: of the resamples.

    Raises:
        DataError: no images.
        NonFiniteError: NaN or infinity among the changes.
    """
    changes = torch.stack([each.detach().cpu().double() for each in (reproduced, real, control)])
    if changes.shape[1] == 0:
        raise DataError("the x-feature is active on none of the images")
    check_finite("a change of a logit is NaN or infinite", changes)
    intervals = [bootstrap_mean(each, level, resamples, seed) for each in changes]
    counts = bootstrap_counts(changes.shape[1], resamples, seed)
    means = changes.mean(1).tolist()
    correlations = _correlations(counts, changes[0], changes[1])
    return FeatureUse(
        reproduced=means[0],
        reproduced_interval=intervals[0],
        real=means[1],
        real_interval=intervals[1],
        control=means[2],
        control_interval=intervals[2],
        correlation=float(_correlations(torch.ones_like(counts[:1]), changes[0], changes[1])),
        correlation_interval=percentile_interval(correlations, level, changes.shape[1]),
        images=changes.shape[1],
    )


def _correlations(
    counts: Float[Tensor, "resamples items"],
    first: Float[Tensor, " items"],
    second: Float[Tensor, " items"],
) -> Float[Tensor, " resamples"]:
    """Pearson's correlation of every resample; NaN where one side does not vary."""
    first, second = first - first.mean(), second - second.mean()
    columns = torch.stack([first, second, first * second, first**2, second**2], 1)
    x, y, xy, xx, yy = (counts @ columns / counts.sum(1, keepdim=True)).unbind(1)
    variances = (xx - x * x).clamp(min=0) * (yy - y * y).clamp(min=0)
    scale = first.square().mean() * second.square().mean()
    fine = variances > 1e-18 * scale
    return torch.where(fine, (xy - x * y) / variances.clamp(min=1e-300).sqrt(), torch.nan)
