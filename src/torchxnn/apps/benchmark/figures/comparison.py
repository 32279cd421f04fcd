"""An XNN's heatmaps on several images: paper figures 8, 9 and .13 to .17, and .12.

Every function takes fitted XNNs and preprocessed samples, and returns a figure that belongs to no
window and no global state; `save_figure` writes it. X-features are drawn with the
number that they have everywhere else, so that figures of one XNN can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure

from torchxnn.apps.benchmark.figures.columns import (
    CAPTION,
    Group,
    draw_groups,
    feature_columns,
    image_column,
    logit_column,
)
from torchxnn.apps.benchmark.figures.looks import Look, look_at, target_of
from torchxnn.data.datasets.base import Sample
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.overlay import number, signed
from torchxnn.metrics.faithfulness import ACTIVE_SHARE
from torchxnn.metrics.orthogonality import MapCovariance, correlation
from torchxnn.xnn import XNN


def comparison_figure(
    xnn: XNN,
    samples: Sequence[Sample],
    target: int | None = None,
    order: Sequence[int] | None = None,
    f_reg: float | None = None,
) -> Figure:
    """1-Heatmap against the x-features, a row per image (paper figures 8, 9 and .13 to .17).

    Columns have one order on all rows, so that an x-feature can be followed down its column: by
    decreasing mean contribution over the positives.

    Args:
        xnn: fitted.
        samples: the images, from top to bottom.
        target: class whose logit is explained; None takes the first that the XNN explains.
        order: of the x-features, 0-based; None takes the held-out positives of the XNN's report,
            and the given images where there is none.
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
            Group((image_column(looks), logit_column(looks))),
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
    groups = [Group((image_column(looks_of[0]),))]
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


def _class_order(
    xnn: XNN, looks: Sequence[Look], target: int, order: Sequence[int] | None
) -> tuple[list[int], str]:
    """The x-features in the order of the columns, and by what they are ordered."""
    n = len(looks[0].features)
    if order is not None:
        if sorted(order) != list(range(n)):
            raise DataError(f"the order {list(order)} does not name each of {n} x-features once")
        return list(order), "in the given order"
    mean, images = _mean_contributions(xnn, looks, target)
    basis = f"by decreasing mean contribution over {images}"
    return np.argsort(-mean, kind="stable").tolist(), basis


def _mean_contributions(
    xnn: XNN, looks: Sequence[Look], target: int
) -> tuple[Float[np.ndarray, " features"], str]:
    """Of every x-feature, over held-out images of the class where known, and what these are."""
    known = None if xnn.report is None else xnn.report.validation.mean_contribution
    if known is None:
        return np.mean([look.contributions for look in looks], axis=0), "these images"
    return np.array(known[xnn.targets.index(target)]), "the held-out images of the class"


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
        signs = np.sign(_mean_contributions(xnn, looks, target)[0])
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
