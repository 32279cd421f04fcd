"""How faithful an XNN is, as rows of a table: name, meaning, direction and text of each figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torchxnn.explanations.drawing.overlay import number
from torchxnn.metrics.faithfulness import ACTIVE_SHARE, MINIMUM_R2, Faithfulness


@dataclass(frozen=True)
class Figure:
    """A figure of merit as people read it.

    Attributes:
        name: of the row.
        meaning: a sentence or two below it.
        better: "lower", "higher" or a bound; empty where there is no better.
        text: the figure with its unit.
        bad: whether it makes the fit degenerate.
    """

    name: str
    meaning: str
    better: str
    text: Callable[[Faithfulness], str]
    bad: Callable[[Faithfulness], bool] = lambda _: False


FIGURES = (
    Figure(
        "F_reg",
        "How far the reproduced logit is from the network's own, on average, in logits.",
        "lower",
        lambda f: f"{f.f_reg:.3g}",
    ),
    Figure(
        "F_reg on the positives",
        "The same, on images of the explained class alone, which is where it counts.",
        "lower",
        lambda f: f"{f.f_reg_positives:.3g}",
    ),
    Figure(
        "F_cls",
        "Share of images that keep their predicted class when the reproduced logit replaces the "
        "network's. Other classes dominate it, so read the next line too.",
        "higher",
        lambda f: f"{f.f_cls:.1%}",
    ),
    Figure(
        "F_cls on the positives",
        "The same, on images of the explained class alone.",
        "higher",
        lambda f: f"{f.f_cls_positives:.1%}",
    ),
    Figure(
        "R²",
        "Part of the logit's variation over all images that is reproduced; 1 is all of it. "
        f"Below {MINIMUM_R2} on held-out images the fit is degenerate.",
        "higher",
        lambda f: number(round(f.r2, 3)) if abs(f.r2) < 0.1 else f"{f.r2:.3f}",
        lambda f: not f.r2 >= MINIMUM_R2,
    ),
    Figure(
        "Active x-features",
        f"x-features with at least {ACTIVE_SHARE:.0%} of the contributions. Fewer than 2 is no "
        "explanation by several concepts.",
        "2 or more",
        lambda f: f"{f.active} of {f.n_features}",
        lambda f: f.n_features > 1 and f.active < 2,
    ),
    Figure(
        "Dead x-features",
        "x-features that are 0 on every positive and so explain nothing.",
        "lower",
        lambda f: f"{f.dead}",
        lambda f: f.dead > 0 and f.active < 2,
    ),
    Figure(
        "Images",
        "How many were used; of these positives, images of the explained class.",
        "",
        lambda f: f"{f.images:,} ({f.positives:,})",
    ),
)


def faithfulness_rows(columns: Sequence[tuple[str, Faithfulness]]) -> list[dict[str, Any]]:
    """A row per figure, with a cell per column that says whether its value is bad.

    Args:
        columns: (heading, figures), such as on training and on held-out images.
    """
    return [
        {
            "name": figure.name,
            "meaning": figure.meaning,
            "better": figure.better,
            "cells": [{"text": figure.text(f), "bad": figure.bad(f)} for _, f in columns],
        }
        for figure in FIGURES
    ]
