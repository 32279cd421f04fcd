"""What notebooks show, and figures for papers: read back from a real notebook, PDFs and SVGs."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text
from nbclient import NotebookClient
from PIL import Image

from conftest import make_net
from explanation_examples import HOSTILE, explanation
from part_examples import COLUMNS, LENGTH, fit_xnn, make_inputs
from torchxnn import contrast as contrasts
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.canvas import figure_bytes, save_figure
from torchxnn.explanations.drawing.overlay import number
from torchxnn.xnn import XNN

FIVE = ((6.31, -2.0, 1.5, 0.4, 0.0),)
NAMED = ("golden feather", "red forehead", "x-feature 3", "a long name of a feature", "x-feature 5")


@pytest.fixture(scope="module")
def text():
    xnn = fit_xnn("lstm")
    return xnn.explain_text(make_inputs("lstm")[0], [f"word{i}" for i in range(LENGTH)])


@pytest.fixture(scope="module")
def row_xnn():
    return fit_xnn("row")


@pytest.fixture(scope="module")
def row(row_xnn):
    return row_xnn.explain_row(make_inputs("row")[0], [f"column {i}" for i in range(COLUMNS)])


class Tags(HTMLParser):
    """All start tags with their attributes, and that every element is closed."""

    void = frozenset(("img", "br", "meta", "rect", "path"))

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def contrast(one, other):
    """WCAG contrast ratio of two colours "#rrggbb"."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def check_fragment(fragment):
    """Self-contained, well formed, and readable on its own ground whatever surrounds it."""
    tags = Tags(fragment)
    assert not tags.open
    assert not {"script", "link", "style", "iframe"} & {tag for tag, _ in tags.found}
    for tag, attributes in tags.found:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), tag
        if tag == "img":
            assert attributes["alt"]
    first = tags.found[0][1]["style"]
    assert "background:#fff" in first
    assert "color:#1b1f24" in first
    for colour in set(re.findall(r"(?<![-\w])color:(#[0-9a-f]{6})", fragment)):
        assert contrast(colour, "#ffffff") >= 4.5, colour
    return tags


def test_an_explanation_of_an_image_is_self_contained_html():
    shown = explanation(FIVE, feature_names=NAMED)
    fragment = shown._repr_html_()
    tags = check_fragment(fragment)
    assert sum(tag == "img" for tag, _ in tags.found) == 1 + 2 * 5 + 2 - 1  # one is inactive
    assert "inactive here" in fragment
    assert "golden feather" in fragment
    assert "+6.31" in fragment
    assert len(fragment) < 200_000


def test_explanations_of_texts_and_rows_are_html(text, row):
    check_fragment(text._repr_html_())
    check_fragment(row._repr_html_())
    tinted = re.findall(r"color:(#\w{6});background:(#\w{6})", text._repr_html_())
    assert all(contrast(ink, ground) >= 4.5 for ink, ground in tinted)


def test_several_targets_and_warnings_are_shown():
    two = explanation(((1.0, 2.0), (0.5, -1.0)), degenerate=("only one is active",))
    fragment = two._repr_html_()
    check_fragment(fragment)
    assert "Careful:" in fragment
    assert "to bird 5" in fragment


def test_hostile_names_are_escaped():
    hostile = explanation(
        FIVE, feature_names=(HOSTILE,) * 5, target_names=(HOSTILE,), label=HOSTILE, path=HOSTILE
    )
    fragment = hostile._repr_html_()
    check_fragment(fragment)
    assert "<script" not in fragment
    assert "\u202e" not in fragment


def test_an_xnn_shows_what_it_is_and_how_good(row_xnn):
    fragment = row_xnn._repr_html_()
    check_fragment(fragment)
    assert "Sequential" in fragment
    assert "red" in fragment
    assert f"{row_xnn.report.validation.r2:.3f}" in fragment
    assert "Degenerate" not in fragment
    assert "x-feature 3" in fragment
    report = replace(row_xnn.report, degenerate=("R² on held-out data is 0.2",))
    assert "Degenerate fit:" in with_report(row_xnn, report)._repr_html_()


