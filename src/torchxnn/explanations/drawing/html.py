"""Self-contained HTML pages: nothing is requested from anywhere, and no name can do harm.

Images are data URIs, the style sheet is inline and named by its hash in a content security policy
that forbids everything else, there is no script, and Jinja escapes whatever is inserted.
"""

import base64
import hashlib
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import features

from torchxnn.explanations.card import Card, Panel
from torchxnn.explanations.drawing.encode import encode
from torchxnn.explanations.drawing.overlay import (
    colour_scale,
    cutout,
    faded,
    intensities,
    number,
    overlay,
    signed,
)
from torchxnn.storage.artifact import __version__

LONGEST_SIDE = 256  # pixels of a drawn heatmap
QUALITY = 80
TEMPLATES = Path(__file__).parent / "templates"


def data_uri(picture: UInt8[np.ndarray, "height width 3"], longest: int = LONGEST_SIDE) -> str:
    """Encode a picture as a small WebP (JPEG without WebP support) inside a data URI."""
    kind: Literal["webp", "jpeg"] = "webp" if features.check("webp") else "jpeg"
    content = base64.b64encode(encode(picture, QUALITY, longest, kind)).decode("ascii")
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


def card_view(card: Card) -> dict[str, Any]:
    """What the card template needs: the card's words, and its pictures as data URIs."""
    maps = intensities([panel.heatmap for panel in card.panels], card.scale)
    largest = max((abs(v) for panel in card.panels for v in panel.values), default=0.0) or 1.0
    panels = [
        _panel_view(card, panel, intensity, largest)
        for panel, intensity in zip(card.panels, maps, strict=True)
    ]
    logits = []
    for row, panel in zip(card.rows, card.logit_panels, strict=True):
        (intensity,) = intensities([panel.heatmap])
        images = _images(card, panel, intensity)
        logits.append({"name": row.name, "value": number(row.logit), **images})
    return {
        "sentence": card.sentence,
        "facts": card.facts,
        "rows": [_row_view(card, index) for index in range(len(card.rows))],
        "picture": data_uri(card.picture, 2 * LONGEST_SIDE),
        "panels": panels,
        "logits": logits,
        "logit_heading": card.logit_heading,
        "certificate": card.certificate,
        "warnings": card.warnings,
        "caption": card.caption,
    }


def _row_view(card: Card, index: int) -> dict[str, Any]:
    row = card.rows[index]
    return {
        "name": row.name,
        "equation": row.equation,
        "logit": number(row.logit),
        "reproduced": number(row.reproduced),
        "intercept": signed(row.intercept),
        "values": [_value_view(panel.values[index]) for panel in card.panels],
    }


def _value_view(value: float) -> dict[str, str]:
    sign = "positive" if value > 0 else "negative" if value < 0 else "none"
    return {"text": signed(value), "sign": sign}


def _panel_view(card: Card, panel: Panel, intensity: np.ndarray, largest: float) -> dict[str, Any]:
    if panel.note:
        images: dict[str, str | None] = {"overlay": data_uri(faded(card.picture)), "cutout": None}
    else:
        images = _images(card, panel, intensity)
    values = [
        _value_view(value) | {"target": row.name, "percent": round(100 * abs(value) / largest, 1)}
        for row, value in zip(card.rows, panel.values, strict=True)
    ]
    return {"name": panel.name, "note": panel.note, "values": values, **images}


def _images(card: Card, panel: Panel, intensity: np.ndarray) -> dict[str, str | None]:
    return {
        "overlay": data_uri(overlay(card.picture, intensity)),
        "cutout": data_uri(cutout(card.picture, panel.heatmap)),
    }


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
