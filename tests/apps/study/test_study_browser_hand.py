"""What a real browser says of the hand that moves pictures: a mouse, keys, and a script."""

import json

import pytest

import study_browser as b
from study_plan import write_tiny_study
from torchxnn.apps.study.export import read_tables
from torchxnn.apps.study.plan import CONSENT
from torchxnn.apps.study.texts import default_consent

SCRIPT = "document.querySelector('.put button[data-group=\"2\"]').click()"


def moves(plan, served):
    events = read_tables(served.site.database, plan)["events"]
    return [json.loads(value) for value in events.loc[events["type"] == "move", "value"]]


@pytest.mark.slow
@pytest.mark.parametrize("said", [True, False])
def test_travel_is_kept_where_it_is_said(chromium, tmp_path, said):
    plan = write_tiny_study(tmp_path, keys=("birds",))
    if said:
        (tmp_path / CONSENT).write_text(default_consent(), "utf-8")
    problems = []
    with b.serve(tmp_path) as served:
        page = chromium.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(120_000)
        b.watch(page, problems)
        mouse = b.Mouse(page)
        b.begin(page, mouse, served.url)
        images = b.opened(page, 0)
        mouse.place(images[0], 1)
        page.locator(f'.card[data-id="{images[1]}"] .picture').click()
        page.evaluate(SCRIPT)
        b.saved(page)
        page.evaluate("dispatchEvent(new Event('blur'))")
        found = moves(plan, served)
    assert not problems
    assert [move["group"] for move in found] == [1, 2]
    if not said:
        assert all(set(move) == {"group", "how", "by"} for move in found)
        return
    drag, script = found
    assert drag["trusted"]
    assert drag["samples"] >= 2
    assert drag["travel"] >= drag["direct"] > 50
    assert not script["trusted"]
