"""A laboratory computer in a real browser: two people, below a path, with mouse and finger."""

import re

import pytest

import study_browser as b
from study_plan import write_tiny_study
from torchxnn.apps.study.export import read_tables

ADA = {"PROLIFIC_PID": "ada", "SESSION_ID": "0f3c2a9d7e"}
BOTH_HANDS = {"viewport": {"width": 1280, "height": 800}, "has_touch": True}


@pytest.mark.slow
def test_two_people_at_one_computer_below_a_path(chromium, tmp_path):
    plan = write_tiny_study(tmp_path, keys=("birds",))
    problems = []
    with (
        b.serve(tmp_path, base_path="/lab") as served,
        chromium.new_context(**BOTH_HANDS) as context,
    ):
        context.set_default_timeout(120_000)
        page = context.new_page()
        b.watch(page, problems)
        mouse, touch = b.Mouse(page), b.Touch(page)
        url = f"{served.url}/lab"
        b.agree(page, mouse, url, **ADA)
        page.get_by_role("button", name="Continue").click()
        personal = page.locator("#personal").inner_text()
        assert re.fullmatch(rf"{url}/resume/\w+", personal)
        page.get_by_role("button", name="Go to the practice round").click()
        images = b.opened(page, 0)
        touch.place(images[0], 1)
        mouse.place(images[1], 2)
        page.locator(f'.card[data-id="{images[1]}"] .picture').focus()
        page.keyboard.press("3")
        b.saved(page)
        before = b.placed(page)
        assert before == {images[0]: 1, images[1]: 3}

        other = context.new_page()
        b.watch(other, problems)
        b.agree(other, b.Mouse(other), url, PROLIFIC_PID="bob", SESSION_ID="77")
        assert not problems
        touch.place(images[2], 4)  # Ada's page is still open: this is not Bob's
        page.get_by_text("open the link of your invitation").wait_for()
        assert page.get_by_role("button", name="Load again").count() == 0
        problems.clear()  # the console says that the server refused it

        page.goto(f"{url}/?PROLIFIC_PID=ADA&SESSION_ID=0f3c2a9d7e")
        b.opened(page, 0)
        b.saved(page)
        assert b.placed(page) == before | {images[2]: 4}  # kept in the browser, and sent now
        found = read_tables(served.site.database, plan)
    assert not problems
    assert found["participants"]["inputs"].fillna("").tolist() == [
        "touch 2, mouse 1, keyboard 1",
        "",
    ]
