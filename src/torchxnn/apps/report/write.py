"""Put a report on one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torchxnn.apps.report.content import Report
from torchxnn.apps.report.provenance import provenance, settings
from torchxnn.apps.run_card import read_card, write_card
from torchxnn.explanations.card import Card
from torchxnn.explanations.drawing.html import render
from torchxnn.explanations.drawing.overlay import heatmap_over
from torchxnn.explanations.fit_facts import fit_facts
from torchxnn.explanations.image import Explanation
from torchxnn.explanations.volume import SLICES, VolumeExplanation
from torchxnn.metrics.faithfulness import ACTIVE_SHARE, Faithfulness
from torchxnn.metrics.table import faithfulness_rows
from torchxnn.storage.files import replace_file
from torchxnn.storage.paths import Location
from torchxnn.xnn import XNN

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


def write_with_card(report: Report, saved: Location, xnn: XNN, path: Path) -> list[str]:
    """Write a report and beside it the card of its XNN, which says what the page says.

    Args:
        report: of the saved XNN.
        saved: folder of the XNN.
        xnn: that the report was built with, as it was loaded from there or saved there.
        path: of the page.

    Returns:
        The names of the files of the card, which the page links.

    Raises:
        ModelError: another XNN is saved there by now, or its folder is damaged.
        OSError: a file cannot be written.
    """
    found = report.measured(xnn.weights_sha256)
    files = write_card(read_card(saved, found, xnn.names), path)
    write_report(replace(report, card=files), path)
    return [name for _, name in files]


def _context(report: Report) -> dict[str, Any]:
    measured = [("Fit (train)", report.fit.train), ("Held-out", report.fit.validation)]
    reasons = list(report.fit.degenerate)
    if report.evaluation is not None:
        measured.append(("Test", report.evaluation))
        reasons += [f"on test images: {reason}" for reason in report.evaluation.degenerate]
    key = _key(report)
    return {
        "report": report,
        "key": key,
        "overlap": _overlap(report),
        "reasons": reasons,
        "columns": [name for name, _ in measured],
        "table": faithfulness_rows(measured),
        "shown": measured[-1][1],
        "shares": _shares(report, measured[-1][1]),
        "active_share": ACTIVE_SHARE,
        "cards": _cards(report, key),
        "certificate": _certificate(report),
        "over": heatmap_over,
        "side": SHEET_SIDE * (1 if report.unit == "image" else SLICES),
        "provenance": provenance(report),
        "settings": settings(report),
    }


def _cards(report: Report, key: Sequence[tuple[str, str]]) -> list[Card]:
    cards = [_card(explanation, key) for explanation in report.explanations]
    known = report.in_images or [()] * len(cards)
    return [replace(card, truth=truth) for card, truth in zip(cards, known, strict=True)]


def _card(explanation: Explanation | VolumeExplanation, key: Sequence[tuple[str, str]]) -> Card:
    """A card without what the page says once of all of them."""
    card = explanation.card()
    facts = tuple(fact for fact in card.facts if fact not in key)
    return replace(card, facts=facts, certificate=(explanation.certificate_here(),))


def _certificate(report: Report) -> list[str]:
    """How far the explanations of the page can be trusted: what holds for all of them."""
    lines = (line for each in report.explanations for line in each.certificate_of_fit())
    return list(dict.fromkeys(lines))


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
    return [*key, *fit_facts(_feature_names(report), report.fit)]


def _overlap(report: Report) -> str:
    """How far the heatmaps of different x-features show the same; empty if none were compared."""
    found = report.orthogonality
    if found is None:
        return ""
    return (
        f"Overlap of the heatmaps: mean squared correlation {found.mean_squared_correlation:.2f}, "
        f"O1 {found.o1:.2f} of {found.alive} x-features on {found.maps} {report.unit}s "
        f"{report.of_what} (0 is best)."
    )


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
