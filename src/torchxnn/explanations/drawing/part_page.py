"""The HTML of an explained text or row: a page that opens offline, and a fragment for notebooks."""

from __future__ import annotations

from typing import Any

from torchxnn.explanations.drawing.html import TEMPLATES, fill, render
from torchxnn.explanations.drawing.overlay import number, signed
from torchxnn.explanations.part_card import TOP, PartCard, PartPanel, tint


def render_part_card(card: PartCard) -> bytes:
    """The page of one explained text or row."""
    return render(TEMPLATES / "parts.html.j2", card=part_card_view(card))


def part_fragment(card: PartCard) -> str:
    """The same as a fragment with inline styles, as notebooks show it."""
    return fill(TEMPLATES / "notebook_parts.html.j2", card=part_card_view(card)).decode()


def part_card_view(card: PartCard) -> dict[str, Any]:
    """What the templates need: words, levels, and every number as text."""
    panels = [_panel_view(card, panel) for panel in card.panels]
    name = "The whole logit" if len(card.rows) == 1 else "The logit of {}"
    logits = [
        _panel_view(card, PartPanel(name.format(row.name), panel.attributions))
        | {"values": [{"text": number(row.logit), "sign": "", "target": row.name}]}
        for row, panel in zip(card.rows, card.logit_panels, strict=True)
    ]
    every = [*card.panels, *card.logit_panels]
    table = [
        {"part": part, "shown": shown, "values": [_value(float(p.attributions[i])) for p in every]}
        for i, (part, shown) in enumerate(
            zip(card.parts, card.shown or ("",) * len(card.parts), strict=True)
        )
    ]
    return {
        "kind": card.kind,
        "sentence": card.sentence,
        "facts": card.facts,
        "equations": [row.equation for row in card.rows],
        "panels": panels,
        "logits": logits,
        "heads": [view["name"] for view in (*panels, *logits)],
        "table": table,
        "certificate": card.certificate,
        "warnings": card.warnings,
        "caption": card.caption,
        "several": len(card.rows) > 1,
    }


def _panel_view(card: PartCard, panel: PartPanel) -> dict[str, Any]:
    order = panel.order()
    rest = order[TOP:]
    return {
        "name": panel.name,
        "note": panel.note,
        "zero": round(100 * panel.zero(), 1),
        "values": [
            _value(value) | {"target": row.name}
            for row, value in zip(card.rows, panel.values, strict=False)
        ],
        "tokens": [
            {
                **_value(float(panel.attributions[i])),
                "part": part,
                "level": level,
                "colour": tint(level),
                "spoken": panel.is_spoken(i),
            }
            for i, (part, level) in enumerate(zip(card.parts, panel.levels(), strict=True))
        ],
        "bars": [
            {
                "part": card.parts[i],
                "shown": card.shown[i] if card.shown else "",
                "percent": round(100 * panel.reach(i), 1),
                **_value(float(panel.attributions[i])),
            }
            for i in order[:TOP]
        ],
        "rest": {
            "count": len(rest),
            "text": signed(float(panel.attributions[rest].sum())),
        },
    }


def _value(value: float) -> dict[str, str]:
    sign = "positive" if value > 0 else "negative" if value < 0 else "none"
    return {"text": signed(value), "sign": sign}
