"""The notebooks in `examples/notebooks`: what they say still holds, and comes from this code."""

import re
import runpy
import warnings

import nbformat
import pytest

from docs_examples import ROOT

RUN = runpy.run_path(str(ROOT / "examples" / "run.py"))
SITE = ROOT / "docs" / "notebook_pages.py"
PATHS = RUN["notebooks"]()
NAMES = [path.stem for path in PATHS]

HOLDS = {
    # notebook: what a line says before a number, and the least and the largest that it may be
    "1_planted_shapes": [
        ("R² on held-out images: ", 0.95, 1),
        ("active x-features: ", 3, 5),
        ("logit follows the network's when things go: R² ", 0.9, 1),
    ],
    "2_torchvision": [
        ("397 test images: ", 90, 100),
        ("R² on held-out images: ", 0.8, 1),
        ("R² on test images: ", 0.8, 1),
        ("decision is kept on ", 90, 100),
    ],
    "3_hugging_face_vit": [("397 test images: ", 80, 100), ("vit.layers.2[cls]: R² ", 0.8, 1)],
    "4_compare_and_name": [("pattern A: R² ", 0.95, 1), ("pattern B: R² ", 0.95, 1)],
    "5_a_small_study": [("analysed participants, so ", 20, 60), ("failed; ", 0, 10_000)],
}

SAYS = {
    # notebook: lines, or parts of lines, that it must print
    "1_planted_shapes": ["degenerate: no", "This is a pattern A because of "],
    "2_torchvision": ["the same sentence: True", "conserve relevance to 1e-5: True"],
    "3_hugging_face_vit": [],
    "4_compare_and_name": [
        "1. red disc (2 of 2 people)",
        "3. “blue triangle” (one person alone)",
        "4. x-feature 4 (2 people do not agree)",
        "5. blue square with yellow triangle (2 of 2 people)",
        "blue square with yellow triangle and red disc speak for a pattern A",
    ],
    "5_a_small_study": [
        "12 finished, 0 failed",
        "Synthetic data: no finding",
        "it tells nothing about people",
    ],
}


def read(path):
    return nbformat.read(path, as_version=4)


def check_statements(name, book):
    together = " ".join(RUN["said"](book))
    for text in SAYS[name]:
        assert text in together, text
    for text, least, largest in HOLDS[name]:
        (found,) = re.findall(re.escape(text) + r"([\d.,]*\d)", together)
        assert least <= float(found.replace(",", "")) <= largest, (text, found)


def test_there_are_five_and_each_is_checked():
    assert len(PATHS) == 5
    assert list(HOLDS) == list(SAYS) == NAMES


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_what_a_notebook_says_holds(path):
    check_statements(path.stem, read(path))


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_notebook_is_whole_small_and_names_no_machine(path):
    book, text = read(path), path.read_text("utf-8")
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]
    assert len(text) < RUN["LARGEST"]
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    assert book.cells[0].source.startswith("# ")
    assert all(a.cell_type != b.cell_type or a.cell_type == "code"
               for a, b in zip(book.cells, book.cells[1:], strict=False))  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_links_lead_somewhere(path):
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#]+)", prose)
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_the_page_of_the_site_has_it_all(path):
    pytest.importorskip("mkdocs")
    book = read(path)
    page = runpy.run_path(str(SITE))["page_of"](book)
    flat = " ".join(page.split())
    assert [text for text in RUN["said"](book) if text not in flat] == []
    assert page.count("data:image/jpeg") >= sum("image/jpeg" in k and "text/html" not in k
                                                for k in RUN["kinds"](book))  # fmt: skip
    assert ".ipynb)" not in page
    links = re.findall(r"\]\((\.\./[\w/]+\.md)", page)
    assert links
    assert all((ROOT / "docs" / "notebooks" / link).resolve().exists() for link in links)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_a_notebook_says_the_same_when_it_runs_again(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of nbclient and its event loops
        book = RUN["execute"](path)
    check_statements(path.stem, book)
    assert RUN["differences"](read(path), book) == []


def notebook_of(*printed, source="print(1)"):
    cells = [nbformat.v4.new_code_cell(source) for _ in printed]
    for cell, text in zip(cells, printed, strict=True):
        cell.outputs = [nbformat.v4.new_output("stream", text=text)]
    return nbformat.v4.new_notebook(cells=cells)


def test_differences_are_found():
    old = notebook_of("R² is 0.95\n", "red disc (+2.00, 40%) and x-feature 3\n")
    assert RUN["differences"](old, old) == []
    near = notebook_of("R² is\n0.93\n", "red disc (+2.20, 44%) and x-feature\n3\n")
    assert RUN["differences"](old, near) == []
    for other in (
        notebook_of("R² is 0.60\n", "red disc (+2.00, 40%) and x-feature 3\n"),
        notebook_of("R² is 0.95\n", "red disc (\N{MINUS SIGN}2.00, 40%) and x-feature 3\n"),
        notebook_of("R² is 0.95\n", "red disc (+2.00, 40%) and x-feature 2\n"),
        notebook_of("R² is 0.95\n", "blue disc (+2.00, 40%) and x-feature 3\n"),
        notebook_of("R² is 0.95\n", "red disc (+2.00, 40%) and x-feature 3\nmore\n"),
    ):
        assert len(RUN["differences"](old, other)) == 1
    assert len(RUN["differences"](old, notebook_of("R² is 0.95\n", "", source="1"))) == 3


def test_places_errors_and_warnings_of_others_are_refused():
    clean = RUN["clean"]
    with pytest.raises(ValueError, match="names"):
        clean(notebook_of("saved in /home/ada/x\n"), ("/home/ada",))
    book = notebook_of("a", "b")
    book.cells[1].outputs[0].name = "stderr"
    with pytest.raises(ValueError, match="cell 2 complains"):
        clean(book, ())
    book.cells[1].outputs[0].text = "/a/b.py:7: AttributionWarning: 56% of it\n  return x\n"
    assert clean(book, ("/a/b.py",)).cells[1].outputs[0].text == "AttributionWarning: 56% of it\n"
