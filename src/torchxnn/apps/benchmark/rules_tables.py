"""Means, paired tests and tables of the comparison of rules, and from which mass maps tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torchxnn.apps.benchmark.over_classes import interval_of_mean, mean, paired_test, with_holm
from torchxnn.apps.benchmark.rules import ABSORBING
from torchxnn.apps.benchmark.tables import number, table
from torchxnn.attribution.methods import PAPER

TESTED = ("told", "own", "truth", "off", "pointing", "overlap")
"""Figures in which every rule is tested against the one that it varies, or that of the paper."""

FIGURES = (*TESTED, "others", "chance", "mass", "seconds")

BINS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
"""Limits of contrast mass between which maps are counted together."""

Records = Mapping[str, Mapping[str, Any]]


def summarise_rules(records: Records) -> dict[str, Any]:
    """Everything that `rules.json` holds, from what `run_rules` returns.

    Returns:
        `rules`: means over classes by rule; `intervals`: their bootstrap intervals over classes
        (95%); `tests`: Wilcoxon signed-rank tests over classes of every rule `against` another, the
        one that it varies if that is among the rules and otherwise that of the paper; two-sided, p
        after Holm over all of them; `logit`: mean correlation of the logit's
        own map with its falls; `by_mass`: maps of contrastive rules by their contrast mass.
    """
    names = list(dict.fromkeys(rule for each in records.values() for rule in each["rules"]))
    columns = {
        rule: {
            figure: [each["rules"][rule][figure] for each in records.values()] for figure in FIGURES
        }
        for rule in names
    }
    pairs = [(rule, base) for rule in names if (base := _tested_against(rule, names)) is not None]
    tests = [
        {"figure": figure, "rule": rule, "against": base, **tested}
        for figure in TESTED
        for rule, base in pairs
        if (tested := paired_test(columns[rule][figure], columns[base][figure])) is not None
    ]
    logits = list(dict.fromkeys(rule for each in records.values() for rule in each["logit"]))
    return {
        "r2": mean([each["r2"] for each in records.values()]),
        "rules": {
            rule: {figure: mean(values) for figure, values in found.items()}
            for rule, found in columns.items()
        },
        "intervals": {
            rule: {figure: interval_of_mean(found[figure]) for figure in TESTED}
            for rule, found in columns.items()
        },
        "tests": with_holm(tests),
        "logit": {rule: mean([each["logit"].get(rule) for each in records.values()])
                  for rule in logits},
        "by_mass": {rule: by_mass(records, rule) for rule in logits},
        "classes": dict(records),
    }  # fmt: skip


def _tested_against(rule: str, names: Sequence[str]) -> str | None:
    for base in (ABSORBING.get(rule), PAPER):
        if base in names:
            return base if base != rule else None
    return None


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
        limits = interval_of_mean(told)
        found.append(
            {
                "from": low,
                "below": high,
                "maps": len(chosen),
                "own": mean([row["own"] for row in chosen]),
                "chance": mean([row["chance"] for row in chosen]),
                "told": mean(told),
                "told_low": None if limits is None else limits[0],
            }
        )
    return found


def rules_text(summary: Mapping[str, Any]) -> str:
    """The tables in Markdown."""
    rows = [
        [rule, *(_number(found[figure]) for figure in FIGURES)]
        for rule, found in summary["rules"].items()
    ]
    head = ["rule", "told = own - others", "own", "truth of parts", "off the object", "pointing",
            "overlap", "others", "own on another image", "contrast mass",
            "seconds an image"]  # fmt: skip
    tests = [
        [test["figure"], test["rule"], test["against"], f"{test['median_difference']:+.3f}",
         f"{test['higher']} of {test['classes']}", f"{test['p']:.2g}", f"{test['p_holm']:.2g}"]
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
                table(head, rows),
                f"The logit's own map with its own falls: {logit}.",
                "## Tests over classes, two-sided",
                table(
                    ["figure", "rule", "against", "median difference", "higher", "p", "Holm's p"],
                    tests,
                ),
                "## By contrast mass",
                table(
                    ["rule", "mass", "maps", "own", "elsewhere", "told", "at least (95%)"], masses
                ),
            ]
        )
        + "\n"
    )


def _number(value: float | None) -> str:
    """With more digits where it is small, as contrast mass is."""
    return number(value, 5 if value and abs(value) < 0.01 else 3)
