"""The tables of the report, each figure with its meaning and direction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torchxnn.apps.report.content import Report
from torchxnn.explanations.drawing.overlay import number
from torchxnn.metrics.faithfulness import ACTIVE_SHARE, MINIMUM_R2, Faithfulness


@dataclass(frozen=True)
class _Figure:
    name: str
    meaning: str
    better: str
    text: Callable[[Faithfulness], str]
    bad: Callable[[Faithfulness], bool] = lambda _: False


_FIGURES = (
    _Figure(
        "F_reg",
        "How far the reproduced logit is from the network's own, on average, in logits.",
        "lower",
        lambda f: f"{f.f_reg:.3g}",
    ),
    _Figure(
        "F_reg on the positives",
        "The same, on pictures of the explained class alone, which is where it counts.",
        "lower",
        lambda f: f"{f.f_reg_positives:.3g}",
    ),
    _Figure(
        "F_cls",
        "Share of pictures that keep their predicted class when the reproduced logit replaces the "
        "network's. Other classes dominate it, so read the next line too.",
        "higher",
        lambda f: f"{f.f_cls:.1%}",
    ),
    _Figure(
        "F_cls on the positives",
        "The same, on pictures of the explained class alone.",
        "higher",
        lambda f: f"{f.f_cls_positives:.1%}",
    ),
    _Figure(
        "R²",
        "Part of the logit's variation over all pictures that is reproduced; 1 is all of it. "
        f"Below {MINIMUM_R2} on held-out pictures the fit is degenerate.",
        "higher",
        lambda f: number(round(f.r2, 3)) if abs(f.r2) < 0.1 else f"{f.r2:.3f}",
        lambda f: not f.r2 >= MINIMUM_R2,
    ),
    _Figure(
        "Active x-features",
        f"x-features with at least {ACTIVE_SHARE:.0%} of the contributions. Fewer than 2 is no "
        "explanation by several concepts.",
        "2 or more",
        lambda f: f"{f.active} of {f.n_features}",
        lambda f: f.n_features > 1 and f.active < 2,
    ),
    _Figure(
        "Dead x-features",
        "x-features that are 0 on every positive and so explain nothing.",
        "lower",
        lambda f: f"{f.dead}",
        lambda f: f.dead > 0 and f.active < 2,
    ),
    _Figure(
        "Pictures",
        "How many were used; of these positives, pictures of the explained class.",
        "",
        lambda f: f"{f.images:,} ({f.positives:,})",
    ),
)


def measured(report: Report) -> list[tuple[str, Faithfulness]]:
    """The columns of the faithfulness table: (heading, figures)."""
    columns = [("Fit (train)", report.fit.train), ("Held-out", report.fit.validation)]
    if report.evaluation is not None:
        columns.append(("Test", report.evaluation))
    return columns


def faithfulness_table(report: Report) -> list[dict[str, Any]]:
    """Rows of the faithfulness table."""
    return [
        {
            "name": figure.name,
            "meaning": figure.meaning,
            "better": figure.better,
            "cells": [
                {"text": figure.text(faithfulness), "bad": figure.bad(faithfulness)}
                for _, faithfulness in measured(report)
            ],
        }
        for figure in _FIGURES
    ]


def shares(report: Report, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Per target the x-features by decreasing share of the contributions."""
    faithfulness = report.evaluation or report.fit.validation
    blocks = []
    for k, (target, row) in enumerate(zip(report.targets, faithfulness.share, strict=True)):
        ranked = sorted(range(len(row)), key=lambda i: -row[i])
        items = [
            {
                "name": names[i],
                "percent": round(100 * row[i], 2),
                "text": f"{row[i]:.0%}",
                **_direction(report, k, i),
                "note": _note(row[i]),
            }
            for i in ranked
        ]
        blocks.append({"target": target, "items": items})
    return blocks


def _direction(report: Report, target: int, feature: int) -> dict[str, str]:
    """Whether an x-feature speaks for or against: E >= 0, so the sign is the same everywhere."""
    index = report.fit.targets[target]
    for explanation in report.explanations:
        if index in explanation.targets:
            value = float(explanation.contributions[explanation.targets.index(index), feature])
            if value:
                return _FOR if value > 0 else _AGAINST
    return {"sign": "share", "direction": ""}


_FOR = {"sign": "positive", "direction": "+ for"}
_AGAINST = {"sign": "negative", "direction": "\N{MINUS SIGN} against"}


def _note(share: float) -> str:
    if share == 0:
        return "none"
    return "" if share >= ACTIVE_SHARE else "not active"


def provenance(report: Report, versions: dict[str, str]) -> list[tuple[str, str]]:
    """Versions, what was run and its settings."""
    fit = report.fit
    positives = {"label": "their label", "prediction": "the network's prediction"}
    rows = [*report.provenance, *versions.items()]
    rows += [
        ("positives found by", positives.get(fit.positives_by, fit.positives_by)),
        ("epochs", str(fit.epochs)),
        ("trials", str(fit.trials)),
        ("seconds of fitting", f"{fit.seconds:.0f}"),
    ]
    losses = asdict(fit.validation_losses)
    rows += [(f"held-out loss: {name.replace('_', ' ')}", f"{v:.4g}") for name, v in losses.items()]
    return rows + [(name.replace("_", " "), _setting(v)) for name, v in asdict(fit.config).items()]


def _setting(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(str(item) for item in value)
    return (
        "none"
        if value is None
        else "yes"
        if value is True
        else "no"
        if value is False
        else str(value)
    )
