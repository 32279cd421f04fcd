"""Means over classes with intervals, and two-sided paired tests of today's default."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from torchxnn.apps.benchmark.over_classes import interval_of_mean, mean, paired_test, with_holm
from torchxnn.apps.benchmark.summary import Records
from torchxnn.metrics.funnybirds_scores import OfficialTally, official_scores
from torchxnn.metrics.intervals import bootstrap_counts, percentile_interval
from torchxnn.storage.artifact import structure

TESTED = (
    *("r2", "intervention_r2", "specificity", "recovery", "coverage_own", "map_truth"),
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
    intervals: dict[str, dict[str, Any]] = {
        name: {
            figure: interval_of_mean(column)
            for figure, column in columns.items()
            if figure in TESTED
        }
        for name, columns in values.items()
    }
    for name, (scores, interval) in _official(counted).items():
        methods.setdefault(name, {}).update(scores)
        intervals.setdefault(name, {})["official_mean"] = interval
    return {
        "methods": methods,
        "intervals": intervals,
        "rules": rules,
        "refits": _refits(records),
        "tests": _tests(values),
        "composition_error": mean([each["composition_error"] for each in counted.values()]),
        "not_fitted": {
            name: f"{record['name']}: {why}"
            for record in records.values()
            for name, why in record.get("not_fitted", {}).items()
        },
        "counted": {
            name: sum(name in record["methods"] for record in records.values()) for name in names
        },
        "concepts": _concepts(records),
        "not_drawn": {
            rule: why for each in counted.values() for rule, why in each["not_drawn"].items()
        },
        "classes": dict(records),
    }


RESAMPLES = 200
"""Of classes, for the intervals of the scores of the authors' protocol."""


def _official(counted: Records) -> dict[str, tuple[dict[str, float | None], list[float] | None]]:
    """By method the scores of the authors' protocol over the images of all classes.

    Their threshold is one for all images, so classes are resampled and their tallies added.

    Returns:
        The scores, and a bootstrap interval over classes of `official_mean`.
    """
    tallies: dict[str, list[OfficialTally]] = {}
    for record in counted.values():
        for name, found in record["tallies"].items():
            tallies.setdefault(name, []).append(structure(found, OfficialTally, name))
    found = {}
    for name, each in tallies.items():
        scores = {k: v if math.isfinite(v) else None for k, v in _scores(each).items()}
        draws = bootstrap_counts(len(each), RESAMPLES, 0).long()
        means = [
            _scores([each[i] for i in torch.arange(len(each)).repeat_interleave(row).tolist()])
            for row in draws
        ]
        known = torch.tensor([mean["official_mean"] for mean in means]).double()
        interval = None
        if len(each) > 1 and scores["official_mean"] is not None:
            limits = percentile_interval(known, 0.95, len(each))
            interval = [limits.low, limits.high]
        found[name] = scores, interval
    return found


def _scores(tallies: Sequence[OfficialTally]) -> dict[str, float]:
    total = tallies[0]
    for tally in tallies[1:]:
        total = total + tally
    return official_scores(total)


def _values(rows: Sequence[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Figures by name, one for every class, None where a class has none."""
    figures = dict.fromkeys(figure for row in rows for figure in row)
    return {figure: [row.get(figure) for row in rows] for figure in figures}


def _concepts(records: Records) -> dict[str, float | None]:
    """Mean number of concepts by method; what is fitted to labels has one per part."""
    names = dict.fromkeys(name for record in records.values() for name in record["concepts"])
    return {
        name: mean([record["concepts"].get(name) for record in records.values()]) for name in names
    }


def _refits(records: Records) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for figure in ("recovery", "specificity"):
        known = [
            torch.tensor([v for v in record["refits"][figure] if v is not None]).double()
            for record in records.values()
        ]
        some = [each for each in known if len(each)]
        found[figure] = {
            "mean": mean([float(each.mean()) for each in some]),
            "deviation": mean([float(each.std()) for each in some if len(each) > 1]),
            "fits": max((len(each) for each in some), default=0),
        }
    return found


def _tests(values: dict[str, dict[str, list[float | None]]]) -> list[dict[str, Any]]:
    ours = values.get(DEFAULT, {})
    return with_holm(
        [
            {"figure": figure, "other": other, **tested}
            for figure in TESTED
            for other, theirs in values.items()
            if other != DEFAULT and figure in ours and figure in theirs
            if (tested := paired_test(ours[figure], theirs[figure])) is not None
        ]
    )
