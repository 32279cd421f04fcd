"""Markdown tables laid out like the paper's, from a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torchxnn.apps.benchmark.maps import INTEGRATED, OCCLUSION, WITHOUT_CONTRAST
from torchxnn.apps.benchmark.measure import READOUT_FIGURES
from torchxnn.apps.benchmark.over_classes import SIGNIFICANT
from torchxnn.apps.benchmark.settings import ALL_METHODS
from torchxnn.metrics.table import METRICS

NONE = "–"  # noqa: RUF001


def markdown(summary: dict[str, Any], title: str) -> str:
    """All tables of a benchmark as one Markdown text, from what `summarise` returns."""
    classes = summary["classes"]
    pictures = sum(record["positives"] for record in classes.values())
    parts = [
        f"# {title}",
        f"Means over {len(classes)} classes; maps of {pictures} images of these classes. F_reg "
        "is in logits; F_cls is the share of images whose class stays.",
        "## Faithfulness, orthogonality, locality (as paper tables 1 and 2)",
        main_table(summary),
        "## Beside the paper's figures",
        more_table(summary),
        "## Readouts that favour others, and a regression without concepts (test images)",
        readout_table(summary),
        "## Ours against others",
        _TESTS.format(tests=len(summary["tests"])),
        test_table(summary),
        "## Lasso along its path (as paper tables .4 and .6)",
        lasso_table(summary),
    ]
    if summary["masking"] is not None:
        parts += ["## Classification of masked images (as paper table .5)", masking_table(summary)]
    if summary["more"]:
        rows = [[name, number(value)] for name, value in summary["more"].items()]
        parts += ["## R² of methods without target at 25 concepts", table(["Method", "R²"], rows)]
    parts += ["## Classes (XNN)", class_table(summary)]
    return "\n\n".join(parts) + "\n"


_TESTS = (
    "Two-sided paired Wilcoxon tests over classes; p after Holm's correction over all {tests} of "
    "them. What is significantly worse than another method comes first, then what differs by no "
    "more than chance, then what is better."
)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | int | None, digits: int = 3) -> str:
    """A figure as tables show it; a dash if it does not exist."""
    return NONE if value is None else f"{value:.{digits}f}"


def _share(value: float | int | None) -> str:
    return NONE if value is None else f"{value:.2%}"


def _method_table(
    summary: dict[str, Any], head: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> str:
    """Methods as columns; each row has labels, the name of a figure, and how it is written."""
    found = {name: summary["methods"][name] for name in ALL_METHODS if name in summary["methods"]}
    return table(
        [*head, *found],
        [
            [*labels, *(show(values.get(figure)) for values in found.values())]
            for *labels, figure, show in rows
        ],
    )


def main_table(summary: dict[str, Any]) -> str:
    """The rows of paper tables 1 and 2, methods as columns."""
    rows = [
        (METRICS[figure].label, split, f"{figure}_{split}", show)
        for figure, show in (("f_reg", number), ("f_cls", _share))
        for split in ("train", "test")
    ]
    rows += [(METRICS[name].label, "", name, number) for name in ("o1", "o2", "locality")]
    note = (
        f"\n\nMaps of {', '.join(WITHOUT_CONTRAST)} are marginal, since no weight is negative: its "
        "O1, O2, correlation of maps and locality compare rules and not methods."
    )
    return _method_table(summary, ["Method", ""], rows) + note


def more_table(summary: dict[str, Any]) -> str:
    """Figures that the paper does not have, methods as columns."""
    rows = [
        (METRICS["f_reg_positives"].label, "f_reg_positives", number),
        (METRICS["f_cls_positives"].label, "f_cls_positives", _share),
        ("margin of positives, in logits", "margin", number),
        ("margin of images whose class changes", "margin_changed", number),
        (METRICS["r2"].label, "r2", number),
        (METRICS["mean_squared_correlation"].label, "mean_squared_correlation", number),
        ("the same of occlusion maps ↓", OCCLUSION, number),
        ("the same of integrated gradients ↓", INTEGRATED, number),
        ("locality of a uniform map", "locality_chance", number),
        ("locality without context ↓", "locality_without_context", number),
        ("the same of a uniform map", "locality_without_context_chance", number),
        ("relevance off the object ↓", "off_object", _share),
        ("the same of a uniform map", "off_object_chance", _share),
        ("share of relevance on void", "void_share", _share),
        ("concepts", "n_features", lambda v: number(v, 1)),
        ("active concepts, anchored ↑", "active", lambda v: number(v, 2)),
        ("dead concepts ↓", "dead", lambda v: number(v, 2)),
        ("share of the largest, anchored ↓", "top_share", _share),
        ("degenerate classes ↓", "degenerate_classes", lambda v: number(v, 0)),
        ("classes with infinite O2 ↓", "o2_infinite", lambda v: number(v, 0)),
        ("seconds per class", "seconds", lambda v: number(v, 1)),
    ]
    return _method_table(summary, ["Figure"], rows)


def test_table(summary: dict[str, Any]) -> str:
    """One line per method, figure and method compared; what lost comes first."""
    rows = [
        [
            test["method"],
            test["figure"],
            test["against"],
            _verdict(test),
            f"{test['better']} of {test['classes']}",
            f"{test['median_difference']:+.3f}",
            f"{test['p_holm']:.2g}",
        ]
        for test in sorted(summary["tests"], key=lambda test: _VERDICTS.index(_verdict(test)))
    ]
    head = ["method", "figure", "against", "", "classes where better", "median difference", "p"]
    return table(head, rows)


_VERDICTS = ("worse", "no difference shown", "better")


def _verdict(test: Mapping[str, Any]) -> str:
    if test["p_holm"] >= SIGNIFICANT:
        return _VERDICTS[1]
    return "better" if test["better"] > test["worse"] else "worse"


def readout_table(summary: dict[str, Any]) -> str:
    """Figures of other readouts beside those in the tables above."""
    rows = [
        [name, *(number(summary["methods"][name].get(figure)) for figure in READOUT_FIGURES)]
        for name in ("XNN", "SRAE", *dict.fromkeys(n.split(",")[0] for n in summary["readouts"]))
        if name in summary["methods"]
    ]
    rows += [
        [name, *(number(values[figure]) for figure in READOUT_FIGURES)]
        for name, values in summary["readouts"].items()
    ]
    head = ["Method", "R² ↑", "F_reg ↓", "F_reg on positives ↓", "F_cls on positives ↑"]
    return table(head, rows)


def lasso_table(summary: dict[str, Any]) -> str:
    """Num_x and F_reg along the path."""
    figures = ("f_reg_train", "f_reg_test", "f_reg_test_refitted")
    rows = [
        [str(row["wanted"]), number(row["num_x"], 1), *(number(row[name]) for name in figures)]
        for row in summary["lasso"]
    ]
    return table(
        ["Num_x wanted", "Num_x", "F_reg train", "F_reg test", "F_reg test, refitted"], rows
    )


def masking_table(summary: dict[str, Any]) -> str:
    """Accuracy on original and on masked images."""
    masking = summary["masking"]
    names = [key for key in masking if key not in ("kept", "original", "pictures")]
    return table(
        ["Pixels kept", *(f"by {name}" for name in names), "original"],
        [
            [str(kept), *(_share(masking[name][i]) for name in names), _share(masking["original"])]
            for i, kept in enumerate(masking["kept"])
        ],
    )


def class_table(summary: dict[str, Any]) -> str:
    """XNN on every class."""
    figures = ("r2", "f_reg_test", "f_cls_positives", "o1", "o2", "locality", "active", "dead")
    rows = []
    for target, record in summary["classes"].items():
        own = record["methods"].get("XNN", {})
        cells = [number(own.get(figure)) for figure in figures]
        rows.append([target, record["name"], str(record["positives"]), *cells])
    return table(["class", "name", "images", *figures], rows)


def tuning_text(found: dict[str, Any], targets: Sequence[int]) -> str:
    """Settings, what was chosen and why, as Markdown."""
    figures = ("r2", "f_reg", "f_cls_positives", "active", "o1", "mean_squared_correlation")
    chosen = set(found["chosen"].values())
    rows = [
        [
            f"**{name}**" if name in chosen else name,
            *(number(row[figure]) for figure in (*figures, OCCLUSION, "locality")),
            "yes" if name in found["front"] else "",
        ]
        for name, row in found["settings"].items()
    ]
    head = ["setting", *figures, OCCLUSION, "locality", "on the front"]
    lines = [
        f"- {method}: {name}, by {found['by'][method]}; {_count(found, method)} settings tried"
        + (f"; at the edge of its grid: {', '.join(edges)}" if edges else "")
        for method, name in found["chosen"].items()
        for edges in [found["edges"][method]]
    ]
    return (
        f"Means over classes {', '.join(map(str, targets))}, held-out training images. Chosen, in "
        "bold:\n\n" + "\n".join(lines) + f"\n\n{table(head, rows)}\n"
    )


def _count(found: dict[str, Any], method: str) -> int:
    return sum(row["method"] == method for row in found["settings"].values())


def planted_text(found: dict[str, Any], figures: Mapping[str, str]) -> str:
    """Figures of the planted benchmark by method, with their spread over seeds, as Markdown.

    Args:
        found: what `planted.summarise` returns.
        figures: heads of the columns by figure.
    """
    rows = [
        [name, *(_spread(row[figure], found["spread"][name][figure]) for figure in figures)]
        for name, row in found["methods"].items()
    ]
    classes = next(iter(found["seeds"].values()))
    return (
        "# Planted shapes\n\nThe logit is a known sum of known detectors. Means over "
        f"{len(found['seeds'])} seed(s) of {len(classes)} class(es) each, ± the standard deviation "
        "over seeds. Arrows point to what is better; a figure is worth what it is beyond the "
        "chance beside it. `planted` are the detectors themselves, what there is to be found; "
        "`random` are random directions, what nothing gives.\n\n"
        + table(["method", *figures.values()], rows)
        + "\n"
    )


def _spread(value: float | None, deviation: float | None) -> str:
    return number(value) + ("" if deviation is None else f" ± {deviation:.3f}")
