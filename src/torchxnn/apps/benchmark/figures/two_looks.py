"""Two looks of one class that an x-feature tells apart (paper figure .11)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from torchxnn.apps.benchmark.figures.columns import (
    CAPTION,
    Group,
    draw_groups,
    feature_columns,
    image_column,
)
from torchxnn.apps.benchmark.figures.looks import contributions_of, look_at, target_of
from torchxnn.data.datasets.base import Sample
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.explanations.drawing.overlay import signed
from torchxnn.metrics.faithfulness import ACTIVE_SHARE
from torchxnn.xnn import XNN

SMALLEST_GROUP = 0.2
ROUNDING = 1e-9
Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class TwoLooks:
    """Two groups of images that one x-feature tells apart.

    Attributes:
        feature: 0-based x-feature.
        mask: (M,), the images with the larger v_i E_i.
        separation: `between` times `contrast`, in [0, 1]; higher is clearer.
        between: share of the variance of v_i E_i that lies between the groups, in [0, 1]. The best
            split of a normal distribution has 0.64 (2 / pi), of a uniform one 0.75, of two points
            1.
        contrast: difference of the groups' means as a share of the larger, at most 1: 1 if the
            x-feature is off in one group, near 0 if it hardly changes.
    """

    feature: int
    mask: Bool[Tensor, " samples"]
    separation: float
    between: float
    contrast: float


def two_looks(
    contributions: Float[Tensor, "samples features"], smallest: float = SMALLEST_GROUP
) -> TwoLooks:
    r"""The x-feature whose activation splits the images of a class most clearly in two.

    Criterion: every x-feature that speaks for the class (mean :math:`v_iE_i` above 0 and at least
    5% of the sum of mean :math:`|v_iE_i|`) is split by the threshold on :math:`v_iE_i` that leaves
    the least squares within the groups (2-means, solved exactly on the sorted values). The largest
    separation wins, of equal ones the lower index:

    .. math:: \Big(1-\frac{SS_\mathrm{within}}{SS_\mathrm{total}}\Big)\cdot
        \min\Big(1,\frac{|m_1-m_2|}{\max(|m_1|,|m_2|)}\Big),

    with the groups' means :math:`m`. The first factor alone would choose x-features that take two
    values which hardly differ. Neither depends on a scale, so x-features and classes compare.
    A group may also be of images that the network hardly recognises: look at both.

    Args:
        contributions: of the images of one class, (M, n).
        smallest: share of the images that each group has at least, in (0, 0.5], and never fewer
            than 2 images, so that no outlier makes a group.

    Raises:
        DataError: fewer than 4 images, a share out of range, or no such x-feature that any
            threshold splits.
        NonFiniteError: NaN or infinity among the contributions.
    """
    if len(contributions) < 4 or not 0 < smallest <= 0.5:
        raise DataError(
            "two looks need at least 4 images and a smallest group in (0, 0.5], "
            f"got {len(contributions)} images and {smallest}"
        )
    values = contributions.detach().cpu().double()
    if not bool(values.isfinite().all()):
        raise NonFiniteError("the contributions to split hold NaN or infinity")
    sizes = values.abs().mean(0)
    speaks_for = (values.mean(0) > 0) & (sizes >= ACTIVE_SHARE * sizes.sum())
    best: TwoLooks | None = None
    for feature in speaks_for.nonzero().flatten().tolist():
        found = _best_split(feature, values[:, feature], smallest)
        if found is not None and (best is None or found.separation > best.separation):
            best = found
    if best is None:
        raise DataError("no active x-feature that speaks for the class splits these images in two")
    return best


def clearest_two_looks(
    contributions: Mapping[Key, Float[Tensor, "samples features"]],
) -> tuple[Key, TwoLooks]:
    """The class with the clearest `two_looks`; classes that have none are passed over.

    Raises:
        DataError: no class has any.
    """
    found: dict[Key, TwoLooks] = {}
    for key, values in contributions.items():
        try:
            found[key] = two_looks(values)
        except DataError:
            continue
    if not found:
        raise DataError("no class has an x-feature that splits its images in two groups")
    return max(found.items(), key=lambda item: item[1].separation)


def two_looks_figure(
    xnn: XNN,
    samples: Sequence[Sample],
    target: int | None = None,
    per_group: int = 4,
    columns: int = 3,
) -> Figure:
    """Two looks of one class that an x-feature merges, such as male and female (paper figure .11).

    `two_looks` splits the images. Each group shows the images nearest to its mean, with the maps of
    the x-feature that splits them and of those with the largest mean contribution.

    Args:
        xnn: fitted.
        samples: positives of the class, as many as there are.
        target: class whose logit is explained; None takes the first that the XNN explains.
        per_group: images shown of each group, at most.
        columns: x-features shown, at most.

    Raises:
        DataError: fewer than 4 images, or no x-feature that splits them.
    """
    target = target_of(xnn, target)
    values = contributions_of(xnn, samples, target)
    found = two_looks(values)
    others = values.mean(0).argsort(descending=True, stable=True).tolist()
    order = [found.feature, *(i for i in others if i != found.feature)][:columns]
    groups = []
    for letter, word, mask in (("a", "large", found.mask), ("b", "small", ~found.mask)):
        members = mask.nonzero().flatten()
        own = values[members, found.feature]
        typical = members[(own - own.mean()).abs().argsort(stable=True)[:per_group]].tolist()
        looks = look_at(xnn, [samples[i] for i in typical], target)
        groups.append(
            Group(
                (image_column(looks), *feature_columns(xnn, looks, order)),
                f"({letter}) {len(members)} images with {word} contributions",
                (f"Mean contribution of {xnn.feature_names[order[0]]}: {_mean_text(own)}",),
            )
        )
    name = xnn.feature_names[found.feature]
    facts = (
        f"{found.between:.0%} of the variance of its contribution over {len(values)} images "
        "lies between the groups (the best split of a normal distribution: 64%). Shown are the "
        "images nearest to the mean of each group.",
    )
    title = f"{xnn.target_name(target)}: {name} splits the images in two"
    return draw_groups(title, facts, groups, CAPTION)


def _best_split(
    feature: int, values: Float[Tensor, " samples"], smallest: float
) -> TwoLooks | None:
    """Exact 2-means of the numbers of one x-feature; None if too many are equal."""
    ordered = values.sort().values
    count = len(ordered)
    least = max(2, math.ceil(smallest * count))
    best: tuple[float, float] | None = None
    for below in range(least, count - least + 1):
        low, high = ordered[:below], ordered[below:]
        if low[-1] == high[0]:  # equal values stay together
            continue
        squares = below * (count - below) / count * float(high.mean() - low.mean()) ** 2
        # equal but for rounding: the lower threshold, whatever the scale
        if best is None or squares > best[0] * (1 + ROUNDING):
            best = squares, float(low[-1])
    if best is None:
        return None
    squares, threshold = best
    mask = values > threshold
    upper, lower = float(values[mask].mean()), float(values[~mask].mean())
    between = min(1.0, squares / float((ordered - ordered.mean()).square().sum()))
    contrast = min(1.0, (upper - lower) / max(abs(upper), abs(lower)))
    return TwoLooks(feature, mask, between * contrast, between, contrast)


def _mean_text(values: Tensor) -> str:
    return f"{signed(float(values.mean()))} ({signed(float(values.min()))} to " + (
        f"{signed(float(values.max()))})"
    )
