"""Every page of a session as a screen reader has it, and turned round for right-to-left scripts."""

import re

import pytest

import study_browser as b
from study_plan import write_tiny_study

pytestmark = pytest.mark.slow

TASKS = {
    "clustering": {"sets": 3, "images_per_set": 4},
    "forward_simulation": {"rounds": 1, "images_per_set": 4},
    "odd_cue": {"images_per_set": 4},
}
STAGES = {"clustering": 1, "forward_simulation": 3, "odd_cue": 3}
"""Participants after whom all stages were seen."""
SIZES = ((390, 844), (1280, 900))
PAGES = {
    "consent",
    "about-you",
    "instructions",
    "stage",
    "confidence",
    "ratings",
    "done",
    "nowhere",
}
NAMED = "button|link|checkbox|radio|radiogroup|textbox|combobox|progressbar|img|dialog|heading"


# --- the way through a session


def walk(chromium, folder, task, look, **settings):
    """Whole sessions of a task; `look` is called with every page, and with some again later."""
    write_tiny_study(folder, keys=("birds",), task=task, **TASKS[task], **settings)
    with b.serve(folder) as served:
        for _ in range(STAGES[task]):
            with chromium.new_context(viewport={"width": 1280, "height": 900}) as context:
                context.set_default_timeout(60_000)
                seen = session(context.new_page(), served.url, task, look)
            assert seen - {"words"} == PAGES


def session(page, url, task, look):
    """One participant; the names of the pages that were seen."""
    seen = set()
    page.goto(url)
    while (name := name_of(page)) != "done":
        if name == "stage":
            page.locator("#work").wait_for()
        look(page, name)
        seen.add(name)
        before = page.url
        WAYS[task if name == "stage" else "other"](page, look)
        page.wait_for_url(lambda address, before=before: address != before)
    look(page, "done")
    page.goto(f"{url}/nowhere")
    look(page, "nowhere")
    return seen | {"done", "nowhere"}


def name_of(page):
    parts = page.url.split("?")[0].split("/")[3:]
    return next((part for part in reversed(parts) if part and not part.isdigit()), "consent")


def fill_in(page, look):
    for box in page.get_by_role("checkbox").all():
        box.check()
    for scale in page.locator("fieldset.scale").all():
        scale.locator("input").nth(2).check()
    page.locator("form .primary").click()


def cluster(page, look):
    page.get_by_role("button", name="Help").click()
    look(page, "help")
    assert page.get_by_text("Keyboard: arrow keys go from picture to picture.").is_visible()
    page.keyboard.press("Escape")
    b.sort_quickly(page, int(page.url.rsplit("/", 1)[1]))
    look(page, "stage")
    page.get_by_role("button", name=re.compile("Done with this batch|Go on to the study")).click()


def predict(page, look):
    page.get_by_role("button", name="Go to the new pictures").click()
    for row in page.locator(".choices").all():
        row.get_by_role("button").first.click()
    look(page, "stage")
    page.get_by_role("button", name="Done with this round").click()


def find_cue(page, look):
    page.get_by_role("button", name="Show the next picture").click()
    look(page, "stage")
    page.get_by_role("button", name="I know what it looks at").click()
    if page.url.endswith("/stage/0"):
        look(page, "stage")
        page.get_by_role("button", name="Go on").click()


WAYS = {"clustering": cluster, "forward_simulation": predict, "odd_cue": find_cue, "other": fill_in}


# --- what is looked for


def hear(page, name):
    """What a screen reader is told of a page."""
    told = page.locator("body").aria_snapshot()
    where = f"{name}\n{told}"
    if name != "help":  # a window over the page has its own heading
        assert len(re.findall(r"- heading .*\[level=1\]", told)) == 1, where
    assert re.search(r"- main:", told), where
    assert re.search(r"- banner:", told), where
    assert not re.search(rf"^\s*- ({NAMED})(?! \"| /)", told, re.M), where
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("html[lang][dir]").count() == 1
    assert not b.nameless(page), where
    if name == "stage":
        live = page.locator("main :is([aria-live], [role=status], [role=alert])")
        assert live.count() >= 3
        shown = page.locator(".picture:visible, .enlarge:visible")
        assert told.count('button "Picture') + told.count('button "Enlarge') >= shown.count() > 0
    if name in ("confidence", "ratings"):
        assert 'group "' in told, where


def measure(page, name):
    """No page is wider than the window, and all is turned round."""
    assert page.locator("html").get_attribute("dir") == "rtl"
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, (name, width)
        assert page.evaluate(OUTSIDE) == [], (name, width)


OUTSIDE = """() => [...document.querySelectorAll("main :is(button, p, h1, input, img)")]
  .filter((element) => element.checkVisibility() && !element.closest(".scroll, .unseen"))
  .filter((element) => {
    const box = element.getBoundingClientRect();
    return box.left < -1 || box.right > innerWidth + 1;
  })
  .map((element) => element.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize("task", TASKS)
def test_a_screen_reader_finds_its_way(chromium, tmp_path, task):
    walk(chromium, tmp_path, task, hear)


@pytest.mark.parametrize("task", TASKS)
def test_pages_that_are_read_from_right_to_left(chromium, tmp_path, task):
    walk(chromium, tmp_path, task, measure, language="ar")


def test_keys_go_the_way_that_pictures_lie(chromium, tmp_path):
    write_tiny_study(tmp_path, keys=("birds",), language="he", **TASKS["clustering"])
    with b.serve(tmp_path) as served, chromium.new_context() as context:
        page = context.new_page()
        b.begin(page, b.Mouse(page), served.url)
        assert page.get_by_text("Select pictures, then a group:").is_visible()
        first, second = page.locator(".tray .picture").nth(0), page.locator(".tray .picture").nth(1)
        assert first.bounding_box()["x"] > second.bounding_box()["x"]
        first.focus()
        page.keyboard.press("ArrowLeft")
        assert second.evaluate("element => element === document.activeElement")
        page.keyboard.press("ArrowRight")
        assert first.evaluate("element => element === document.activeElement")


def test_the_keyboard_way_is_told_in_the_instructions(chromium, tmp_path):
    write_tiny_study(tmp_path, keys=("birds",), **TASKS["clustering"])
    with b.serve(tmp_path) as served, chromium.new_context() as context:
        page = context.new_page()
        b.agree(page, b.Mouse(page), served.url)
        page.get_by_role("button", name="Continue").click()
        assert page.get_by_text("Keyboard: go to it with the arrow keys").is_visible()
