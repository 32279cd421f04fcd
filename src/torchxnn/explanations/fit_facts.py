"""What pages about a fit say of its x-features: how stable they are, and which are alike."""

from __future__ import annotations

from collections.abc import Sequence

from torchxnn.explanations.alike import ALIKE, find_alike
from torchxnn.explanations.names.texts import names_fact
from torchxnn.explanations.sentences import stability_facts
from torchxnn.training.report import FitReport


def fit_facts(names: Sequence[str], report: FitReport) -> tuple[tuple[str, str], ...]:
    """Whose the names are, stability of these x-features, those that vary alike: (term, text)."""
    pairs = dict.fromkeys(
        pair.text(names)
        for known in report.among_positives
        for pair in find_alike(None, known.variation)
    )
    alike = ((ALIKE, "; ".join(pairs)),) if pairs else ()
    stable = stability_facts(names, report.found_again, report.not_resampled)
    return (*names_fact(names), *stable, *alike)
