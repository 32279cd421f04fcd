"""Every block of code in README and docs runs, or is listed here with the reason why not."""

import ast
import copy
import io
import re
import runpy
import shutil
import sys
import warnings
from contextlib import redirect_stdout

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from docs_examples import PAGES, ROOT, SIZE, make_world, names_of_a_page, read_blocks, use_stand_ins
from torchxnn.cli.main import main
from torchxnn.errors import XNNWarning
from torchxnn.xnn import XNN

PACKAGE = ROOT / "src" / "torchxnn"

DATA = "needs data sets that are not in any package"
LONG = "measures for minutes or hours"
INDEX = "installs from a package index"
SERVER = "a server, or talks to one; tests/apps/study/test_study_server.py does the same"
SETTINGS = "a settings file; tests/apps/study/test_study_build.py reads such files"
CLUSTER = "needs a Ray cluster; tests/parallel/test_ray_engine.py does the same"


def measured(program):
    """Pages of benchmarks with a command of this program."""
    pages = [page for page in PAGES if page.startswith("docs/benchmarks/")]
    return [page for page in pages if f"$ {program}" in (ROOT / page).read_text("utf-8")]


NOT_RUN = {
    # page, start of the command or of the block: why
    ("README.md", "make "): "makes an environment; the gate of the project runs it",
    ("docs/index.md", "make "): "makes an environment; the gate of the project runs it",
    (
        "README.md",
        "xnn study",
    ): "trains a network; tests/apps/study/test_study_build.py does the same",
    ("docs/study.md", "xnn study"): SERVER,
    ("docs/study.md", "title:"): SETTINGS,
    ("docs/study_tasks.md", "title:"): SETTINGS,
    ("docs/study_tasks.md", "data_sets:"): "a part of a settings file",
    ("docs/study_tasks.md", "allocation:"): "a part of a settings file",
    ("docs/study_analysis.md", "xnn study"): SERVER,
    ("docs/study_tasks.md", "xnn study"): SERVER,
    ("docs/study.md", "pip"): INDEX,
    ("docs/hosting.md", ""): SERVER,
    ("docs/scale.md", "pip"): INDEX,
    ("docs/scale.md", "ray"): CLUSTER,
    ("docs/scale.md", "xnn attribute"): CLUSTER,
    ("docs/scale.md", "from torchxnn.parallel"): CLUSTER,
    ("docs/bulk_heatmaps.md", "xnn attribute RUN DIR --out s3:"): CLUSTER,
    ("docs/bulk_heatmaps.md", "xnn attribute RUN DIR --out maps --images all"): (
        "the folder holds maps of other settings, and is refused: choose another"
    ),
    ("docs/tutorial.md", "pip"): INDEX,
    ("docs/notebooks.md", "pip"): INDEX,
    ("docs/notebooks.md", "jupyter"): "a server; tests/test_notebooks.py runs the notebooks",
    ("docs/install.md", "pip"): INDEX,
    ("docs/install.md", "xnn"): "ends its process; tests/cli/test_startup.py runs such commands",
    ("docs/naming.md", "pip"): INDEX,
    (
        "docs/naming.md",
        "xnn name RUN TEST_DIR",
    ): "a server; tests/apps/naming/test_naming_page.py talks to it",
    (
        "docs/attach_to_a_vit.md",
        "xnn fit",
    ): "needs a vision transformer; tests/xnn/test_token_xnn.py does the same",
    ("docs/evaluation.md", "pip"): INDEX,
    ("docs/evaluation.md", "xnn benchmark"): DATA,
    ("docs/evaluation_funnybirds.md", "pip"): INDEX,
    ("docs/evaluation_funnybirds.md", "xnn benchmark"): DATA,
    **{(page, "xnn benchmark"): DATA for page in measured("xnn benchmark")},
    **{(page, "python"): LONG for page in measured("python")},
    ("docs/planted.md", "xnn"): LONG,
    ("docs/compare.md", "import numpy"): "tests/xnn/test_other_libraries.py, if Quantus is here",
    ("docs/attribution_methods.md", "python"): DATA,
    ("docs/excitation_backprop.md", '@register("view"'): "quotes the package's source",
    ("docs/design.md", ""): "a list of modules, no code",
}
"""Also said on the page, in a line *Not run by the tests: ...*."""