def with_report(xnn, report):
    other = XNN(xnn.model, xnn.layer)
    other.attach_embedding(xnn.embedding, xnn.targets, xnn.outputs, report)
    return other


def test_an_xnn_without_a_fit_or_a_report_says_so(row_xnn):
    fragment = XNN(make_net(), "classifier.1")._repr_html_()
    check_fragment(fragment)
    assert "Not fitted yet" in fragment
    assert "x-feature 1" in with_report(row_xnn, None)._repr_html_()


def test_ipython_takes_html_and_a_png_for_other_documents(row_xnn):
    formats, _ = DisplayFormatter().format(explanation(FIVE))
    assert "golden" not in formats["text/html"]
    assert formats["image/png"]
    formats, _ = DisplayFormatter().format(row_xnn)
    assert "text/html" in formats


NOTEBOOK = """
import warnings
warnings.simplefilter("ignore")
import torch
from torch import nn
from torchxnn import XNN, TrainConfig
torch.manual_seed(0)
torch.set_num_threads(1)
body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
model = nn.Sequential(body, nn.Linear(128, 32), nn.ReLU(), nn.Linear(32, 3)).eval()
loader = [(torch.randn(32, 3, 16, 16), torch.arange(32) % 3) for _ in range(4)]
xnn = XNN(model, layer="2")
_ = xnn.fit(loader, target=1, config=TrainConfig(epochs=3, trials=1, hidden=(16,)))
"""


