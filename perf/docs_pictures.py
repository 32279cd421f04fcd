"""Draw the pictures of README and documentation again where what draws them has changed.

    python perf/docs_pictures.py           # those that are not current
    python perf/docs_pictures.py --all     # all; about six minutes on one core
    python perf/docs_pictures.py --record  # only write down that all are current, after a look

`docs/gallery/pictures.json` keeps a digest of each picture and of the files that draw it: its
script, the modules for figures, the templates and styles of a page. A test compares them. What a
fit finds is not in a digest: a slow test draws most pictures again and compares what is seen.
Not here are the picture of a measurement, which its benchmark draws, and the one of the rooms.
"""

import argparse
import hashlib
import json
import runpy
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RECORD = DOCS / "gallery" / "pictures.json"
ELSEWHERE = {"scaling.png": "perf/fit_scaling.py", "rooms.svg": "docs/draw_rooms.py"}
"""A picture of a measurement, and one that a test of its own draws again; who draws them."""
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_PACKAGE = "src/torchxnn"
_DIGITS = ("perf/docs_gallery.py",)
_FIGURES = tuple(f"{_PACKAGE}/explanations/drawing/{name}.py" for name in ("canvas", "overlay"))
_TEMPLATES = f"{_PACKAGE}/explanations/drawing/templates"
_CARDS = (
    *_FIGURES,
    *(f"{_TEMPLATES}/{name}" for name in ("base.html.j2", "card.html.j2", "style.css")),
    "perf/docs_pages.py",
    *_DIGITS,
)
SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "readme.webp": ("perf/docs_readme.py", (*_DIGITS, "perf/docs_readme.py", *_FIGURES)),
    **{
        f"{number}_{word}.webp": (
            "perf/docs_gallery.py",
            (*_DIGITS, *_FIGURES, f"{_PACKAGE}/apps/benchmark/figures/comparison.py"),
        )
        for number, word in enumerate(WORDS)
    },
    **{
        f"limits_{name}": ("perf/docs_limits.py", (*_DIGITS, "perf/docs_limits.py", *_FIGURES))
        for name in ("alike.webp", "anchored.svg", "found_again.svg", "mass.webp")
    },
    "page_report.webp": (
        "perf/docs_pages.py",
        (*_CARDS, "perf/docs_readme.py", f"{_PACKAGE}/apps/report/templates/*"),
    ),
    "page_atlas.webp": (
        "perf/docs_pages.py",
        (*_CARDS, "perf/docs_readme.py", f"{_PACKAGE}/apps/atlas/templates/*"),
    ),
    "page_study.webp": (
        "perf/docs_pages.py",
        (
            "perf/docs_pages.py",
            f"{_PACKAGE}/apps/study/figures.py",
            f"{_PACKAGE}/apps/study/demo.py",
            f"{_PACKAGE}/apps/study/web/static/*",
            f"{_PACKAGE}/apps/study/web/templates/stage.html",
        ),
    ),
}
"""Of each picture the script that draws it, and the files (patterns) that decide its looks."""


def digest(paths: Iterable[Path]) -> str:
    """Of names and contents, in order of the names."""
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(f"{path.relative_to(ROOT).as_posix()}\n".encode())
        found.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()[:16]


def state(name: str) -> dict[str, str]:
    """What is recorded of a picture: who draws it, and the digests as they are now."""
    script, patterns = SOURCES[name]
    files = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    return {
        "script": script,
        "sources": digest({ROOT / script, *files}),
        "picture": digest([DOCS / "gallery" / name]),
    }


def stale() -> dict[str, str]:
    """Pictures that are not current, and the script that draws each."""
    kept = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}
    return {
        name: script
        for name, (script, _) in SOURCES.items()
        if not (DOCS / "gallery" / name).is_file() or kept.get(name) != state(name)
    }


def draw(scripts: Iterable[str]) -> None:
    """Run scripts as a person would, each once."""
    for script in dict.fromkeys(scripts):
        print(script, flush=True)
        runpy.run_path(str(ROOT / script))["main"](DOCS)


def record() -> None:
    """Write down what the pictures and the files that draw them are now."""
    text = json.dumps({name: state(name) for name in sorted(SOURCES)}, indent=1)
    RECORD.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="draw all of them")
    parser.add_argument("--record", action="store_true", help="draw none")
    chosen = parser.parse_args()
    if not chosen.record:
        everyone = {name: script for name, (script, _) in SOURCES.items()}
        draw((everyone if chosen.all else stale()).values())
    record()
