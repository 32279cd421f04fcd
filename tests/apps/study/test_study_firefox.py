"""A whole session of each task in Firefox, in German, and pages turned round."""

import pytest

import study_browser as b
import study_firefox
from study_plan import write_tiny_study
from torchxnn.apps.study.export import read_tables

if study_firefox.FIREFOX is None:
    pytest.skip("firefox-esr is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow

TASKS = {
    "clustering": {"sets": 3, "images_per_set": 4},
    "forward_simulation": {"rounds": 1, "images_per_set": 4},
    "odd_cue": {"images_per_set": 4},
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with study_firefox.firefox(tmp_path_factory.mktemp("profile")) as found:
        yield found


def session(browser, url, task, direction):
    """Through a study by mouse and keys."""
    browser.go(url)
    while browser.path != "/done":
        path = browser.path
        check(browser, direction)
        if path.startswith("/stage/") and path.count("/") == 2:
            browser.first("#work:not([hidden])")
            check(browser, direction)
            STAGES[task](browser, path)
        else:
            for box in browser.all("[type=checkbox]"):
                browser.click(box)
            for number in range(len(browser.all("fieldset.scale"))):
                chosen = f"fieldset.scale:nth-of-type({number + 1}) label:nth-of-type(3) input"
                browser.click(browser.first(chosen))
            browser.leave("form .primary")
    check(browser, direction)


def check(browser, direction):
    """No page is wider than the window."""
    assert browser.run("return document.documentElement.dir") == direction
    for width in (1280, 500):
        browser.size(width, 900)
        wide = browser.run("return document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, (browser.path, width)
    browser.size(1280, 900)


def cluster(browser, path):
    for part in (1, 2) if path == "/stage/0" else (1,):
        pictures = browser.all(".tray .picture")
        browser.drag(pictures[0], browser.first('.zone[data-group="1"] h2'))
        b.wait_until(lambda: len(browser.all('.zone[data-group="1"] .card')) == 1, 10)
        for number, picture in enumerate(pictures[1:]):
            browser.type(picture, str(number % 4 + 1))
        b.wait_until(lambda: not browser.all(".tray .card"), 10)
        if path == "/stage/0":
            browser.click(browser.first(".dock .primary"))
            if part == 1:
                browser.click(browser.first(".feedback button"))
                browser.first(".zones.many")
    browser.leave(".feedback button" if path == "/stage/0" else ".dock .primary")


def predict(browser, path):
    browser.click(browser.first("#work > p .primary"))
    for choice in browser.all(".choices button:first-of-type"):
        browser.click(choice)
    browser.leave(".dock .primary")


def find_cue(browser, path):
    browser.click(browser.first(".dock button:not(.primary)"))
    if path == "/stage/0":
        browser.click(browser.first(".dock .primary"))
        browser.first(".dock [role=status]")
    browser.leave(".dock .primary")


STAGES = {"clustering": cluster, "forward_simulation": predict, "odd_cue": find_cue}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("language", "direction"), [("de", "ltr"), ("ar", "rtl")])
def test_a_session(browser, tmp_path, task, language, direction):
    settings = {"task": task, "language": language, **TASKS[task]}
    plan = write_tiny_study(tmp_path, keys=("birds",), **settings)
    with b.serve(tmp_path) as served:
        session(browser, served.url, task, direction)
        tables = read_tables(served.site.database, plan)
    assert tables["participants"]["status"].tolist() == ["finished"]
