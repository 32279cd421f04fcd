"""Self-contained HTML: nothing is requested from anywhere, and no name can do harm.

Images are data URIs, the style sheet is inline and named by its hash in a content security policy
that forbids everything else, there is no script, and Jinja escapes whatever is inserted. Fragments
for notebooks have inline styles instead, on a light ground of their own, so that a dark notebook
leaves text and pictures readable.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import features

from torchxnn.data.class_names import spoken
from torchxnn.explanations.card import TOP, Card
from torchxnn.explanations.drawing.encode import encode
from torchxnn.explanations.drawing.overlay import colour_scale, number, sign_of, signed, tint
from torchxnn.explanations.fit_facts import fit_facts
from torchxnn.explanations.sentences import NOT_ANCHORED
from torchxnn.metrics.table import METRICS
from torchxnn.models.attached import FittedXNN
from torchxnn.models.layers import unwrap
from torchxnn.storage.artifact import __version__
from torchxnn.training.report import FitReport

LONGEST_SIDE = 256  # pixels of a drawn heatmap
QUALITY = 80
TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "In logits:"
"""What the figures of a contrast begin with, after all that is said in words."""
FIGURES_OF_VALUES = "In figures:"
"""The same where the outputs are values."""
_BEGIN = re.compile(rf"(?<=\.) (?=(?:{FIGURES}|{FIGURES_OF_VALUES}) )")
_OBEYED = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""Control characters, halves of surrogate pairs, and what turns the direction of text around."""
_WHOLE = re.compile(r"x-features?(?: \d+)?|\([+\N{MINUS SIGN}][^()]{1,20}\)")
"""What a sentence does not break inside."""


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
    return render(TEMPLATES / "explanation.html.j2", card=card)


def card_fragment(card: Card) -> str:
    """The same as notebooks show it: inline styles and a light ground of its own."""
    return fill(TEMPLATES / "notebook_card.html.j2", card=card).decode()


def xnn_fragment(xnn: FittedXNN, feature_names: Sequence[str]) -> str:
    """An XNN as a table; without names of x-features as one that is not fitted."""
    targets = [spoken(xnn.target_name(target)) for target in xnn.targets]
    facts = [
        ("Model", type(unwrap(xnn.attached.model)).__name__),
        ("Layer", xnn.attached.name),
        ("Targets", ", ".join(targets) or "none yet"),
    ]
    if xnn.embedding is not None and not xnn.embedding.anchored:
        facts.append(("Careful", NOT_ANCHORED))
    report: FitReport | None = xnn.report
    shares: list[list[str]] = []
    if report is not None:
        found = report.validation
        origin = "given" if report.held_out == "given" else "a share of the training data"
        facts += [
            ("Held-out data", f"{found.images} ({origin}), {found.positives} positives"),
            ("R²", f"{found.r2:.3f}"),
            ("F_reg", f"{found.f_reg:.3g} ({found.f_reg_positives:.3g} on positives)"),
            (
                "F_cls",
                f"{METRICS['f_cls'].text(found)} ({METRICS['f_cls_positives'].text(found)} on "
                "positives)",
            ),
            ("Active, dead", f"{found.active} and {found.dead} of {found.n_features} x-features"),
        ]
        facts += fit_facts(feature_names, report)
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
    environment.filters |= {"unbroken": _unbroken, "uri": data_uri, "halves": halves}
    environment.filters |= {each.__name__: each for each in (number, sign_of, signed, tint)}
    environment.globals["TOP"] = TOP
    return environment


def _unbroken(text: str) -> Markup:
    """Escape a sentence and keep "x-feature 3" and "(+1.77, 25%)" on one line each."""
    return Markup(_WHOLE.sub(r'<span class="whole">\g<0></span>', str(escape(_printable(text)))))


def halves(sentence: str) -> tuple[str, str]:
    """The reasons of a sentence, and what follows; it may be nothing.

    They end where `FIGURES` or `FIGURES_OF_VALUES` begin a sentence, else with the first semicolon.
    A semicolon in parentheses is within a reason, as in "(+1.20, 9%; found again in 40% ...)".

    Example:
        >>> halves("This is a 4 because of x-feature 1 (+2, 9%; rare); the rest is 3.")
        ('This is a 4 because of x-feature 1 (+2, 9%; rare);', 'the rest is 3.')
    """
    begin = _BEGIN.search(sentence)
    if begin:
        return sentence[: begin.start()], sentence[begin.end() :]
    depth = 0
    for place, letter in enumerate(sentence):
        depth = max(0, depth + {"(": 1, ")": -1}.get(letter, 0))
        if letter == ";" and not depth:
            return sentence[: place + 1], sentence[place + 1 :].lstrip()
    return sentence, ""


def _printable(value: Any) -> Any:
    """Show control characters and undecodable bytes of names as U+FFFD instead of obeying them."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return _OBEYED.sub("\N{REPLACEMENT CHARACTER}", value)
