"""Self-contained HTML: nothing is requested from anywhere, and no name can do harm.

Images are data URIs, the style sheet is inline and named by its hash in a content security policy
that forbids everything else, there is no script, and Jinja escapes whatever is inserted. Fragments
for notebooks have inline styles instead, on a light ground of their own, so that a dark notebook
leaves text and pictures readable.
"""

import base64
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import features

from torchxnn.explanations.card import TOP, Card, Columns, Heatmap, Panel, Tokens
from torchxnn.explanations.drawing.encode import encode
from torchxnn.explanations.drawing.overlay import colour_scale, number, sign_of, signed, tint
from torchxnn.models.attached import FittedXNN
from torchxnn.models.layers import unwrap
from torchxnn.storage.artifact import __version__
from torchxnn.training.report import FitReport

LONGEST_SIDE = 256  # pixels of a drawn heatmap
QUALITY = 80
TEMPLATES = Path(__file__).parent / "templates"


def data_uri(pixels: UInt8[np.ndarray, "height width 3"], longest: int = LONGEST_SIDE) -> str:
    """Encode a picture as a small WebP (JPEG without WebP support) inside a data URI."""
    kind: Literal["webp", "jpeg"] = "webp" if features.check("webp") else "jpeg"
    content = base64.b64encode(encode(pixels, QUALITY, longest, kind)).decode("ascii")
    return f"data:image/{kind};base64,{content}"


def render(template: Path, more_style: str = "", **context: Any) -> bytes:
    """Fill the template of a page.

    Args:
        template: file; what it extends or imports is looked for beside it, then in `TEMPLATES`.
        more_style: CSS that follows the common style sheet.
        context: values that the template names.

    Returns:
        The bytes of one self-contained HTML file.
    """
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8") + more_style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    legend = data_uri(colour_scale())
    return fill(template, style=Markup(style), policy=policy, legend=legend, **context)


def fill(template: Path, **context: Any) -> bytes:
    """Fill a template that brings its own frame, such as a page of a site of many files."""
    page = _environment(template.parent).get_template(template.name)
    return page.render(version=__version__, **context).encode()


def render_card(card: Card) -> bytes:
    """The page of one explanation."""
    return render(TEMPLATES / "explanation.html.j2", card=card_view(card))


def card_fragment(card: Card) -> str:
    """The same as notebooks show it: inline styles and a light ground of its own."""
    return fill(TEMPLATES / "notebook_card.html.j2", card=card_view(card)).decode()


def card_view(card: Card) -> dict[str, Any]:
    """What the templates need: words, every number as text, and pictures as data URIs."""
    largest = max((abs(v) for panel in card.panels for v in panel.values), default=0.0) or 1.0
    panels = [
        _panel_view(panel)
        | {
            "values": [
                _value(value)
                | {"target": row.name, "percent": round(100 * abs(value) / largest, 1)}
                for row, value in zip(card.rows, panel.values, strict=True)
            ]
        }
        for panel in card.panels
    ]
    logits = [
        _panel_view(panel)
        | {"values": [{"text": number(row.logit), "sign": "", "target": row.name}]}
        for row, panel in zip(card.rows, card.logit_panels, strict=True)
    ]
    return vars(card) | {
        "kind": card.kind,
        "image": data_uri(card.image, 2 * LONGEST_SIDE) if card.kind == "image" else None,
        "rows": [_row_view(card, index) for index in range(len(card.rows))],
        "panels": panels,
        "logits": logits,
        "numbers": _numbers(card),
    }


def _row_view(card: Card, index: int) -> dict[str, Any]:
    row = card.rows[index]
    return vars(row) | {
        "logit": number(row.logit),
        "reproduced": number(row.reproduced),
        "intercept": signed(row.intercept),
        "values": [_value(panel.values[index]) for panel in card.panels],
    }


def _value(value: float) -> dict[str, str]:
    return {"text": signed(value), "sign": sign_of(value)}


