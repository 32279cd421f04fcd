"""The index of an atlas and what all its pages share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torchxnn.apps.atlas.content import Entry
from torchxnn.apps.atlas.runs import Failure
from torchxnn.explanations.drawing.encode import encode
from torchxnn.explanations.drawing.html import fill
from torchxnn.explanations.drawing.overlay import colour_scale
from torchxnn.storage.files import replace_file

MARKER = "atlas.json"
PLURALS = {"class": "classes", "label": "labels"}
TEMPLATES = Path(__file__).parent / "templates"


def write_assets(out: Path) -> None:
    """Style sheet, script and icon."""
    for name in ("atlas.css", "atlas.js"):
        replace_file(out / "assets" / name, (TEMPLATES / name).read_bytes())
    replace_file(out / "assets" / "icon.webp", encode(colour_scale(32, 32), quality=60))


@cache
def templates_key() -> str:
    """A fingerprint of the templates, which change within a version while pages are worked on."""
    digest = hashlib.sha256()
    for file in sorted(TEMPLATES.glob("*.j2")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def write_index(
    out: Path,
    entries: Sequence[Entry],
    failures: Sequence[Failure],
    title: str,
    model: str,
    facts: Sequence[tuple[str, str]],
    labelled: bool,
    noun: str = "class",
) -> None:
    """Write the page that lists all classes, and the data that its search reads.

    The list is in the page itself, so it is complete without scripts, and works for thousands of
    classes: images are loaded when they are scrolled to.
    """
    data = json.dumps([_searched(entry) for entry in entries], ensure_ascii=True)
    script = f"window.TORCHXNN_ATLAS = {{nouns: {json.dumps(PLURALS[noun])}, classes: {data}}};\n"
    replace_file(out / "assets" / "data.js", script.encode())
    page = fill(
        TEMPLATES / "index.html.j2",
        home="",
        title=title,
        model=model,
        facts=tuple(facts),
        entries=tuple(entries),
        failures=tuple(failures),
        total=sum(len(entry.feature_names) for entry in entries),
        labelled=labelled,
        noun=noun,
        nouns=PLURALS[noun],
    )
    replace_file(out / "index.html", page)


def _searched(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": entry.title,
        "features": list(entry.feature_names),
        "r2": None if entry.r2 is None else round(entry.r2, 4),
        "active": entry.active,
        "recall": entry.recall,
        "degenerate": bool(entry.degenerate),
    }
