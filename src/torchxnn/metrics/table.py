"""The figures that tables and pages show, by name: what each means and which way is better.

A new metric is one file with a pure function and a frozen result, and one line here for each of its
figures that is shown: the tables of `xnn evaluate` and `xnn fit`, reports, atlases and benchmarks
name a figure, and read here what it is called, means and how it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torchxnn.metrics.faithfulness import ACTIVE_SHARE, MINIMUM_R2, Faithfulness
from torchxnn.metrics.locality import Locality
from torchxnn.metrics.orthogonality import Orthogonality


@dataclass(frozen=True)
class Metric:
    """One figure of a result.

    Attributes:
        result: the class of the result that has the figure.
        field: its attribute there.
        name: as tables write it.
        meaning: in whole sentences, for people who do not know the metric.
        better: "lower", "higher" or "2 or more"; "" where neither is better.
        form: how the figure is formatted, such as ".3g".
        counted: the attribute that the figure is a part of, as in "3 of 5", if it is one.
        bad: whether a result is so bad in this respect that it is no explanation.
    """

    result: type
    field: str
    name: str
    meaning: str
    better: Literal["lower", "higher", "2 or more", ""]
    form: str = ".3g"
    counted: str | None = None
    bad: Callable[[Any], bool] = lambda result: False

    def text(self, result: Any) -> str:
        """The figure of a result as tables show it; a dash if it does not exist."""
        value = getattr(result, self.field)
        if value is None:
            return "-"
        whole = "" if self.counted is None else f" of {getattr(result, self.counted):,}"
        return f"{value:{self.form}}{whole}"

    @property
    def label(self) -> str:
        """The name with an arrow to the better side, for the heads of tables."""
        arrow = {"lower": " ↓", "higher": " ↑", "2 or more": " ↑", "": ""}
        return self.name + arrow[self.better]


METRICS: dict[str, Metric] = {
    "f_reg": Metric(
        Faithfulness, "f_reg", "F_reg",
        "How far the reproduced logit is from the network's own, on average, in logits.", "lower",
    ),
    "f_reg_positives": Metric(
        Faithfulness, "f_reg_positives", "F_reg on the positives",
        "The same, on the positives alone (images of what is explained), which is where it counts.",
        "lower",
    ),
    "f_cls": Metric(
        Faithfulness, "f_cls", "F_cls",
        "Share of images on which the network decides the same when the reproduced logit replaces "
        "its own. Other images dominate it, so read the next line too.", "higher", ".2%",
    ),
    "f_cls_positives": Metric(
        Faithfulness, "f_cls_positives", "F_cls on the positives",
        "The same, on the positives alone.", "higher", ".2%",
    ),
    "margin": Metric(
        Faithfulness, "margin", "Margin of the positives",
        "How far the network's largest logit is ahead of the second one, or that of a label from "
        "0, in logits.", "",
    ),
    "margin_changed": Metric(
        Faithfulness, "margin_changed", "Margin where the decision changes",
        "The same on images on which the decision changes; far below the margin of the positives, "
        "these are near-ties.", "",
    ),
    "r2": Metric(
        Faithfulness, "r2", "R²",
        "Part of the logit's variation over all images that is reproduced; 1 is all of it. Below "
        f"{MINIMUM_R2} on held-out images the fit is degenerate.", "higher", ".3f",
        bad=lambda found: not found.r2 >= MINIMUM_R2,
    ),
    "active": Metric(
        Faithfulness, "active", "Active x-features",
        f"Alive, with at least {ACTIVE_SHARE:.0%} of the contributions, which count from what a "
        "typical other image gets. Fewer than 2 is no explanation by several concepts.",
        "2 or more", "", "n_features",
        lambda found: found.n_features > 1 and found.active < 2,
    ),
    "dead": Metric(
        Faithfulness, "dead", "Dead x-features",
        "x-features that are 0 on every positive, so that there is nothing to see.", "lower", "",
        bad=lambda found: found.dead > 0 and found.active < 2,
    ),
    "positives": Metric(
        Faithfulness, "positives", "Positives",
        "Images of what is explained, among all that were used.", "", ",", "images",
    ),
    "o1": Metric(
        Orthogonality, "o1", "O1",
        "How much the heatmaps of the alive x-features overlap; 0 is not at all.", "lower", ".3f",
    ),
    "o2": Metric(
        Orthogonality, "o2", "O2",
        "The same by the determinant: infinite if two heatmaps always coincide.", "lower", ".3f",
    ),
    "mean_squared_correlation": Metric(
        Orthogonality, "mean_squared_correlation", "Mean squared correlation of maps",
        "Over all pairs of x-features, dead ones counted as 1; compares methods.", "lower", ".3f",
    ),
    "locality": Metric(
        Locality, "value", "Locality",
        "Entropy of an x-feature's relevance over parts or objects; its exponential is about the "
        "number that it looks at.", "lower", ".3f",
    ),
}  # fmt: skip
"""Figures by the names that tables, records and users have for them."""


FAITHFULNESS = ("f_reg", "f_reg_positives", "f_cls", "f_cls_positives", "r2", "active", "dead",
                "positives")  # fmt: skip
"""The figures of faithfulness that pages show, from the top down."""


def faithfulness_rows(columns: Sequence[tuple[str, Faithfulness]]) -> list[dict[str, Any]]:
    """A row per figure for a page, a cell per column: (heading, figures), such as of a split."""
    return [
        {
            "name": metric.name,
            "meaning": metric.meaning,
            "better": metric.better,
            "cells": [{"text": metric.text(each), "bad": metric.bad(each)} for _, each in columns],
        }
        for metric in map(METRICS.__getitem__, FAITHFULNESS)
    ]
