"""Put a report on one HTML page."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from torchxnn.apps.report.content import FeatureSheet, Report
from torchxnn.apps.report.tables import measured, provenance, shares
from torchxnn.explanations.drawing.html import data_uri, render
from torchxnn.explanations.drawing.overlay import heatmap_over, number, signed
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
    names = _feature_names(report)
    return {
        "report": report,
        "key": _key(report),
        "reasons": _reasons(report),
        "columns": [name for name, _ in measured(report)],
        "table": faithfulness_rows(measured(report)),
        "shares": shares(report, names),
        "share_source": _share_source(report),
        "cards": [explanation.card() for explanation in report.explanations],
        "sheets": [_sheet_view(s) for s in sorted(report.sheets, key=lambda s: -s.share)],
        "provenance": provenance(report, _versions(report)),
    }


def _key(report: Report) -> list[tuple[str, str]]:
    classes = [
        f"{name} (class {index})"
        for name, index in zip(report.targets, report.fit.targets, strict=True)
    ]
    return [
        ("Explained", ", ".join(classes)),
        ("Network", report.model_name),
        ("Layer", report.layer),
        ("x-features", str(report.fit.validation.n_features)),
    ]


def _reasons(report: Report) -> list[str]:
    reasons = list(report.fit.degenerate)
    if report.evaluation is not None:
        reasons += [f"on test images: {reason}" for reason in report.evaluation.degenerate]
    return reasons


def _feature_names(report: Report) -> tuple[str, ...]:
    if report.explanations:
        return report.explanations[0].feature_names
    named = {sheet.index: sheet.name for sheet in report.sheets}
    count = report.fit.validation.n_features
    return tuple(named.get(i, f"x-feature {i + 1}") for i in range(count))


def _share_source(report: Report) -> str:
    if report.evaluation is not None:
        return f"{report.evaluation.positives:,} test images of the class"
    return f"{report.fit.validation.positives:,} held-out images of the class"


def _sheet_view(sheet: FeatureSheet) -> dict[str, Any]:
    items = []
    for item in sheet.items:
        items.append(
            {
                "image": data_uri(item.image, SHEET_SIDE),
                "overlay": data_uri(heatmap_over(item.image, item.heatmap), SHEET_SIDE),
                "caption": item.caption,
                "activation": number(item.activation),
                "contribution": signed(item.contribution),
                "sign": "positive" if item.contribution > 0 else "negative",
            }
        )
    return {"name": sheet.name, "share": f"{sheet.share:.0%}", "items": items}


def _versions(report: Report) -> dict[str, str]:
    versions = {"torchxnn": __version__, "torch": torch.__version__}
    for explanation in report.explanations[:1]:
        versions |= explanation.certificate.versions
    return versions | {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
    }