def _panel_view(panel: Panel) -> dict[str, Any]:
    """An x-feature or a logit, whatever it shows."""
    view: dict[str, Any] = {"name": panel.name, "note": panel.note}
    match panel.evidence:
        case Heatmap() as heatmap:
            shown, cutout = map(data_uri, heatmap.pictures(bool(panel.note)))
            return view | {"overlay": shown, "cutout": cutout}
        case Tokens() as tokens:
            return view | {"tokens": _token_views(tokens)}
        case Columns() as columns:
            return view | _bar_views(columns)


def _token_views(tokens: Tokens) -> list[dict[str, Any]]:
    return [
        {
            **_value(float(tokens.values[i])),
            "token": token,
            "level": level,
            "colour": tint(level),
            "spoken": tokens.is_spoken(i),
        }
        for i, (token, level) in enumerate(zip(tokens.entries, tokens.levels(), strict=True))
    ]


def _bar_views(columns: Columns) -> dict[str, Any]:
    order, zero = columns.order(), 100 * columns.zero()
    bars = [
        {
            **_value(float(columns.values[i])),
            "column": columns.entries[i],
            "shown": columns.shown[i],
            "width": round(100 * columns.reach(i), 1),
            "start": round(zero - (100 * columns.reach(i) if columns.values[i] < 0 else 0), 1),
        }
        for i in order[:TOP]
    ]
    rest = order[TOP:]
    total = signed(float(columns.values[rest].sum()))
    return {"zero": round(zero, 1), "bars": bars, "rest": {"count": len(rest), "text": total}}


def _numbers(card: Card) -> list[dict[str, Any]]:
    """Every attribution of a text or row as a table, row by row; of an image nothing."""
    every = [panel.evidence for panel in (*card.panels, *card.logit_panels)]
    lists = [evidence for evidence in every if not isinstance(evidence, Heatmap)]
    return [
        {
            "entry": entry,
            "shown": lists[0].shown[i] if isinstance(lists[0], Columns) else "",
            "values": [_value(float(evidence.values[i])) for evidence in lists],
        }
        for i, entry in enumerate(lists[0].entries if lists else ())
    ]


def xnn_fragment(xnn: FittedXNN, feature_names: Sequence[str]) -> str:
    """An XNN as a table; without names of x-features as one that is not fitted."""
    targets = [xnn.target_name(target) for target in xnn.targets]
    facts = [
        ("Model", type(unwrap(xnn.attached.model)).__name__),
        ("Layer", xnn.attached.name),
        ("Targets", ", ".join(targets) or "none yet"),
    ]
    report: FitReport | None = xnn.report
    shares: list[list[str]] = []
    if report is not None:
        found = report.validation
        origin = "given" if report.held_out == "given" else "a share of the training data"
        facts += [
            ("Held-out data", f"{found.images} ({origin}), {found.positives} positives"),
            ("R²", f"{found.r2:.3f}"),
            ("F_reg", f"{found.f_reg:.3g} ({found.f_reg_positives:.3g} on positives)"),
            ("F_cls", f"{found.f_cls:.1%} ({found.f_cls_positives:.1%} on positives)"),
            ("Active, dead", f"{found.active} and {found.dead} of {found.n_features} x-features"),
        ]
        shares = [[f"{share:.0%}" for share in row] for row in found.share]
    features = [
        {"name": name, "shares": [row[i] for row in shares]} for i, name in enumerate(feature_names)
    ]
    return fill(
        TEMPLATES / "notebook_xnn.html.j2",
        facts=facts,
        features=features,
        targets=targets if shares else (),
        degenerate=() if report is None else report.degenerate,
        fitted=bool(feature_names),
    ).decode()


@cache
def _environment(folder: Path) -> Environment:
    environment = Environment(
        loader=FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    return environment


def _unbroken(text: str) -> Markup:
    """Escape a sentence and keep "x-feature 3" on one line."""
    return Markup(
        re.sub(r"x-feature \d+", r'<span class="whole">\g<0></span>', str(escape(_printable(text))))
    )


def _printable(value: Any) -> Any:
    """Show control characters and undecodable bytes of names as U+FFFD instead of obeying them."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join("\N{REPLACEMENT CHARACTER}" if _obeyed(c) else c for c in value)


def _obeyed(character: str) -> bool:
    turns_text_around = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return turns_text_around or unicodedata.category(character) in ("Cc", "Cs")
