"""Means over classes, and the comparisons that the paper's claims rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torchxnn.apps.benchmark.maps import INTEGRATED, OCCLUSION
from torchxnn.apps.benchmark.measure import FIGURES, NO_FIGURES, READOUT_FIGURES
from torchxnn.apps.benchmark.over_classes import mean, paired_test, with_holm
from torchxnn.apps.benchmark.settings import ALL_METHODS

TESTED: Mapping[str, Literal["lower", "higher"]] = {
    "r2": "higher",
    "f_reg_positives": "lower",
    "active": "higher",
    "o1": "lower",
    "o2": "lower",
    "mean_squared_correlation": "lower",
    OCCLUSION: "lower",
    INTEGRATED: "lower",
    "locality": "lower",
    "locality_without_context": "lower",
    "off_object": "lower",
}
"""Figures that are tested, and which side is better."""

COMPARED = ("SRAE", "SRAE-R", "NN", "SAE", "CAE", "Lasso", "Z", "1-heatmap")
OURS = ("XNN", "SRAE", "SRAE-R")

Records = Mapping[str, Mapping[str, Any]]
"""Records of classes by class index."""


def summarise(records: Records) -> dict[str, Any]:
    """Everything `results.json` holds, from the records that `run_benchmark` returns.

    Returns:
        `methods`: means over classes, degenerate classes counted; `classes`: the same per class;
        `tests`: two-sided paired Wilcoxon tests over classes of one of `OURS` against others, with
        Holm's correction over all of them; `lasso`, `masking`, `more` and `readouts`: the other
        tables. None where a figure does not exist.
    """
    names = [name for name in ALL_METHODS if any(name in r["methods"] for r in records.values())]
    return {
        "methods": {name: _mean_method(name, records) for name in names},
        "classes": {
            target: {
                "name": record["name"],
                "positives": record["positives"],
                "seconds": record["seconds"],
                "methods": {
                    name: {figure: values.get(figure) for figure in FIGURES}
                    for name, values in record["methods"].items()
                },
            }
            for target, record in records.items()
        },
        "tests": _tests([name for name in OURS if name in names], records),
        "lasso": _lasso_rows(records),
        "masking": _masking_rows(records),
        "more": _mean_more(records),
        "readouts": _mean_readouts(records),
    }


def _mean_method(name: str, records: Records) -> dict[str, Any]:
    rows = [record["methods"].get(name, NO_FIGURES) for record in records.values()]
    found: dict[str, Any] = {figure: mean([row.get(figure) for row in rows]) for figure in FIGURES}
    known = [count for row in rows if (count := row.get("degenerate_classes")) is not None]
    found["degenerate_classes"] = sum(known) if known else None
    # O2 is infinite, hence null, where two maps always coincide; leaving it out flatters a mean.
    found["o2_infinite"] = sum(row.get("o1") is not None and row.get("o2") is None for row in rows)
    return found


def _tests(ours: Sequence[str], records: Records) -> list[dict[str, Any]]:
    """All tests that a table shows; they are one family, whose p are corrected together."""
    return with_holm([
        {"method": mine, "figure": figure, "against": other, **tested}
        for mine in ours
        for figure in TESTED
        for other in COMPARED
        if other not in OURS[: OURS.index(mine) + 1]  # each pair once
        if (tested := _test(figure, mine, other, records)) is not None
    ])  # fmt: skip


def _test(figure: str, mine: str, other: str, records: Records) -> dict[str, Any] | None:
    first, second = (
        [record["methods"].get(name, NO_FIGURES).get(figure) for record in records.values()]
        for name in (mine, other)
    )
    tested = paired_test(first, second)
    if tested is None:
        return None
    lower, higher = tested.pop("lower"), tested.pop("higher")
    better, worse = (lower, higher) if TESTED[figure] == "lower" else (higher, lower)
    return tested | {"better": better, "worse": worse}


def _lasso_rows(records: Records) -> list[dict[str, Any]]:
    sizes = {size for record in records.values() for size in record["lasso"]}
    return [
        {"wanted": int(size)}
        | {
            key: mean([record["lasso"].get(size, {}).get(key) for record in records.values()])
            for key in ("num_x", "f_reg_train", "f_reg_test", "f_reg_test_refitted")
        }
        for size in sorted(sizes, key=int)
    ]


def _masking_rows(records: Records) -> dict[str, Any] | None:
    """Accuracy over all images: classes count by the images that they have."""
    measured = [r for r in records.values() if r.get("masking") and r["positives"]]
    if not measured:
        return None
    total = sum(record["positives"] for record in measured)

    def pooled(values: Sequence[float | int]) -> float:
        weights = [record["positives"] for record in measured]
        return sum(v * w for v, w in zip(values, weights, strict=True)) / total

    kept = measured[0]["masking"]["kept"]
    names = [key for key in measured[0]["masking"] if key not in ("kept", "original")]
    return {
        "kept": kept,
        "pictures": total,
        "original": pooled([record["masking"]["original"] for record in measured]),
    } | {
        name: [
            pooled([record["masking"][name][place] for record in measured])
            for place in range(len(kept))
        ]
        for name in names
    }


def _mean_more(records: Records) -> dict[str, Any]:
    names = {name for record in records.values() for name in record["more"]}
    return {
        name: mean([record["more"].get(name) for record in records.values()])
        for name in sorted(names)
    }


def _mean_readouts(records: Records) -> dict[str, dict[str, float | None]]:
    names = dict.fromkeys(name for record in records.values() for name in record["readouts"])
    return {
        name: {
            figure: mean(
                [record["readouts"].get(name, {}).get(figure) for record in records.values()]
            )
            for figure in READOUT_FIGURES
        }
        for name in names
    }
