"""Forward simulation and the odd cue in a real browser: whole sessions on a desktop and a phone."""

import pytest

import study_browser as b
from real_browser import PHONE
from study_plan import CLASSES, write_tiny_study
from torchxnn.apps.study.export import read_tables

pytestmark = pytest.mark.slow

DESKTOP = {"viewport": {"width": 1280, "height": 900}}
HANDS = {"mouse": DESKTOP, "touch": PHONE, "keyboard": DESKTOP}


def sessions(chromium, served, visit):
    """One participant by mouse, one by touch, one by keys alone: a stage each."""
    for how, size in HANDS.items():
        problems = []
        with chromium.new_context(**size) as context:
            context.set_default_timeout(120_000)
            page = context.new_page()
            b.watch(page, problems)
            hand = b.HANDS[how](page)
            b.agree(page, hand, served.url)
            hand.press(page.get_by_role("button", name="Continue"))
            page.wait_for_url("**/instructions")
            hand.press(page.get_by_role("button", name="Go to the practice round"))
            visit(page, hand)
            page.wait_for_url("**/ratings")
            for scale in page.locator("fieldset.scale").all():
                hand.choose(scale.locator("input"), 2)
            hand.press(page.get_by_role("button", name="Finish"))
            page.wait_for_url("**/done")
        assert not problems


def check(page):
    """Nothing is too wide, all maps are equally large, and everything can be read."""
    widths = page.locator(".shown img").evaluate_all(
        "all => all.filter((e) => e.checkVisibility()).map((e) => e.getBoundingClientRect().width)"
    )
    of_rows = page.locator(".shown.many").count()  # with x-features
    assert not of_rows or min(filter(None, widths)) > 0.9 * max(widths) or _asks(page)
    assert b.overflow(page) <= 0
    assert not b.weak_contrasts(page)


def _asks(page):
    """Whether new pictures, which are plain and larger, stand beside those that were learned."""
    return page.locator("section .shown").count() and page.locator("section .shown").is_visible()


def rate(page, hand):
    page.wait_for_url("**/confidence")
    hand.choose(page.locator("[name=confidence]"), 4)
    if page.locator("[name=attention]").count():
        hand.choose(page.locator("[name=attention]"), 2)
    check(page)
    hand.press(page.get_by_role("button", name="Continue"))


def test_forward_simulation(chromium, tmp_path):
    task = {"task": "forward_simulation", "rounds": 1, "images_per_set": 4}
    plan = write_tiny_study(tmp_path, keys=("birds",), **task)
    truth = {image.id: CLASSES.index(image.predicted) for image in plan.data_sets[0].images}

    def visit(page, hand):
        for position in (0, 1):
            page.wait_for_url(f"**/stage/{position}")
            page.locator("#work").wait_for()
            check(page)
            hand.press(page.get_by_role("button", name="Go to the new pictures"))
            assert page.locator(".dock .primary").is_disabled()
            for item in page.locator("section .shown > li").all():
                right = truth.get(item.get_attribute("data-id"), 0)
                hand.press(item.locator(".choices button").nth(right))
                if position:
                    assert item.locator(".feedback").is_hidden()
                else:
                    assert "the agent says" in item.locator(".feedback").inner_text().lower()
            b.saved(page)
            if position:  # who comes back goes on where they were
                page.reload()
                page.locator("section .shown").wait_for()
                assert page.locator(".choices [aria-pressed=true]").count() == 4
            check(page)
            hand.press(page.get_by_role("button", name="Done with this round"))
        rate(page, hand)

    with b.serve(tmp_path) as served:
        sessions(chromium, served, visit)
        tables = read_tables(served.site.database, plan)
    trials = tables["trials"][tables["trials"]["position"] > 0]
    assert set(trials["stage"]) == {"NoVis", "1-Heatmap", "XNN"}
    placed = tables["placements"]
    assert len(placed) == 12
    assert (placed["group"] == placed["image"].map(truth) + 1).all()
    assert tables["participants"]["input"].tolist() == ["mouse", "touch", "keyboard"]


def test_the_odd_cue(chromium, tmp_path):
    settings = {"task": "odd_cue", "images_per_set": 4, "sets": 2}
    plan = write_tiny_study(tmp_path, keys=("birds",), **settings)
    right = plan.data_sets[0].cue.right

    def visit(page, hand):
        page.locator("#work").wait_for()
        assert page.locator(".shown > li:visible").count() == 1
        hand.press(page.get_by_role("button", name="I know what it looks at"))
        assert "This agent looks for" in page.locator(".dock").inner_text()
        hand.press(page.get_by_role("button", name="Go on"))
        page.wait_for_url("**/stage/1")
        page.locator("#work").wait_for()
        hand.press(page.get_by_role("button", name="Show the next picture"))
        assert page.locator(".shown > li:visible").count() == 2
        b.saved(page)
        page.reload()
        page.locator("#work").wait_for()
        assert page.locator(".shown > li:visible").count() == 2
        hand.press(page.get_by_role("button", name="Show the next picture"))
        assert "3 of 4 pictures seen" in page.locator(".dock").inner_text()
        check(page)
        hand.press(page.get_by_role("button", name="I know what it looks at"))
        page.wait_for_url("**/words")
        page.locator("textarea").fill("a dot?")
        check(page)
        hand.press(page.get_by_role("button", name="Continue"))
        page.wait_for_url("**/confidence")
        options = page.locator("fieldset").first.locator("label").all_inner_texts()
        assert options[-1] == "I cannot tell"
        hand.choose(page.locator("[name=cue]"), options.index(right))
        rate(page, hand)

    with b.serve(tmp_path) as served:
        sessions(chromium, served, visit)
        trials = read_tables(served.site.database, plan)["trials"]
    trials = trials[trials["position"] > 0]
    assert trials["cue_right"].all()
    assert trials["seen"].tolist() == [3, 3, 3]
    assert trials["words"].tolist() == ["a dot?"] * 3
