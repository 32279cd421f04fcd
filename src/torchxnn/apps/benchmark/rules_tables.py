"""Means, paired tests and tables of the comparison of rules, and from which mass maps tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

from torchxnn.apps.benchmark.rules import PAPER
from torchxnn.apps.benchmark.summary import mean
from torchxnn.metrics.intervals import bootstrap_mean, holm_adjust, paired_wilcoxon

TESTED = ("told", "own", "off", "pointing", "overlap")
"""Figures in which every rule is tested against the rule of the paper."""

FIGURES = (*TESTED, "others", "chance", "mass", "seconds")

BINS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
"""Limits of contrast mass between which maps are counted together."""

Records = Mapping[str, Mapping[str, Any]]


def summarise_rules(records: Records) -> dict[str, Any]:
    """Everything that `rules.json` holds, from what `run_rules` returns.

    Returns:
        `rules`: means over classes by rule; `intervals`: their bootstrap intervals over classes
        (95%); `tests`: Wilcoxon signed-rank tests over classes of every rule against that of the
        paper, two-sided, p after Holm over all of them; `logit`: mean correlation of the logit's
        own map with its falls; `by_mass`: maps of contrastive rules by their contrast mass.
    """
    names = list(dict.fromkeys(rule for each in records.values() for rule in each["rules"]))
    columns = {
        rule: {
            figure: [each["rules"][rule][figure] for each in records.values()] for figure in FIGURES
        }
        for rule in names
    }
    tests = [
        _test(figure, rule, columns[rule][figure], columns[PAPER][figure])
        for figure in TESTED
        for rule in names
        if rule != PAPER and PAPER in columns
    ]
    known = [test for test in tests if test is not None]
    corrected = holm_adjust([test["p"] for test in known])
    logits = list(dict.fromkeys(rule for each in records.values() for rule in each["logit"]))
    return {
        "r2": mean([each["r2"] for each in records.values()]),
        "rules": {
            rule: {figure: mean(values) for figure, values in found.items()}
            for rule, found in columns.items()
        },
        "intervals": {
            rule: {figure: _interval(found[figure]) for figure in TESTED}
            for rule, found in columns.items()
        },
        "tests": [test | {"p_holm": p} for test, p in zip(known, corrected, strict=True)],
        "logit": {rule: mean([each["logit"].get(rule) for each in records.values()])
                  for rule in logits},
        "by_mass": {rule: by_mass(records, rule) for rule in logits},
        "classes": dict(records),
    }  # fmt: skip


def by_mass(records: Records, rule: str) -> list[dict[str, Any]]:
    """Maps between two limits of contrast mass: how many, and means over them.

    `told` and `told_low`, the lower end of its interval over the maps, say whether maps of so
    little mass tell their own x-feature from the others.
    """
    maps = [row for each in records.values() for row in each["rules"][rule]["maps"]]
    found = []
    for low, high in pairwise(BINS):
        chosen = [row for row in maps if low <= row["mass"] < high]
        told = [row["told"] for row in chosen if row["told"] is not None]
        interval = _interval(told)
        found.append(
            {
                "from": low,
                "below": high,
                "maps": len(chosen),
                "own": mean([row["own"] for row in chosen]),
                "chance": mean([row["chance"] for row in chosen]),
                "told": mean(told),
                "told_low": None if interval is None else interval[0],
            }
        )
    return found


def rules_text(summary: Mapping[str, Any]) -> str:
    """The tables in Markdown."""
    rows = [
        [rule, *(_number(found[figure]) for figure in FIGURES)]
        for rule, found in summary["rules"].items()
    ]
    head = ["rule", "told = own - others", "own", "off the object", "pointing", "overlap", "others",
            "own on another image", "contrast mass", "seconds an image"]  # fmt: skip
    tests = [
        [test["figure"], test["rule"], f"{test['median_difference']:+.3f}",
         f"{test['higher']} of {test['classes']}", f"{test['p_holm']:.2g}"]
        for test in summary["tests"]
    ]  # fmt: skip
    masses = [
        [rule, f"{row['from']:g} to {row['below']:g}", str(row["maps"]),
         *(_number(row[name]) for name in ("own", "chance", "told", "told_low"))]
        for rule, bins in summary["by_mass"].items()
        for row in bins
    ]  # fmt: skip
    logit = ", ".join(f"{rule} {_number(value)}" for rule, value in summary["logit"].items())
    return (
        "\n\n".join(
            [
                f"# Rules for the maps of x-features, {len(summary['classes'])} classes, "
                f"R² {_number(summary['r2'])} on held-out images",
                _table(head, rows),
                f"The logit's own map with its own falls: {logit}.",
                f"## Against {PAPER}, two-sided, Holm over all",
                _table(["figure", "rule", "median difference", "higher", "p"], tests),
                "## By contrast mass",
                _table(
                    ["rule", "mass", "maps", "own", "elsewhere", "told", "at least (95%)"], masses
                ),
            ]
        )
        + "\n"
    )


def _test(
    figure: str, rule: str, values: Sequence[float | None], paper: Sequence[float | None]
) -> dict[str, Any] | None:
    pairs = [(a, b) for a, b in zip(values, paper, strict=True) if a is not None and b is not None]
    if len(pairs) < 2:
        return None
    tested = paired_wilcoxon([a for a, _ in pairs], [b for _, b in pairs])
    return {
        "figure": figure,
        "rule": rule,
        "median_difference": tested.median_difference,
        "classes": tested.pairs,
        "higher": sum(a > b for a, b in pairs),
        "p": tested.p,
    }


def _interval(values: Sequence[float | None]) -> list[float] | None:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return None
    found = bootstrap_mean(torch.tensor(known))
    return [found.low, found.high]


def _number(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.5f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
