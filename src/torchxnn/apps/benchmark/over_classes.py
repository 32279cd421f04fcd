"""Means over classes, their intervals, and paired tests; a class may lack a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from torchxnn.metrics.intervals import bootstrap_mean, holm_adjust, paired_wilcoxon

SIGNIFICANT = 0.05
"""p after Holm's correction below which a table says that one method is better than another."""

FEWEST = 2
"""Classes below which there is neither an interval nor a test."""


def mean(values: Sequence[float | int | None]) -> float | None:
    """Mean of the figures that exist; None if none does."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return sum(known) / len(known) if known else None


def interval_of_mean(values: Sequence[float | int | None]) -> list[float] | None:
    """Lower and upper end of the bootstrap interval (95%) of that mean; None for fewer than 2."""
    known = [value for value in values if value is not None]
    if len(known) < FEWEST:
        return None
    found = bootstrap_mean(torch.tensor(known, dtype=torch.float64))
    return [found.low, found.high]


def paired_test(
    first: Sequence[float | int | None], second: Sequence[float | int | None]
) -> dict[str, Any] | None:
    """Two-sided Wilcoxon test of two methods on the classes that have the figure of both.

    Returns:
        `p`, not corrected; `median_difference` of first - second; how many `classes` there are, and
        in how many of them the first is `higher` and `lower`. None for fewer than 2 classes.
    """
    known = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    if len(known) < FEWEST:
        return None
    pairs = [(float(a), float(b)) for a, b in known]
    tested = paired_wilcoxon([a for a, _ in pairs], [b for _, b in pairs])
    return {
        "p": tested.p,
        "median_difference": tested.median_difference,
        "classes": tested.pairs,
        "higher": sum(a > b for a, b in pairs),
        "lower": sum(a < b for a, b in pairs),
    }


def with_holm(tests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tests of one family, each with its `p_holm`, corrected over all of them."""
    corrected = holm_adjust([test["p"] for test in tests])
    return [{**test, "p_holm": p} for test, p in zip(tests, corrected, strict=True)]
