"""The paper's figures 6, 7, 8, 9, .11, .12 and .13 to .17, drawn for any fitted XNN.

Every function takes fitted XNNs and preprocessed samples, and returns a figure that belongs to no
window and no global state; `save_figure` writes it. X-features are drawn with the
number that they have everywhere else, so that figures of one XNN can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from torch import Tensor

from torchxnn.apps.benchmark.figure_parts import (
    CAPTION,
    Group,
    Look,
    contributions_of,
    draw_groups,
    feature_columns,
    logit_column,
    look_at,
    picture_column,
    target_of,
)
from torchxnn.data.datasets.base import Sample
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.explanations.drawing.overlay import number, signed
from torchxnn.metrics import MapCovariance
from torchxnn.metrics.faithfulness import ACTIVE_SHARE
from torchxnn.metrics.orthogonality import correlation
from torchxnn.xnn import XNN

SMALLEST_GROUP = 0.2
ROUNDING = 1e-9
Key = TypeVar("Key")


def comparison_figure(
    xnn: XNN,
    samples: Sequence[Sample],
    target: int | None = None,
    order: Sequence[int] | None = None,
    f_reg: float | None = None,
) -> Figure:
    """1-Heatmap against the x-features, a row per image (paper figures 8, 9 and .13 to .17).

    Columns have one order on all rows, so that an x-feature can be followed down its column: by
    decreasing mean v_i E_i over the positives.

    Args:
        xnn: fitted.
        samples: the images, from top to bottom.
        target: class whose logit is explained; None takes the first that the XNN explains.
        order: of the x-features, 0-based; None takes the held-out positives of the XNN's report,
            and the given images where there is no report or x-features are maps.
        f_reg: on which data is for the caller to choose, such as test images; None takes the
            report's, which are held-out training images.

    Raises:
        DataError: no images, or `order` does not name every x-feature once.
    """
    target = target_of(xnn, target)
    looks = look_at(xnn, samples, target)
    columns, basis = _class_order(xnn, looks, target, order)
    facts = (f"{_f_reg_text(xnn, f_reg)}x-features {basis}.",)
    return draw_groups(
        xnn.target_name(target),
        facts,
        (
            Group((picture_column(looks), logit_column(looks))),
            Group(feature_columns(xnn, looks, columns)),
        ),
        CAPTION,
    )


def degenerate_figure(
    good: XNN,
    bad: XNN,
    samples: Sequence[Sample],
    names: tuple[str, str] = ("SRAE", "NN"),
    target: int | None = None,
) -> Figure:
    """A good and a degenerate fit of one class on the same images (paper figure .12).

    Args:
        good: fitted with all terms of the loss.
        bad: fitted to the same logit, degenerate.
        samples: the images, from top to bottom.
        names: of the two methods, for the titles.
        target: class whose logit is explained; None takes the first that `good` explains.

    Raises:
        DataError: no images, or an XNN that does not explain the target.
    """
    target = target_of(good, target)
    looks_of = [look_at(xnn, samples, target_of(xnn, target)) for xnn in (good, bad)]
    groups = [Group((picture_column(looks_of[0]),))]
    for letter, name, xnn, looks in zip("ab", names, (good, bad), looks_of, strict=True):
        columns, _ = _class_order(xnn, looks, target, None)
        groups.append(
            Group(
                feature_columns(xnn, looks, columns),
                f"({letter}) {name}",
                _fit_notes(xnn, looks, target),
                tuple(f"Degenerate: {r}" for r in xnn.report.degenerate) if xnn.report else (),
            )
        )
    title = f"{good.target_name(target)}: {names[0]} and {names[1]} on the same images"
    return draw_groups(title, (), groups, CAPTION)


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
        contributions: v_i E_i of the images of one class, (M, n).
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
                (picture_column(looks), *feature_columns(xnn, looks, order)),
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


def _class_order(
    xnn: XNN, looks: Sequence[Look], target: int, order: Sequence[int] | None
) -> tuple[list[int], str]:
    """The x-features in the order of the columns, and by what they are ordered."""
    n = len(looks[0].features)
    if order is not None:
        if sorted(order) != list(range(n)):
            raise DataError(f"the order {list(order)} does not name each of {n} x-features once")
        return list(order), "in the given order"
    position = xnn.targets.index(target)
    if xnn.report is None or xnn.embedding is None or xnn.embedding.has_maps:
        mean = np.mean([look.contributions for look in looks], axis=0)
        basis = "by decreasing mean contribution over these images"
    else:
        # E >= 0, so the mean of v_i E_i is the mean of its size with the sign of v_i
        share = np.array(xnn.report.validation.share[position])
        mean = share * np.sign(xnn.readout_weight[position].numpy())
        basis = "by decreasing mean contribution over the held-out images of the class"
    return np.argsort(-mean, kind="stable").tolist(), basis


def _f_reg_text(xnn: XNN, f_reg: float | None) -> str:
    if f_reg is not None:
        return f"F_reg {number(f_reg)}; "
    if xnn.report is None:
        return ""
    return f"F_reg {number(xnn.report.validation.f_reg)} on held-out images; "


def _fit_notes(xnn: XNN, looks: Sequence[Look], target: int) -> tuple[str, ...]:
    """How good a fit is, and which two of its x-features look most alike on these images."""
    notes = []
    if xnn.report is not None:
        found = xnn.report.validation
        signs = np.sign(xnn.readout_weight[xnn.targets.index(target)].numpy())
        active = np.array(found.share[xnn.targets.index(target)]) >= ACTIVE_SHARE
        notes.append(
            f"{int(active.sum())} of {found.n_features} x-features active "
            f"({int((active & (signs > 0)).sum())} for, {int((active & (signs < 0)).sum())} "
            f"against), F_reg {number(found.f_reg)}, R² {found.r2:.2f}"
        )
    alike = _most_alike(looks)
    if alike is not None:
        (i, j), value = alike
        names = f"{xnn.feature_names[i]} and {xnn.feature_names[j]}"
        notes.append(f"Most alike: {names}, correlation of maps {signed(value)}")
    return tuple(notes)


def _most_alike(looks: Sequence[Look]) -> tuple[tuple[int, int], float] | None:
    """The pair of x-features, active on some image, whose maps correlate most."""
    covariance = MapCovariance(len(looks[0].features))
    covariance.update(torch.from_numpy(np.stack([look.heatmaps for look in looks])))
    alive = [i for i in range(len(looks[0].features)) if any(not k.note(i) for k in looks)]
    matrix = correlation(covariance.covariance())
    pairs = [(i, j) for i in alive for j in alive if i < j]
    if not pairs:
        return None
    best = max(pairs, key=lambda pair: float(matrix[pair]))
    return best, float(matrix[best])


def _mean_text(values: Tensor) -> str:
    return f"{signed(float(values.mean()))} ({signed(float(values.min()))} to " + (
        f"{signed(float(values.max()))})"
    )
