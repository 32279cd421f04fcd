"""The tables of the report."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torchxnn.apps.report.content import Report
from torchxnn.explanations.drawing.overlay import sign_of
from torchxnn.metrics.faithfulness import ACTIVE_SHARE, Faithfulness


def measured(report: Report) -> list[tuple[str, Faithfulness]]:
    """The columns of the faithfulness table: (heading, figures)."""
    columns = [("Fit (train)", report.fit.train), ("Held-out", report.fit.validation)]
    if report.evaluation is not None:
        columns.append(("Test", report.evaluation))
    return columns


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
                direction = "+ for" if value > 0 else "\N{MINUS SIGN} against"
                return {"sign": sign_of(value), "direction": direction}
    return {"sign": "share", "direction": ""}


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
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))
