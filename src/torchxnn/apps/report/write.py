"""Put a report on one HTML page."""

from __future__ import annotations

import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from torchxnn.apps.report.content import Report
from torchxnn.explanations.drawing.html import render
from torchxnn.explanations.drawing.overlay import heatmap_over
from torchxnn.explanations.fit_facts import fit_facts
from torchxnn.explanations.volume import SLICES
from torchxnn.metrics.faithfulness import ACTIVE_SHARE, Faithfulness
from torchxnn.metrics.table import faithfulness_rows
from torchxnn.storage.artifact import __version__
from torchxnn.storage.files import replace_file

_PAGE = Path(__file__).parent / "templates" / "report.html.j2"

SHEET_SIDE = 192  # pixels


def write_report(report: Report, path: Path | str) -> None:
    """Write a report as one HTML file that opens offline and requests nothing.

    The file appears whole or not at all: it is written beside `path` and renamed. Missing parent
    folders are made.

    Raises:
        OSError: The file cannot be written; an old one is as it was.
    """
    replace_file(Path(path), render(_PAGE, **_context(report)))


def _context(report: Report) -> dict[str, Any]:
    measured = [("Fit (train)", report.fit.train), ("Held-out", report.fit.validation)]
    reasons = list(report.fit.degenerate)
    if report.evaluation is not None:
        measured.append(("Test", report.evaluation))
        reasons += [f"on test images: {reason}" for reason in report.evaluation.degenerate]
    return {
        "report": report,
        "key": _key(report),
        "reasons": reasons,
        "columns": [name for name, _ in measured],
        "table": faithfulness_rows(measured),
        "shown": measured[-1][1],
        "shares": _shares(report, measured[-1][1]),
        "active_share": ACTIVE_SHARE,
        "cards": [explanation.card() for explanation in report.explanations],
        "over": heatmap_over,
        "side": SHEET_SIDE * (1 if report.unit == "image" else SLICES),
        "provenance": _provenance(report),
    }


def _key(report: Report) -> list[tuple[str, str]]:
    explained = [
        f"{name} ({'output' if report.noun == 'value' else report.noun} {index})"
        for name, index in zip(report.targets, report.fit.targets, strict=True)
    ]
    key = [
        ("Explained", ", ".join(explained)),
        ("Network", report.model_name),
        ("Layer", report.layer),
        ("x-features", str(report.fit.validation.n_features)),
    ]
    key += fit_facts(_feature_names(report), report.fit)
    found = report.orthogonality
    if found is not None:
        key.append(
            (
                "Overlap of the heatmaps",
                f"mean squared correlation {found.mean_squared_correlation:.2f}, O1 {found.o1:.2f} "
                f"of {found.alive} x-features on {found.maps} {report.unit}s {report.of_what} "
                "(0 is best)",
            )
        )
    return key


def _shares(report: Report, shown: Faithfulness) -> list[tuple[str, list[dict[str, Any]]]]:
    """Per target the x-features by decreasing share of the contributions."""
    names, mean = _feature_names(report), shown.mean_contribution
    blocks = []
    for target, row in enumerate(shown.share):
        ranked = sorted(range(len(row)), key=lambda i: -row[i])
        items = [
            {"name": names[i], "share": row[i], "value": mean[target][i] if mean else 0.0}
            for i in ranked
        ]
        blocks.append((report.targets[target], items))
    return blocks


def _feature_names(report: Report) -> tuple[str, ...]:
    if report.explanations:
        return report.explanations[0].feature_names
    named = {sheet.index: sheet.name for sheet in report.sheets}
    count = report.fit.validation.n_features
    return tuple(named.get(i, f"x-feature {i + 1}") for i in range(count))


def _provenance(report: Report) -> list[tuple[str, str]]:
    """Versions, what was run and its settings."""
    fit = report.fit
    versions = {"torchxnn": __version__, "torch": torch.__version__}
    for explanation in report.explanations[:1]:
        versions |= explanation.certificate.versions
    versions["python"] = platform.python_version()
    versions["platform"] = f"{platform.system()} {platform.machine()}"
    positives = {"label": "their label", "prediction": "the network's prediction"}
    rows = [
        *report.provenance,
        *versions.items(),
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
