"""The study in a real browser: whole sessions by mouse, touch and keyboard; what can go wrong."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import select

import study_browser as b
from real_browser import DESKTOP, PHONE
from study_plan import CLASSES, write_tiny_study
from torchxnn.apps.study.export import read_tables
from torchxnn.apps.study.settings import Recruitment
from torchxnn.apps.study.store.schema import placements

COMPLETION = "https://recruiter.example/done"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    recruitment = Recruitment(completion_url=f"{COMPLETION}?cc={{code}}")
    return path, write_tiny_study(path, keys=("birds",), recruitment=recruitment)


@pytest.fixture
def folder(made, tmp_path):
    """The study with an empty database."""
    for part in made[0].iterdir():
        (tmp_path / part.name).symlink_to(part)
    return tmp_path


@pytest.fixture
def served(folder):
    with b.serve(folder) as found:
        yield found


@pytest.fixture
def problems():
    """What the browser complained about; a test that expects complaints clears it."""
    found = []
    yield found
    assert not found


@pytest.fixture
def context(chromium):
    with chromium.new_context(**DESKTOP) as found:
        found.set_default_timeout(120_000)
        yield found


@pytest.fixture
def page(context, problems):
    found = context.new_page()
    b.watch(found, problems)
    return found


def tables(served, plan):
    return read_tables(served.site.database, plan)


def stored(served, position):
    """Groups by picture in the database, also of a batch that is not handed in."""
    found = select(placements.c.image, placements.c.in_group)
    with served.site.database.reading() as connection:
        return dict(map(tuple, connection.execute(found.where(placements.c.position == position))))


def values(events, kind):
    return [json.loads(value) for value in events.loc[events["type"] == kind, "value"]]


# --- whole sessions


def look_at_heatmaps(page, hand, how):
    """Stage 1-Heatmap: the overlay of one picture, and the switch of all."""
    picture = page.locator(".card img").first
    plain = picture.get_attribute("src")
    if how == "mouse":
        page.locator(".picture").first.hover()
        # it counts only after a moment; the page's own clock says when that is over
        page.evaluate("new Promise((go) => setTimeout(go, 200))")
        assert picture.get_attribute("src") != plain
        page.locator("h1").hover()
    elif how == "touch":
        eye = page.locator(".card").first.get_by_role("button", name="Heatmap of picture")
        hand.press(eye)
        assert eye.get_attribute("aria-pressed") == "true"
        assert picture.get_attribute("src") != plain
        hand.press(eye)
    else:
        hand.reach(page.locator('.picture[tabindex="0"]'))
        page.keyboard.press("Home")
        page.keyboard.press("h")
        assert picture.get_attribute("src") != plain
        page.keyboard.press("h")
    assert picture.get_attribute("src") == plain
    switch = page.get_by_role("button", name="Show all heatmaps")
    hand.press(switch)
    assert switch.get_attribute("aria-pressed") == "true"
    shown = page.locator(".card img").evaluate_all("all => all.map(each => each.src)")
    hand.press(switch)
    hidden = page.locator(".card img").evaluate_all("all => all.map(each => each.src)")
    assert len(set(shown) | set(hidden)) == 20


def look_at_features(page, hand, how):
    """Stage XNN: switches of all pictures, comparison with maps on and off, large view."""
    switches = page.locator("#work > .tools .switch")
    assert switches.all_inner_texts() == [f"H{n}" for n in range(1, 8)]
    assert page.locator(".card .maps figure").count() == 70
    hand.press(page.get_by_role("button", name="None"))
    hand.press(switches.nth(0))
    hand.press(switches.nth(6))
    assert page.locator(".card .maps figure").count() == 20
    labels = page.locator(".card .share")
    looks = {labels.nth(n).locator("[aria-hidden]").inner_text(): n for n in range(20)}
    colour = "element => getComputedStyle(element).backgroundColor"
    assert labels.nth(looks["H1 +80%"]).evaluate(colour) == "rgb(179, 38, 30)"
    assert labels.nth(looks["H7 \N{MINUS SIGN}20%"]).evaluate(colour) == "rgb(31, 95, 191)"
    assert "H1 0%" in looks
    hand.press(page.get_by_role("button", name="None"))
    assert page.locator(".card .maps figure").count() == 0
    for n in range(3):
        if how == "keyboard":
            hand.reach(page.locator('.picture[tabindex="0"]'))
            page.keyboard.press("Home")
            for _ in range(n):
                page.keyboard.press("ArrowRight")
            page.keyboard.press("Space")
        else:
            hand.press(page.locator(".picture").nth(n))
    assert page.locator(".card.selected").count() == 3
    hand.press(page.get_by_role("button", name="Compare selected (3)"))
    dialog = page.get_by_role("dialog")
    assert dialog.locator("td").count() == 21
    hand.press(dialog.get_by_role("button", name="Heatmap 6 of all pictures"))
    assert dialog.locator("td").count() == 18
    close(page, hand, how)
    if how == "keyboard":
        hand.reach(page.locator('.picture[tabindex="0"]'))
        page.keyboard.press("z")
    else:
        hand.press(page.get_by_role("button", name="Enlarge picture 1", exact=True))
    assert dialog.locator("img").count() == 8
    close(page, hand, how)
    if how == "keyboard":
        assert page.locator(".picture:focus").count() == 1
        page.keyboard.press("Escape")
        assert page.locator(".card.selected").count() == 0


def close(page, hand, how):
    dialog = page.get_by_role("dialog")
    if how == "keyboard":
        page.keyboard.press("Escape")
    else:
        hand.press(dialog.get_by_role("button", name="Close"))
    dialog.wait_for(state="detached")


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("mouse", marks=pytest.mark.slow),
        pytest.param("touch", marks=pytest.mark.slow),
        "keyboard",
    ],
)
def test_whole_session(chromium, served, made, problems, how):
    plan = made[1]
    with chromium.new_context(**(PHONE if how == "touch" else DESKTOP)) as context:
        context.set_default_timeout(120_000)
        page = context.new_page()
        b.watch(page, problems)
        page.route(f"{COMPLETION}**", lambda route: route.fulfill(body="paid"))
        hand = b.HANDS[how](page)
        b.begin(page, hand, served.url, PROLIFIC_PID="p1", STUDY_ID="s1", other="x")
        wanted, seen = {}, []
        for position in range(4):
            wanted[position] = b.sort(page, hand, position)
            stage = b.stage_of(page) if position else "practice"
            seen.append(stage)
            if stage == "1-Heatmap":
                look_at_heatmaps(page, hand, how)
            elif stage == "XNN":
                look_at_features(page, hand, how)
            b.hand_in(page, hand)
            if position:
                b.answer_confidence(page, hand, position + 2)
        page.wait_for_url("**/ratings")
        hand.choose(page.locator("[name=rating_one_heatmap]"), 2)
        hand.choose(page.locator("[name=rating_xnn]"), 5)
        hand.choose(page.locator("[name=difficulty]"), 4)
        hand.press(page.get_by_role("button", name="Finish"))
        page.wait_for_url("**/done")
        code = page.locator(".code").inner_text()
        hand.press(page.get_by_role("link", name="Confirm that you finished"))
        page.wait_for_url(f"{COMPLETION}?cc={code}")
    assert seen[:2] == ["practice", "NoVis"]
    assert set(seen) == {"practice", "NoVis", "1-Heatmap", "XNN"}
    check_session(tables(served, plan), wanted, seen, how)
    check_leaks(served, plan)


def check_session(found, wanted, seen, how):
    """What the database has of a session."""
    person = found["participants"].iloc[0]
    assert (person["status"], person["input"]) == ("finished", how)
    assert person["inputs"].split()[::2] == [how]
    size = (390, 844) if how == "touch" else (1280, 800)
    assert (person["screen_width"], person["screen_height"]) == size
    assert json.loads(person["parameters"]) == {"PROLIFIC_PID": "p1", "STUDY_ID": "s1"}
    assert (person["rating_one_heatmap"], person["rating_xnn"], person["difficulty"]) == (3, 6, 4)
    assert bool(person["attention_passed"])
    trials = found["trials"].query("position > 0").set_index("position")
    assert trials["stage"].tolist() == seen[1:]
    assert trials["confidence"].tolist() == [4, 5, 6]
    assert (trials["moves"] == 10).all()
    assert (trials["seconds"] > 0).all()
    assert (trials["active_seconds"] > 0).all()
    toggles = trials.set_index("stage")["toggles"]
    assert toggles["NoVis"] == 0
    assert (toggles[["1-Heatmap", "XNN"]] >= 4).all()
    assert trials.set_index("stage")["zooms"]["XNN"] == 2
    for position in (1, 2, 3):
        own = found["placements"].query("position == @position")
        assert dict(zip(own["image"], own["group"], strict=True)) == wanted[position]
    for position in range(4):
        events = found["events"].loc[found["events"]["position"] == position]
        assert events["type"].tolist()[:2] == ["open", "device"]
        assert "loaded" in set(events["type"])
        assert (events["client_ms"].diff().dropna() >= 0).all()
        ways = {move["how"] for move in values(events, "move")}
        assert ways == {{"mouse": "drag", "touch": "tap", "keyboard": "keyboard"}[how]}
    compared = values(found["events"], "compare")
    assert [event["on"] for event in compared] == [True, False]
    assert compared[0]["count"] == 3
    assert {"feature": 6, "on": False} in values(found["events"], "compare_feature")
    assert {event["how"] for event in values(found["events"], "overlay")} == {
        {"mouse": "hover", "touch": "tap", "keyboard": "keyboard"}[how]
    }
    assert [event["on"] for event in values(found["events"], "all_overlays")] == [True, False]


def check_leaks(served, plan):
    """No class, file or data set in any address, header, page, answer or picture."""
    sent = served.recorder.sent
    files = {Path(image.file).name for image in plan.images}
    words = {*CLASSES, *files, "birds", "predicted", "circle", "triangle"}
    assert b.leaks(sent, words) == []
    pictures = [address for address, _, _ in sent if address.startswith("/media/")]
    assert len(pictures) > 100
    shown = [
        json.loads(body.split(b"\n")[-1])
        for address, _, body in sent
        if address.startswith("/api/") and address[-2:] in ("0?", "1?", "2?", "3?")
    ]
    assert len(shown) == 4
    for each in shown:
        told = {"kind"} if each["position"] == 0 else set()  # practice says what was right
        for image in each["images"]:
            assert set(image) == {"id", "picture", "heatmap", "features", "group"} | told


# --- looks, names, contrast


def check_looks(page, phone):
    assert b.weak_contrasts(page) == []
    assert b.nameless(page) == []
    if phone:
        assert b.overflow(page) <= 0


def look_around(page, hand, look, phone):
    """Every state and dialog of a part of a batch; all its pictures are placed afterwards."""
    look()
    stage = b.stage_of(page)
    if stage == "XNN":
        hand.press(page.get_by_role("button", name="All", exact=True))
    elif stage == "1-Heatmap":
        hand.press(page.get_by_role("button", name="Show all heatmaps"))
    count = len(b.pictures(page))
    for n in range(2):
        hand.press(page.locator(".picture").nth(n))
    look()
    if phone:
        page.set_viewport_size({"width": 320, "height": 640})
        look()
        page.set_viewport_size(PHONE["viewport"])
    for button in ("Compare selected (2)", "Enlarge picture 1", "Help"):
        hand.press(page.get_by_role("button", name=button, exact=True))
        look()
        hand.press(page.get_by_role("dialog").get_by_role("button", name="Close"))
    hand.press(page.locator('.dock [data-group="1"]'))
    for n in range(count - 2):
        page.locator(".tray .picture").first.press(str(n % 4 + 1))
    look()


@pytest.mark.parametrize(
    ("device", "scheme"),
    [
        ("desktop", "light"),
        pytest.param("desktop", "dark", marks=pytest.mark.slow),
        pytest.param("phone", "light", marks=pytest.mark.slow),
    ],
)
def test_every_page_can_be_read_and_named(chromium, served, made, problems, device, scheme):
    """Contrast, accessible names and width of every page, dialog and message."""
    phone = device == "phone"
    with chromium.new_context(
        **(PHONE if phone else DESKTOP), color_scheme=scheme, reduced_motion="reduce"
    ) as context:
        context.set_default_timeout(120_000)
        page = context.new_page()
        b.watch(page, problems)
        hand = b.HANDS["touch" if phone else "mouse"](page)

        def look():
            check_looks(page, phone)

        for path in ("/nothing", "/next", "/admin", f"/?pilot=1&n={device}"):
            page.goto(served.url + path)
            look()
        problems.clear()  # the browser notes answers of 4xx
        b.agree(page, hand, served.url, pilot=1)
        look()
        hand.press(page.get_by_role("button", name="Continue"))
        page.wait_for_url("**/instructions")
        look()
        hand.press(page.locator("button.primary"))
        for position in range(4):
            b.opened(page, position)
            for _ in b.parts(page, hand, position):
                look_around(page, hand, look, phone)
            b.hand_in(page, hand)
            if position:
                look()
                b.answer_confidence(page, hand, 3)
        for path in ("/ratings", "/delete"):
            page.goto(served.url + path)
            look()
        page.goto(f"{served.url}/ratings")
        for name in ("rating_one_heatmap", "rating_xnn", "difficulty"):
            hand.choose(page.locator(f"[name={name}]"), 3)
        hand.press(page.get_by_role("button", name="Finish"))
        page.wait_for_url("**/done")
        look()
        page.goto(f"{served.url}/admin")
        page.get_by_label("Admin token").fill("wrong")
        hand.press(page.get_by_role("button", name="Open"))
        page.get_by_role("alert").wait_for()
        look()
        problems.clear()
        page.get_by_label("Admin token").fill(b.ADMIN)
        hand.press(page.get_by_role("button", name="Open"))
        page.get_by_role("link", name="Take all answers").wait_for()
        look()


@pytest.mark.slow
def test_focus_can_be_seen_and_is_not_hidden(page, served):
    """Every element that Tab reaches has an outline and lies within the window, above the dock."""
    hand = b.Keyboard(page)
    b.begin(page, hand, served.url)
    page.set_viewport_size({"width": 1280, "height": 500})  # the dock covers a part of the page
    page.keyboard.press("Home")
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            """() => {
              const active = document.activeElement;
              const box = active.getBoundingClientRect();
              const style = getComputedStyle(active);
              const x = box.left + box.width / 2;
              const top = document.elementFromPoint(x, box.top + box.height / 2);
              const name = active.ariaLabel ?? active.textContent;
              const outline = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
              const bare = active === document.body;
              return { name, outline, bare, free: active.contains(top) || top?.contains(active) };
            }"""
        )
        if found["bare"]:
            continue
        assert found["outline"] >= 2, found
        assert found["free"], found
        seen.add(found["name"])
    assert {"Skip to the content", "Show all heatmaps", "Help"} <= seen
    assert any(name.startswith("Picture 1") for name in seen)


@pytest.mark.slow
def test_dock_by_keyboard_keeps_the_focus(page, served):
    """Select with the space bar, go to the buttons of the groups with Tab, go on with the next."""
    hand = b.Keyboard(page)
    b.begin(page, hand, served.url)
    count = len(b.opened(page, 0))
    for left in range(count, 0, -1):
        hand.reach(page.locator('.picture[tabindex="0"]'))
        page.keyboard.press("Space")
        hand.press(page.locator('.dock [data-group="2"]'))
        assert len(b.members(page, 0)) == left - 1
        focused = page.evaluate("document.activeElement.className")
        assert focused == ("picture" if left > 1 else "primary")


@pytest.mark.slow
def test_dragging_several_scrolls_to_groups_out_of_sight(page, served, made):
    hand = b.Mouse(page)
    b.begin(page, hand, served.url)
    page.set_viewport_size({"width": 1280, "height": 420})
    for n in range(2):
        hand.press(page.locator(".picture").nth(n))
    box = page.locator(".picture").first.bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, 415, steps=4)
    assert page.locator(".ghost b").inner_text() == "2"
    b.wait_until(lambda: page.evaluate("scrollY") > 150)
    target = b.zone(page, 3).bounding_box()
    page.mouse.move(target["x"] + 60, target["y"] + 40, steps=4)
    page.mouse.up()
    assert len(b.members(page, 3)) == 2
    # a drag that ends nowhere, and one that is broken off, change nothing
    for end in ("up", "escape"):
        box = page.locator(".tray .picture").first.bounding_box()
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 50, box["y"] + 40, steps=2)
        if end == "escape":
            page.keyboard.press("Escape")
        else:
            page.mouse.move(5, 5)
        page.mouse.up()
        assert page.locator(".ghost").count() == 0
    assert len(b.placed(page)) == 2


@pytest.mark.slow
def test_finger_drags_after_holding_and_scrolls_before(chromium, served, problems):
    with chromium.new_context(**PHONE) as context:
        context.set_default_timeout(120_000)
        page = context.new_page()
        b.watch(page, problems)
        b.begin(page, b.Touch(page), served.url)
        image = b.members(page, 0)[0]
        finger = context.new_cdp_session(page)

        def touch(kind, x=0.0, y=0.0):
            points = [] if kind == "touchEnd" else [{"x": x, "y": y}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

        def start():
            box = page.locator(".tray .picture").first.bounding_box()
            return box["x"] + 40, box["y"] + 40

        x, y = start()
        touch("touchStart", x, y)
        page.locator(".ghost").wait_for()
        for step in range(1, 6):
            target = page.locator('.dock [data-group="2"]').bounding_box()
            there = target["x"] + 15, target["y"] + 15
            touch("touchMove", x + (there[0] - x) * step / 5, y + (there[1] - y) * step / 5)
        touch("touchEnd")
        assert b.placed(page) == {image: 2}
        page.evaluate("scrollTo(0, 0)")
        x, y = start()
        touch("touchStart", x, y)
        for step in range(1, 6):
            touch("touchMove", x, y - 30 * step)
        touch("touchEnd")
        b.wait_until(lambda: page.evaluate("scrollY") > 50)
        assert b.placed(page) == {image: 2}


# --- what can go wrong


def test_reload_keeps_everything(page, served):
    hand = b.Mouse(page)
    b.begin(page, hand, served.url)
    images = b.opened(page, 0)
    for n, image in enumerate(images[:-1]):  # all of a part, and the page would go on to the next
        hand.place(image, n % 4 + 1)
    page.reload()  # at once: the last moves may still be on their way
    assert b.opened(page, 0) == images
    assert b.placed(page) == {image: n % 4 + 1 for n, image in enumerate(images[:-1])}
    b.saved(page)


@pytest.mark.slow
def test_lost_network_is_said_and_loses_nothing(page, context, served, made, problems):
    hand = b.Mouse(page)
    images = b.skip_to(page, hand, served.url, 1)
    hand.place(images[0], 1)
    b.saved(page)
    context.set_offline(True)
    for image in images[1:4]:
        hand.place(image, 2)
    page.locator('#status[data-state="offline"]').wait_for()
    assert "No connection" in page.locator("#status").inner_text()
    page.mouse.wheel(0, 2000)
    box = page.locator("#status").bounding_box()
    assert 0 <= box["y"] < 100  # seen wherever the page is scrolled to
    check_looks(page, phone=False)
    context.set_offline(False)
    b.saved(page)
    problems.clear()
    wanted = {images[0]: 1, **dict.fromkeys(images[1:4], 2)}
    assert stored(served, 1) == wanted
    # handing in without a network waits for it
    for image in images[4:]:
        hand.place(image, 3)
    context.set_offline(True)
    page.get_by_role("button", name="Done with this batch").click()
    page.locator('#status[data-state="offline"]').wait_for()
    context.set_offline(False)
    page.wait_for_url("**/stage/1/confidence")
    problems.clear()
    assert len(stored(served, 1)) == 10


@pytest.mark.slow
def test_page_closed_without_network_goes_on_later(page, context, served, problems):
    hand = b.Mouse(page)
    b.begin(page, hand, served.url)
    images = b.opened(page, 0)
    b.saved(page)
    context.set_offline(True)
    for image in images[:3]:
        hand.place(image, 4)
    page.locator('#status[data-state="offline"]').wait_for()
    page.close()
    problems.clear()
    context.set_offline(False)
    again = context.new_page()
    b.watch(again, problems)
    again.goto(f"{served.url}/")
    b.opened(again, 0)
    assert b.placed(again) == dict.fromkeys(images[:3], 4)
    b.saved(again)
    assert again.evaluate("Object.keys(localStorage)") == []
    again.reload()
    b.opened(again, 0)
    assert b.placed(again) == dict.fromkeys(images[:3], 4)


@pytest.mark.slow
def test_killed_server_goes_on_where_it_was(page, folder, made, problems):
    port = b.free_port()
    hand = b.Mouse(page)
    with b.serve_command(folder, port) as server:
        images = b.skip_to(page, hand, f"http://127.0.0.1:{port}", 1)
        for image in images[:4]:
            hand.place(image, 1)
        b.saved(page)
        server.kill()
        server.wait()
    hand.place(images[4], 2)
    page.locator('#status[data-state="offline"]').wait_for()
    with b.serve_command(folder, port):
        b.saved(page)
        problems.clear()
        page.goto(f"http://127.0.0.1:{port}/")
        assert b.opened(page, 1) == images
        assert b.placed(page) == {**dict.fromkeys(images[:4], 1), images[4]: 2}
        for image in images[5:]:
            hand.place(image, 3)
        b.hand_in(page, hand)
        b.answer_confidence(page, hand, 3)
        page.wait_for_url("**/stage/2")


@pytest.mark.slow
def test_pictures_that_fail_are_tried_again(page, served, made, problems):
    """One fails once: nobody notices. One fails always: a message, and a button that helps."""
    failing, asked = [], []

    def answer(route):
        name = route.request.url
        asked.append(name)
        if not failing:
            failing.append(name)
        if name == failing[0] and (len(failing) > 1 or asked.count(name) == 1):
            route.abort()
        else:
            route.continue_()

    page.route("**/media/*", answer)
    b.begin(page, b.Mouse(page), served.url)
    assert asked.count(failing[0]) >= 2
    assert page.locator("#problem").is_hidden()
    failing.append("always")
    asked.clear()
    page.reload()
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert "could not be loaded" in problem.inner_text()
    assert page.locator("#work").is_hidden()
    bar = page.locator("#loaded")
    assert bar.evaluate("bar => [bar.value, bar.max]") == [71, 72]
    assert page.locator("#loading-text").inner_text() == "Loading pictures: 71 of 72"
    check_looks(page, phone=False)
    failing[:] = ["nothing fails"]
    problem.get_by_role("button", name="Try again").click()
    b.opened(page, 0)
    assert problem.is_hidden()
    problems.clear()
    b.saved(page)
    errors = values(tables(served, made[1])["events"], "image_error")
    assert errors == [{"count": 1}]


@pytest.mark.slow
def test_second_tab_follows(page, context, served, made, problems):
    hand = b.Mouse(page)
    images = b.skip_to(page, hand, served.url, 1)
    other = context.new_page()
    other.goto(f"{served.url}/stage/1")
    assert b.opened(other, 1) == images
    page.bring_to_front()
    for image in images:
        hand.place(image, 2)
    b.hand_in(page, hand)
    other.bring_to_front()
    b.Mouse(other).place(images[0], 4)  # too late
    other.wait_for_url("**/stage/1/confidence")
    assert set(stored(served, 1).values()) == {2}
    b.answer_confidence(other, b.Mouse(other), 6)
    page.bring_to_front()
    page.locator("[name=confidence]").first.check()
    page.get_by_role("button", name="Continue").click()
    page.wait_for_url("**/stage/2")
    b.opened(page, 2)
    assert tables(served, made[1])["trials"]["confidence"].dropna().tolist() == [7]
    assert not problems


@pytest.mark.slow
def test_going_back_does_no_harm(page, served, made):
    hand = b.Mouse(page)
    b.skip_to(page, hand, served.url, 2)
    for _ in range(3):
        page.go_back()
        page.wait_for_url("**/stage/2")
    b.opened(page, 2)
    found = tables(served, made[1])
    assert found["trials"]["confidence"].dropna().tolist() == [5]
    assert len(stored(served, 1)) == 10


@pytest.mark.slow
def test_signed_out_page_says_so(page, context, served, problems):
    """The cookie is gone in the middle of a batch."""
    hand = b.Mouse(page)
    b.begin(page, hand, served.url)
    b.saved(page)
    context.clear_cookies()
    hand.place(b.opened(page, 0)[0], 1)
    problem = page.get_by_role("alert")
    problem.wait_for()
    assert "personal link" in problem.inner_text()
    check_looks(page, phone=False)
    problem.get_by_role("button", name="Load again").click()
    page.get_by_role("heading", name="We do not know who you are").wait_for()
    problems.clear()


@pytest.mark.slow
def test_personal_link_goes_on_in_another_browser(page, chromium, served):
    hand = b.Mouse(page)
    b.agree(page, hand, served.url)
    hand.press(page.get_by_role("button", name="Continue"))
    link = page.locator("a.long").inner_text()
    hand.press(page.locator("button.primary"))
    images = b.opened(page, 0)
    hand.place(images[0], 3)
    b.saved(page)
    with chromium.new_context(**PHONE) as elsewhere:
        phone = elsewhere.new_page()
        phone.goto(link)
        assert b.opened(phone, 0) == images
        assert b.placed(phone) == {images[0]: 3}


def test_dashboard_follows_without_a_hand(page, served, problems):
    """Its numbers are asked for again every few seconds, and when it comes into view."""
    page.goto(f"{served.url}/admin")
    problems.clear()  # the browser notes the 401
    page.get_by_label("Admin token").fill(b.ADMIN)
    page.get_by_role("button", name="Open").click()
    line = page.get_by_text("renewed every few seconds")
    before = line.inner_text()
    page.wait_for_timeout(1100)  # the line has seconds
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function("text => !document.body.innerText.includes(text)", arg=before)
    assert page.locator("#state").is_hidden()
    with page.expect_download() as download:
        page.get_by_role("link", name="Take all answers (ZIP)").click()
    assert download.value.suggested_filename == "study.zip"


@pytest.mark.slow
def test_deleting_ends_everywhere(page, served, made):
    hand = b.Mouse(page)
    b.begin(page, hand, served.url, PROLIFIC_PID="p9")
    hand.place(b.opened(page, 0)[0], 3)
    b.saved(page)
    page.get_by_role("link", name="Leave the study and delete my data").click()
    page.get_by_role("button", name="Delete my data").click()
    page.wait_for_url(lambda url: "/left?" in url)
    found = tables(served, made[1])
    assert found["participants"]["status"].tolist() == ["withdrawn"]
    assert len(found["events"]) == 0


@pytest.mark.slow
def test_order_of_events_is_that_of_the_hand(page, served, made):
    """Take back, by key, and by dragging into the tray; the last place counts."""
    hand = b.Mouse(page)
    images = b.skip_to(page, hand, served.url, 1)
    hand.place(images[0], 1)
    hand.place(images[0], 0)
    hand.place(images[0], 3)
    hand.card(images[0]).locator(".picture").focus()
    page.keyboard.press("Backspace")
    assert b.placed(page) == {}
    page.keyboard.press("2")
    b.saved(page)
    found = tables(served, made[1])
    moves = values(found["events"].query("position == 1"), "move")
    assert [move["group"] for move in moves] == [1, None, 3, None, 2]
    assert stored(served, 1) == {images[0]: 2}
    times = found["events"].query("position == 1")["client_ms"].tolist()
    assert all(a <= c for a, c in pairwise(times))
