"""Faithfulness against what the maps are like, setting by setting: the Pareto front of a tuning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from torchxnn.apps.benchmark.tune import JUDGED, pareto_front
from torchxnn.explanations.drawing.overlay import INK, MUTED

_PANELS = {
    JUDGED: "mean squared correlation of occlusion maps",
    "mean_squared_correlation": "the same of excitation backprop",
    "locality": "locality",
}
_OURS, _FRONT, _NN = "#0072B2", "#D55E00", "#555555"


def front_figure(found: Mapping[str, Any]) -> Figure:
    """R^2 against two correlations of maps and locality, of `run_tuning`; lower right is better.

    Settings have numbers, which the key below explains. A line joins those that no other setting
    beats in R^2 and in the panel's own figure.
    """
    settings = {name: row for name, row in found["settings"].items() if row["r2"] is not None}
    numbers = {name: place for place, name in enumerate(settings)}
    figure = Figure(figsize=(11, 4.2 + 0.2 * (len(settings) // 3)), layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, 3), _PANELS.items(), strict=True):
        _draw_panel(axes, {n: r for n, r in settings.items() if r[key] is not None}, key, numbers)
        axes.set_xlabel("R² (higher is better)", color=INK)
        axes.set_ylabel(f"{label} (lower is better)", color=INK)
    chosen = set(found["chosen"].values())
    lines = [
        f"{number}  {name}" + (" (chosen)" if name in chosen else "")
        for name, number in numbers.items()
    ]
    rows = max(1, -(-len(lines) // 3))
    lines += [""] * (-len(lines) % rows)
    columns = ["\n".join(lines[i : i + rows]) for i in range(0, len(lines), rows)]
    figure.supxlabel(" ", fontsize=9 * (rows + 1))  # keeps room for the key
    for place, text in enumerate(columns):
        figure.text(0.05 + 0.32 * place, 0.01, text, fontsize=9, color=INK, va="bottom")
    return figure


def _draw_panel(
    axes: Axes, rows: Mapping[str, Mapping[str, Any]], key: str, numbers: Mapping[str, int]
) -> None:
    points = {name: (row["r2"], row[key]) for name, row in rows.items()}
    ours = {name: row for name, row in rows.items() if name != "NN"}
    front = sorted(points[name] for name in pareto_front(ours, key))
    if front:
        axes.plot([x for x, _ in front], [y for _, y in front], color=_FRONT, lw=1.2, zorder=1)
    for name, (x, y) in points.items():
        colour = _NN if name == "NN" else _FRONT if (x, y) in front else _OURS
        axes.scatter(x, y, s=110, color=colour, zorder=2, marker="s" if name == "NN" else "o")
        axes.text(
            x, y, str(numbers[name]), ha="center", va="center", size=7.5, color="white", zorder=3
        )
    axes.margins(0.12)
    axes.grid(color="#e4e4e4", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
