"""What notebooks show: fragments of HTML with inline styles, images inside, names escaped.

The ground is light on its own, so that a dark notebook leaves text and pictures readable; nothing
is requested from anywhere, and no script runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from torchxnn.explanations.card import Card
from torchxnn.explanations.drawing.html import TEMPLATES, card_view, fill
from torchxnn.training.report import FitReport


def card_fragment(card: Card) -> str:
    """One explanation."""
    return fill(TEMPLATES / "notebook_card.html.j2", card=card_view(card)).decode()


def xnn_fragment(
    facts: Sequence[tuple[str, str]],
    report: FitReport | None,
    feature_names: Sequence[str],
    target_names: Sequence[str],
) -> str:
    """An XNN as a table.

    Args:
        facts: (term, text), such as model and layer.
        report: of the fit; None if it is not fitted, or was made by other means.
        feature_names: one per x-feature; empty if it is not fitted.
        target_names: one per target.
    """
    found, more = None if report is None else report.validation, []
    if report is not None and found is not None:
        origin = "given" if report.held_out == "given" else "a share of the training data"
        more = [
            ("Held-out data", f"{found.images} ({origin}), {found.positives} positives"),
            ("R²", f"{found.r2:.3f}"),
            ("F_reg", f"{found.f_reg:.3g} ({found.f_reg_positives:.3g} on positives)"),
            ("F_cls", f"{found.f_cls:.1%} ({found.f_cls_positives:.1%} on positives)"),
            ("Active, dead", f"{found.active} and {found.dead} of {found.n_features} x-features"),
        ]
    shares = [] if found is None else [[f"{s:.0%}" for s in row] for row in found.share]
    features = [
        {"name": name, "shares": [row[i] for row in shares]} for i, name in enumerate(feature_names)
    ]
    return fill(
        TEMPLATES / "notebook_xnn.html.j2",
        facts=[*facts, *more],
        features=features,
        targets=target_names if shares else (),
        degenerate=() if report is None else report.degenerate,
        fitted=bool(feature_names),
    ).decode()
