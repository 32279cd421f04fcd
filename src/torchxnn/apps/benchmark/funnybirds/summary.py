"""Means over classes with intervals, and two-sided paired tests of today's default."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from torchxnn.apps.benchmark.summary import Records, mean
from torchxnn.metrics.funnybirds_protocol import OfficialTally, official_scores
from torchxnn.metrics.intervals import bootstrap_mean, holm_adjust, paired_wilcoxon
from torchxnn.storage.artifact import structure

TESTED = (
    *("r2", "intervention_r2", "specificity", "recovery_gain", "coverage_own", "map_truth"),
    *("background", "told"),
)
"""Figures in which today's default is tested against every other method."""

DEFAULT = "XNN"


def summarise(records: Records, counted: Records) -> dict[str, Any]:
    """Everything `results.json` holds, from the two things that `run_funnybirds` returns.

    Returns:
        `methods`: means over classes by method and figure; `intervals`: their bootstrap intervals
        over classes (95%); `rules`: means by method, rule and figure of maps; `refits`: mean and
        standard deviation over refits, averaged over classes; `tests`: Wilcoxon signed-rank tests
        over classes, two-sided, p after Holm over all of them; `composition_error` of the images
        that the authors' protocol needs and nobody rendered, and `not_drawn`, which maps it lacks
        and why; `classes`: the records. None where a figure does not exist.
    """
    names = list(dict.fromkeys(name for record in records.values() for name in record["methods"]))
    values = {name: _values([each["methods"].get(name, {}) for each in records.values()])
              for name in names}  # fmt: skip
    rules = {
        name: {
            rule: {
                figure: mean(column)
                for figure, column in _values(
                    [record["rules"][name].get(rule, {}) for record in records.values()]
                ).items()
            }
            for rule in dict.fromkeys(
                rule for record in records.values() for rule in record["rules"][name]
            )
        }
        for name in dict.fromkeys(name for record in records.values() for name in record["rules"])
    }
    methods: dict[str, dict[str, Any]] = {
        name: {figure: mean(column) for figure, column in columns.items()}
        for name, columns in values.items()
    }
    for name, scores in _official(counted).items():
        methods.setdefault(name, {}).update(scores)
    return {
        "methods": methods,
        "intervals": {
            name: {
                figure: _interval(column) for figure, column in columns.items() if figure in TESTED
            }
            for name, columns in values.items()
        },
        "rules": rules,
        "refits": _refits(records),
        "tests": _tests(values),
        "composition_error": mean([each["composition_error"] for each in counted.values()]),
        "not_drawn": {
            rule: why for each in counted.values() for rule, why in each["not_drawn"].items()
        },
        "classes": dict(records),
    }


def _official(counted: Records) -> dict[str, dict[str, float | None]]:
    """The scores of the authors' protocol over the images of all classes, by method."""
    tallies: dict[str, OfficialTally] = {}
    for record in counted.values():
        for name, found in record["tallies"].items():
            tally = structure(found, OfficialTally, name)
            tallies[name] = tallies[name] + tally if name in tallies else tally
    return {
        name: {
            figure: score if math.isfinite(score) else None
            for figure, score in official_scores(tally).items()
        }
        for name, tally in tallies.items()
    }


def _values(rows: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Figures by name, one for every class, None where a class has none.

    `recovery_gain` is recovery over what shuffled parts reach, which is far above 1 / P and highest
    for methods that hardly move: only the difference compares them.
    """
    found: dict[str, list[float | None]] = {
        figure: [row.get(figure) for row in rows]
        for figure in dict.fromkeys(figure for row in rows for figure in row)
    }
    if "recovery" in found:
        found["recovery_gain"] = [
            None if own is None or chance is None else own - chance
            for own, chance in zip(found["recovery"], found["recovery_chance"], strict=True)
        ]
    return found


def _interval(column: Sequence[float | None]) -> list[float] | None:
    known = [value for value in column if value is not None]
    if len(known) < 2:
        return None
    found = bootstrap_mean(torch.tensor(known))
    return [found.low, found.high]


def _refits(records: Records) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for figure in ("recovery", "specificity"):
        known = [
            torch.tensor([v for v in record["refits"][figure] if v is not None]).double()
            for record in records.values()
        ]
        several = [each for each in known if len(each) > 1]
        found[figure] = {
            "mean": mean([float(each.mean()) for each in several]),
            "deviation": mean([float(each.std()) for each in several]),
            "fits": max((len(each) for each in several), default=0),
        }
    return found


def _tests(values: dict[str, dict[str, list[float | None]]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for figure in TESTED:
        ours = values.get(DEFAULT, {}).get(figure, [])
        for other in values:
            theirs = values[other].get(figure, [])
            pairs = [
                (a, b)
                for a, b in zip(ours, theirs, strict=False)
                if a is not None and b is not None
            ]
            if other == DEFAULT or len(pairs) < 2:
                continue
            tested = paired_wilcoxon([a for a, _ in pairs], [b for _, b in pairs])
            found.append(
                {
                    "figure": figure,
                    "other": other,
                    "median_difference": tested.median_difference,
                    "classes": tested.pairs,
                    "higher": sum(a > b for a, b in pairs),
                    "p": tested.p,
                }
            )
    corrected = holm_adjust([test["p"] for test in found])
    return [test | {"p_holm": p} for test, p in zip(found, corrected, strict=True)]