@pytest.mark.slow
def test_a_real_notebook_shows_both(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path / "jupyter"))
    cells = [NOTEBOOK, "xnn", "xnn.explain(loader[0][0][0])"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.filters", [("ignore", None, Warning, None, 0)])
        NotebookClient(book, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    table, shown = (cell["outputs"][0]["data"] for cell in book.cells[1:])
    check_fragment(table["text/html"])
    check_fragment(shown["text/html"])
    assert "Explanation Neural Network" in table["text/html"]
    assert "data:image/" in shown["text/html"]
    assert "image/png" in shown


# --- papers


def sizes_of(figure):
    return {text.get_fontsize() for text in figure.findobj(Text) if text.get_text()}


@pytest.mark.parametrize(("columns", "inches"), [(1, 3.3), (2, 6.9)])
@pytest.mark.parametrize("what", ["image", "targets", "text", "row"])
def test_figures_for_papers_fit_a_column(what, columns, inches, text, row, tmp_path):
    shown = {
        "image": explanation(FIVE, feature_names=NAMED, degenerate=("one is active",)),
        "targets": explanation(((1.0, 2.0), (0.5, -1.0))),
        "text": text,
        "row": row,
    }[what]
    figure = shown.plot(style="paper", columns=columns)
    assert figure.get_figwidth() == pytest.approx(inches)
    assert figure.get_figheight() < 9
    assert min(sizes_of(figure)) >= 7
    assert max(sizes_of(figure)) <= 8
    for kind in ("pdf", "svg", "png"):
        shown.save_figure(tmp_path / f"figure.{kind}", style="paper", columns=columns)
    pdf = (tmp_path / "figure.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+)", pdf)
    assert float(box[1]) / 72 == pytest.approx(inches, abs=0.01)
    assert b"/FontFile2" in pdf  # TrueType
    assert b"/Type3" not in pdf
    svg = (tmp_path / "figure.svg").read_text("utf-8")
    assert float(re.search(r'<svg [^>]*width="([\d.]+)pt"', svg, re.DOTALL)[1]) == pytest.approx(
        inches * 72, abs=0.5
    )
    spoken = re.sub(r"\s+", " ", " ".join(re.findall(r"<text[^>]*>([^<]*)<", svg)))
    assert shown.feature_names[0] in spoken
    if what == "image":
        assert "degenerate" in spoken
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.width == pytest.approx(inches * 300, abs=1)


@pytest.mark.parametrize(("columns", "lines"), [(1, 2), (2, 1)])
def test_a_figure_for_a_paper_says_the_whole_sum_and_leaves_no_empty_cell(columns, lines):
    shown = explanation(FIVE, label=None)  # 6.31 - 2 + 1.5 + 0.4 + 0 + 0.25
    figure = shown.plot(style="paper", columns=columns)
    said = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "logit 6.56; reproduced 6.46 = the contributions + 0.25 (a typical other image)" in said
    assert "Logit" in said
    boxes = [axes.get_position().bounds for axes in figure.axes]
    assert len(boxes) == 1 + 2 * 6  # the image, and a map and a cut-out of each
    (*_, wide, high), *maps = boxes
    width, height = maps[0][2:]
    assert wide > 2 * width
    assert high > 2 * height
    tops = sorted({round(low + up, 3) for _, low, _, up in boxes})
    assert len(tops) == 2 * lines
    for top in tops:  # every line is full
        ends = [x + across for x, low, across, up in boxes if round(low + up, 3) == top]
        assert max(ends) > 0.98


def test_what_a_figure_for_a_paper_does_not_draw_is_in_its_sum():
    first = explanation(FIVE, label=None)
    second = explanation(
        ((1.0, -0.5, 0.25, 0.1, 0.05),), targets=(5,), target_names=("bird 5",), label=None
    )
    found = contrasts(first, second)
    drawn = sum(panel.values[0] for panel in found.card().panels)
    left = sum(one.value for one in found.summands) - drawn
    assert left != 0
    texts = [text.get_text() for text in found.plot(style="paper", columns=2).findobj(Text)]
    assert f"{number(abs(left))} (not drawn)" in " ".join(texts)


@pytest.mark.slow
@pytest.mark.parametrize("width", [600, 900, 1200])
def test_in_a_notebook_of_any_width_the_maps_stand_beside_the_image(chromium, width, tmp_path):
    file = tmp_path / "cell.html"
    file.write_text(f"<meta charset=utf-8>{explanation(FIVE)._repr_html_()}", "utf-8")
    with chromium.new_page(viewport={"width": width, "height": 900}) as page:
        page.goto(file.as_uri())
        image, *maps = [each.bounding_box() for each in page.locator("img").all()]
    assert min(box["x"] for box in maps) >= image["x"] + image["width"]
    assert len({box["y"] for box in maps}) == (2 if width > 800 else 4)
    assert min(box["width"] for box in maps) > 90


def test_everything_stays_on_the_paper(text, row):
    for shown in (explanation(FIVE, feature_names=NAMED), text, row):
        for columns in (1, 2):
            figure = shown.plot(style="paper", columns=columns)
            renderer = figure.canvas.get_renderer()
            for item in figure.findobj(Text):
                if item.get_text() and item.get_visible():
                    box = item.get_window_extent(renderer)
                    assert box.x0 >= -1, item
                    assert box.x1 <= figure.bbox.width + 1, item
                    assert box.y0 >= -1, item
                    assert box.y1 <= figure.bbox.height + 1, item


def test_a_figure_saved_by_hand_keeps_its_text_too(tmp_path):
    explanation(FIVE).plot(style="paper").savefig(tmp_path / "a.svg")
    assert "<text" in (tmp_path / "a.svg").read_text("utf-8")
    explanation(FIVE).plot().savefig(tmp_path / "a.pdf")
    assert b"/Type3" not in (tmp_path / "a.pdf").read_bytes()


def test_any_figure_is_saved_by_its_ending_and_alike_each_time(tmp_path):
    figure = Figure()
    figure.text(0.5, 0.5, "hello")
    for kind in ("pdf", "svg", "png"):
        save_figure(figure, tmp_path / f"a.{kind.upper()}")
        assert (tmp_path / f"a.{kind.upper()}").read_bytes() == figure_bytes(figure, kind)
    for name in ("a.jpg", "a"):
        with pytest.raises(DataError, match=r"end the name in \.png, \.pdf or \.svg"):
            save_figure(figure, tmp_path / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.PDF", "a.PNG", "a.SVG"]


def test_the_package_loads_no_notebooks_and_nothing_that_takes_seconds_and_few_need():
    late = "{'IPython', 'nbclient', 'torchvision', 'scipy.stats', 'sklearn', 'captum', 'pandas'}"
    code = f"import sys, torchxnn.cli.main; sys.exit(' '.join({late} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert ran.stderr.strip() == ""
