"""The page "Does it work with my model?" has the kinds of its script, and says what happens."""

import importlib
import re
import subprocess
import sys

import pytest
import torch

from docs_examples import ROOT

PAGE = (ROOT / "docs" / "does_it_work.md").read_text("utf-8")


@pytest.fixture(scope="module")
def script():
    """`perf/kinds_of_models.py`, as it is imported when somebody runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "perf"))
        yield importlib.import_module("kinds_of_models")
    for name in ("kinds_of_models", "kinds_networks", "tiny_networks"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def kinds(script):
    return {kind.name: kind for kind in script.KINDS}


def rows(made):
    """First and last cells, name and version, of all rows of the tables."""
    lines = [line for line in made.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [(row[0], row[-1]) for row in cells if row[0] != "kind"]


def test_the_page_has_every_kind_once_and_none_goes_wrong(script):
    found = rows(script.made_part(PAGE))
    assert sorted(found) == sorted((kind.name, kind.since) for kind in script.KINDS)
    assert "still wrong" not in PAGE
    assert "in silence" not in PAGE


def test_the_tables_are_put_between_the_markers(script):
    page = script.put_into(PAGE, "| a | b |")
    assert script.made_part(page) == "| a | b |"
    assert script.put_into(page, script.made_part(PAGE)) == PAGE


@pytest.mark.parametrize(
    ("name", "grade", "stage", "what"),
    [
        ("logits (B, K)", "works", "explain", "works"),
        ("TorchScript", "refused", "attach", "the model is TorchScript"),
        ("NaN", "refused", "fit", "outputs are NaN"),
    ],
)
def test_what_happens_to_a_kind(script, kinds, name, grade, stage, what):
    found = script.try_kind(kinds[name])
    assert (found.grade, found.stage) == (grade, stage)
    assert what in found.what


def raises(*_):
    raise KeyError("head")


def test_what_goes_wrong_shows(script, kinds):
    plain = kinds["logits (B, K)"]

    def make(own):
        subject = plain.make()
        return type(subject)(subject.network, subject.layer, own=own)

    other = type(plain)(lambda: make(lambda images: torch.zeros(len(images), 4)), "next")
    broken = type(plain)(lambda: make(raises), "next")
    found = [(kind, script.try_kind(kind)) for kind in (other, broken)]
    assert found[0][1].what == "logits are not the network's own"
    assert found[1][1].what == "KeyError: 'head'"
    assert "What is still wrong" in script.tables(found)


@pytest.mark.slow
def test_the_page_says_what_happens_to_every_kind(script):
    """But for figures, which differ between machines; `--write` puts the tables into the page."""
    for library in ("timm", "transformers", "lightning"):
        pytest.importorskip(library)
    command = [sys.executable, str(ROOT / "perf" / "kinds_of_models.py")]  # unaware of our checks
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    assert re.sub(r"[\d.]+", "0", made) == re.sub(r"[\d.]+", "0", script.made_part(PAGE))
