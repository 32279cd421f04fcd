"""Markdown tables laid out like the paper's, from a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
        "## Is ours lower? One-sided paired Wilcoxon tests over classes",
        test_table(summary),
        "## Lasso along its path (as paper tables .4 and .6)",
        lasso_table(summary),
    ]
    if summary["masking"] is not None:
        parts += ["## Classification of masked images (as paper table .5)", masking_table(summary)]
    if summary["more"]:
        rows = [[name, number(value)] for name, value in summary["more"].items()]
        parts += ["## R² of methods without target at 25 concepts", table(["Method", "R²"], rows)]
    parts += ["## Classes (SRAE)", class_table(summary)]
    return "\n\n".join(parts) + "\n"


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
    return _method_table(summary, ["Method", ""], rows)


def more_table(summary: dict[str, Any]) -> str:
    """Figures that the paper does not have, methods as columns."""
    rows = [
        (METRICS["f_reg_positives"].label, "f_reg_positives", number),
        (METRICS["f_cls_positives"].label, "f_cls_positives", _share),
        ("margin of positives, in logits", "margin", number),
        ("margin of images whose class changes", "margin_changed", number),
        (METRICS["r2"].label, "r2", number),
        (METRICS["mean_squared_correlation"].label, "mean_squared_correlation", number),
        ("locality of a uniform map", "locality_chance", number),
        ("locality without context ↓", "locality_without_context", number),
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
    """One line per figure and method compared."""
    rows = [
        [
            mine,
            figure,
            other,
            f"{tested['p']:.2g}",
            f"{tested['lower']} of {tested['classes']}",
            f"{tested['median_difference']:+.3f}",
        ]
        for mine, figures in summary["tests"].items()
        for figure, others in figures.items()
        for other, tested in others.items()
    ]
    return table(
        ["method", "figure", "against", "p", "classes where lower", "median difference"], rows
    )


def lasso_table(summary: dict[str, Any]) -> str:
    """Num_x and F_reg along the path."""
    figures = ("f_reg_train", "f_reg_test")
    rows = [
        [str(row["wanted"]), number(row["num_x"], 1), *(number(row[name]) for name in figures)]
        for row in summary["lasso"]
    ]
    return table(["Num_x wanted", "Num_x", "F_reg train", "F_reg test"], rows)


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
    """SRAE on every class."""
    figures = ("r2", "f_reg_test", "f_cls_positives", "o1", "o2", "locality", "active", "dead")
    rows = []
    for target, record in summary["classes"].items():
        own = record["methods"].get("SRAE", {})
        cells = [number(own.get(figure)) for figure in figures]
        rows.append([target, record["name"], str(record["positives"]), *cells])
    return table(["class", "name", "images", *figures], rows)


def tuning_text(found: dict[str, Any], targets: Sequence[int]) -> str:
    """Settings, what was chosen and why, as Markdown."""
    figures = ("r2", "f_reg", "f_cls_positives", "active", "o1", "o2", "mean_squared_correlation")
    rows = [
        [
            name + (" (chosen)" if name == found["chosen"] else ""),
            *(number(row[figure]) for figure in (*figures, "locality")),
            "yes" if name in found["front"] else "",
        ]
        for name, row in found["settings"].items()
    ]
    head = ["setting", *figures, "locality", "on the front"]
    return (
        f"Means over classes {', '.join(map(str, targets))}, held-out training images; chosen by "
        f"{found['by']}.\n\n{table(head, rows)}\n"
    )


def stability_text(found: dict[str, Any]) -> str:
    """Matched correlation by method, as Markdown."""
    rows = [
        [name, number(row["correlation"]), number(row["chance"])]
        for name, row in found["methods"].items()
    ]
    return (
        f"{found['fits']} fits per class, {len(found['classes'])} classes.\n\n"
        + table(["method", "correlation of matched x-features ↑", "of shuffled values"], rows)
        + "\n"
    )


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