HEAVY = (
    "README.md",
    "docs/atlas.md",
    "docs/attach_to_a_vit.md",
    "docs/clip.md",
    "docs/many_classes.md",
    "docs/own_network.md",
    "docs/unusual_inputs.md",
    "docs/what_if.md",
)
WORKERS = {"--jobs", "--engine", "--address"}


def reason_not_to_run(page, text):
    for (where, start), why in NOT_RUN.items():
        if where == page and text.startswith(start):
            return why
    return ""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


@pytest.fixture(scope="module")
def found():
    """What python blocks may use, made once; pages work on copies."""
    return names_of_a_page()


@pytest.fixture
def place(world, tmp_path, monkeypatch):
    """A folder of its own for each page, with everything that pages name."""
    folder = tmp_path / "page"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    use_stand_ins(monkeypatch)
    fsspec.register_implementation("s3", MemoryFileSystem, clobber=True)
    yield folder
    sys.modules.pop("my_project", None)
    MemoryFileSystem.store.clear()


def commands_of(blocks):
    """All command lines of console blocks."""
    shells = [block for block in blocks if block.language == "console"]
    return [" ".join(words) for block in shells for words in block.commands()]


def one_process(words):
    """The same command in this process, since workers do not know the stand-ins; smaller maps."""
    result = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in WORKERS:
            skip = True
        elif result and result[-1] == "--map-size":
            result.append(str(int(word) * SIZE // 224))
        else:
            result.append(word)
    return result


def run_console(block, page):
    for words in block.commands():
        text = " ".join(words)
        if reason_not_to_run(page, text):
            continue
        assert words[0] == "xnn", f"{block.name}: only xnn runs here; list {text!r} in NOT_RUN"
        assert main(one_process(words[1:])) == 0, f"{block.name}: {text}"


def blocks_to_run(page):
    """Those with something that is not listed in NOT_RUN."""
    for block in read_blocks(page):
        commands = commands_of([block]) or [block.text]
        if not reason_not_to_run(page, block.text) and not all(
            reason_not_to_run(page, text) for text in commands
        ):
            yield block


RUN = tuple(page for page in PAGES if any(blocks_to_run(page)))
"""Pages with something to run."""


def run_page(page, names):
    out = io.StringIO()
    for block in blocks_to_run(page):
        with warnings.catch_warnings(), redirect_stdout(out):
            warnings.simplefilter("ignore", XNNWarning)
            if block.language == "python":
                code = "\n" * block.line + block.text  # errors then name the line of the page
                exec(compile(code, page, "exec"), names)
            elif block.language == "console":
                run_console(block, page)
            else:
                pytest.fail(f"{block.name}: a {block.language or 'plain'} block; list it")
    return out.getvalue()


@pytest.mark.parametrize(
    "page", [pytest.param(p, marks=pytest.mark.slow) if p in HEAVY else p for p in RUN]
)
def test_every_block_of_a_page_runs(page, place, found):
    run_page(page, copy.deepcopy(found))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_what_is_not_run(page):
    """A reader sees the same as this file: *Not run by the tests: ...* on the page."""
    if page == "docs/design.md":
        return
    blocks = read_blocks(page)
    texts = [*(block.text for block in blocks), *commands_of(blocks)]
    left_out = any(reason_not_to_run(page, text) for text in texts)
    said = "Not run by the tests:" in (ROOT / page).read_text("utf-8")
    assert said == left_out


def test_no_reason_is_left_over():
    for (page, start), _ in NOT_RUN.items():
        blocks = read_blocks(page)
        texts = [block.text for block in blocks]
        texts += [
            " ".join(words) for b in blocks if b.language == "console" for words in b.commands()
        ]
        assert any(text.startswith(start) for text in texts), (page, start)


def test_pages_and_pictures_that_are_linked_exist():
    for page in PAGES:
        text = re.sub(r"```.*?```|`[^`]*`", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert ((ROOT / page).parent / target).is_file(), f"{page} links {target}"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M))
    made = {f"notebooks/{path.stem}.md" for path in ROOT.glob("examples/notebooks/*.ipynb")}
    there = {page.removeprefix("docs/") for page in PAGES if page != "README.md"}
    assert listed == there | made  # docs/notebook_pages.py makes these


def rows_of_tables(page):
    lines = (ROOT / page).read_text("utf-8").splitlines()
    return [line for line in lines if line.startswith("| ") and ".py`" in line]


def names_defined_in(path):
    """Classes, functions and variables of a module."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        found |= {target.id for target in targets if isinstance(target, ast.Name)}
        found |= {node.name} if hasattr(node, "name") else set()
    return found


@pytest.mark.parametrize(
    "row", rows_of_tables("docs/where_do_i_change.md") + rows_of_tables("CONTRIBUTING.md")
)
def test_every_file_and_name_that_the_tables_send_a_reader_to_exists(row):
    words = re.findall(r"`([^`]+)`", row)
    files = [word for word in words if word.endswith(".py") and "NAME" not in word]
    places = [ROOT / word if word.startswith("tests/") else PACKAGE / word for word in files]
    assert all(place.is_file() for place in places), row
    defined = set().union(*(names_defined_in(place) for place in places))
    assert {word for word in words if word.isidentifier()} <= defined, row


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_module_that_a_page_names_exists(page):
    """`perf/fit_speed.py`, `attribution/methods.py`, and without its ending `training/fit`."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    rooms = {room.name for room in PACKAGE.iterdir() if room.is_dir()}
    for path in re.findall(r"`([\w/]+/[\w/]*(?:\.py)?)`", text):
        if "NAME" in path or not (path.endswith(".py") or path.split("/")[0] in rooms):
            continue
        places = [folder / path for folder in (ROOT, ROOT / "src", PACKAGE)]
        found = [*places, *(place.with_suffix(".py") for place in places)]
        assert any(place.exists() for place in found), f"{page} names {path}"


def test_examples_of_where_to_change_something():
    assert len(rows_of_tables("docs/where_do_i_change.md")) >= 10


def test_the_rooms_are_drawn_as_they_are():
    """`python docs/draw_rooms.py` draws them again."""
    script = runpy.run_path(str(ROOT / "docs" / "draw_rooms.py"))
    rooms, pairs = script["rooms_in_order"](), script["imports"]()
    assert script["FILE"].read_text("utf-8") == script["draw"](rooms, pairs)
    table = (ROOT / "docs" / "design.md").read_text("utf-8")
    for room in rooms:
        assert f"| `{room}/` |" in table or f"| `{room}.py` |" in table


def test_blocks_are_read_with_their_language_and_continued_lines():
    (first, *_) = [b for b in read_blocks("docs/benchmarks/settings.md") if "tune" in b.text]
    assert first.language == "console"
    (words,) = first.commands()
    assert "--betas" in words
    assert "\\" not in words


@pytest.mark.slow
def test_the_gallery_is_made_by_its_script(tmp_path):
    script = runpy.run_path(str(ROOT / "perf" / "docs_gallery.py"))
    script["main"](tmp_path, classes=1, epochs=1)
    page = (tmp_path / "gallery.md").read_text("utf-8")
    assert "CC BY 4.0" in page
    (linked,) = re.findall(r"\]\((gallery/[^)]*)\)", page)
    assert (tmp_path / linked).read_bytes()[8:12] == b"WEBP"
    committed = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    assert committed.startswith(page.partition("The network is right")[0])


def test_the_reference_shows_every_public_method_of_an_xnn():
    """Methods that are functions of another room, too, which a reader of source text misses."""
    griffe = pytest.importorskip("griffe", reason="pip install 'torchxnn[docs]'")
    extensions = griffe.load_extensions(str(ROOT / "docs" / "griffe_extension.py"))
    loader = griffe.GriffeLoader(extensions=extensions, search_paths=[str(ROOT / "src")])
    shown = loader.load("torchxnn")["xnn.XNN"]
    methods = {name for name, value in vars(XNN).items() if callable(value)}
    for name in sorted(name for name in methods if not name.startswith("_")):
        assert shown[name].is_function, name
        assert shown[name].docstring, name


@pytest.mark.slow
def test_the_pictures_of_limits_are_made_by_their_script(tmp_path):
    script = runpy.run_path(str(ROOT / "perf" / "docs_limits.py"))
    script["main"](tmp_path, epochs=1)
    page = (ROOT / "docs" / "limits.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(gallery/([^)]*)\)", page))
    assert linked == {path.name for path in (tmp_path / "gallery").iterdir()}
    for name in linked:
        assert (ROOT / "docs" / "gallery" / name).stat().st_size > 5_000
