"""The pages as a reader meets them: pictures with captions, pages that end, a whole site."""

import re
import runpy
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from docs_examples import PAGES, ROOT
from torchxnn import XNN

MOST_WORDS, MOST_LINES = 2100, 230
"""Words outside of tables and code, which are looked up rather than read; lines of the file."""
MOST_PIXELS = 10_000
"""Height of a page of the reference on a desktop."""
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)]*)\)")
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}


def paragraphs(page):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    return [part.strip() for part in re.split(r"\n\s*\n", text)]


@pytest.mark.parametrize("page", PAGES)
def test_every_picture_says_what_it_shows_and_has_a_caption(page):
    """In words for who cannot see it, and in the paragraph in italics below it for everybody."""
    found = paragraphs(page)
    for place, part in enumerate(found):
        for alt, file in PICTURE.findall(part):
            assert len(alt.split()) >= 6, f"{page}: {file} says too little of what it shows"
            assert PICTURE.fullmatch(part), f"{page}: {file} is not a paragraph of its own"
            caption = found[place + 1]
            italics = re.fullmatch(r"\*(?!\*).+[.?)]\*", caption, re.DOTALL)
            assert italics, f"{page}: {file} has no caption in italics below it"


@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_longer_than_a_reader_bears(page):
    lines = (ROOT / page).read_text("utf-8").splitlines()
    read = [line for part in paragraphs(page) for line in part.splitlines() if line[:1] != "|"]
    words = len(" ".join(read).split())
    too_long = f"{page}: {words} words, {len(lines)} lines; give a part of it a page of its own"
    assert words <= MOST_WORDS, too_long
    assert len(lines) <= MOST_LINES, too_long


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Requests are no news."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, behind a server on this machine; its address and the paths of its pages."""
    pytest.importorskip("material", reason="pip install 'torchxnn[docs]'")
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    handler = partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    paths = [str(path.relative_to(folder).parent) for path in folder.rglob("index.html")]
    yield f"http://127.0.0.1:{server.server_port}", sorted(paths), folder
    server.shutdown()
    server.server_close()


def open_page(chromium, **settings):
    page = chromium.new_page(**settings)
    page.set_default_timeout(120_000)  # of a machine that is busy with something else
    return page


@pytest.mark.slow
@pytest.mark.parametrize("screen", WIDTHS)
def test_pages_ask_for_nothing_from_elsewhere_and_fit_the_screen(site, chromium, screen):
    address, paths, _ = site
    width, height = WIDTHS[screen]
    scheme = "dark" if screen == "phone" else "light"
    page = open_page(chromium, viewport={"width": width, "height": height}, color_scheme=scheme)
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda one: failed.append(one.url) if one.status >= 400 else None)
    assert len(paths) > 40
    for path in paths:
        page.goto(f"{address}/{path}/")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        if screen == "desktop" and path.startswith("api/"):
            assert page.evaluate("document.documentElement.scrollHeight") <= MOST_PIXELS, path
    page.close()
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert failed == []


@pytest.mark.slow
def test_a_picture_stands_in_a_figure_with_its_caption(site):
    _, _, folder = site
    text = (folder / "limits" / "index.html").read_text("utf-8")
    assert text.count("<figcaption>") == text.count("<img alt=") == 4


def reference_pages():
    """The script that makes the pages of the reference."""
    pytest.importorskip("mkdocs", reason="pip install 'torchxnn[docs]'")
    return runpy.run_path(str(ROOT / "docs" / "api_pages.py"))


def test_everything_public_is_on_one_page_of_the_reference():
    """A module that is in no subject is missed on the site: docs/api_pages.py lists them."""
    script = reference_pages()
    for room in script["SUBJECTS"]:
        public = sorted(name for name, _ in script["public_names"](room))
        shown = sorted(name for one in script["subjects"](room) for name in one.names)
        assert shown == public
        assert all(one.names for one in script["subjects"](room))


def test_every_method_of_an_xnn_is_on_one_page_of_the_reference():
    pages = [names.split() for _, names in reference_pages()["XNN_PAGES"].values()]
    text = (ROOT / "docs" / "api" / "xnn.md").read_text("utf-8")
    pages.append(re.search(r"members: \[(.*)\]", text)[1].split(", "))
    public = {name for name in vars(XNN) if not name.startswith("_")}
    assert sorted(name for page in pages for name in page) == sorted(public - {"training"})


@pytest.mark.slow
def test_old_links_into_the_reference_lead_to_a_line_with_the_new_one(site):
    """All of a room was on one page once."""
    _, _, folder = site
    for room, name in {"metrics": "metrics.pointing_game", "xnn": "XNN.explain"}.items():
        text = (folder / "api" / room / "index.html").read_text("utf-8")
        (line,) = re.findall(rf'<span id="torchxnn\.{re.escape(name)}"></span>.*', text)
        (target,) = re.findall(rf'href="([^"#]+)#torchxnn\.{re.escape(name)}"', line)
        page = (folder / "api" / room / target / "index.html").read_text("utf-8")
        assert f'id="torchxnn.{name}"' in page


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "page"), [("contrast mass", "limits"), ("masked_accuracy", "api/metrics/masking")]
)
def test_search_finds_a_page(site, chromium, words, page):
    address, _, _ = site
    view = open_page(chromium, viewport={"width": 1280, "height": 900})
    view.goto(f"{address}/")
    view.keyboard.press("f")
    view.keyboard.type(words)
    view.locator(f".md-search-result__link[href*='{page}']").first.wait_for()
    view.close()


@pytest.mark.slow
def test_the_site_is_light_and_dark_as_the_system_says(site, chromium):
    address, _, _ = site
    seen = {}
    for scheme in ("light", "dark"):
        page = open_page(chromium, color_scheme=scheme)
        page.goto(f"{address}/theory/")
        page.wait_for_selector("body[data-md-color-scheme]")
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        seen[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3]))
        page.close()
    assert seen["light"] > 3 * 200 > 3 * 80 > seen["dark"]
