"""Places that are given back and taken up again, what those who come back see, the live page."""

import re

import pytest
from fastapi.testclient import TestClient

from study_plan import write_tiny_study
from study_session import browser, event, fields, finish, join, practise, send, sort
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Arm, Limits, Pay, Recruitment
from torchxnn.apps.study.store.participants import list_participants

ADMIN = {"Authorization": "Bearer a-token-of-the-admin"}
RECRUITMENT = Recruitment(
    completion_url="https://example.org/done?cc={code}",
    failed_check_code="FAILED1",
    full_code="FULL1",
    completion_parameter="counted",
    pay=Pay(amount=9.0, currency="GBP", fee=0.5),
)
HOUR = 3600.0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two people are wanted; an hour of silence gives a place back."""
    path = tmp_path_factory.mktemp("study")
    write_tiny_study(
        path,
        keys=("birds",),
        arms=(Arm(name="main", participants=2),),
        limits=Limits(requests_per_second=1000, starts_per_second=1000, expire_minutes=60),
        recruitment=RECRUITMENT,
    )
    return path


@pytest.fixture
def app(made, tmp_path):
    for part in made.iterdir():
        (tmp_path / part.name).symlink_to(part)
    app = create_app(tmp_path, admin_token="a-token-of-the-admin")
    app.state.site.clock = lambda: app.now
    app.now = 1e6
    yield app
    app.state.site.database.close()


def person(name):
    return {"PROLIFIC_PID": name, "SESSION_ID": f"session-of-{name}"}


def rows(app):
    """Number, status and place of everybody."""
    found = list_participants(app.state.site.database)
    return [(row.number, row.status, row.place) for row in reversed(found)]


def texts(app):
    return app.state.site.texts


# --- places


def test_when_all_places_are_taken_nobody_reads_the_consent_text_in_vain(app):
    for name in ("ada", "bob"):
        join(app, **person(name))
    page = browser(app).get("/", params=person("eve"))
    assert page.status_code == 409
    assert texts(app)["message"]["full"]["text"] in page.text
    assert 'href="https://example.org/done?cc=FULL1"' in page.text
    assert 'name="agree"' not in page.text
    assert 'name="agree"' in browser(app).get("/", params={"pilot": "1"}).text


def test_who_is_silent_gives_the_place_back_and_the_answers_stay(app):
    ada = practise(app, **person("ada"))
    page = ada.get(sort(ada, 0).json()["next"])
    sent = send(ada, 1, [move_of(ada, 1)])
    assert (page.url.path, sent.status_code) == ("/stage/1", 200)
    join(app, **person("bob"))
    app.now += 1.5 * HOUR  # both are silent
    join(app, **person("eve"))
    assert rows(app) == [(1, "expired", 0), (2, "expired", 1), (3, "in_progress", 0)]
    assert ada.get("/next").url.path == "/stage/1"  # there is room: she goes on
    assert rows(app)[0] == (1, "in_progress", 0)  # beside the other one: she has seen its pictures
    shown = ada.get("/api/stages/1").json()["images"]
    assert sum(image["group"] is not None for image in shown) == 1


def move_of(client, position):
    image = client.get(f"/api/stages/{position}").json()["images"][0]["id"]
    return event("move", 10**6 + position, image, group=1, how="drag")


def test_who_has_seen_no_batch_takes_a_place_that_is_free(app):
    ada, _ = join(app, **person("ada"))
    app.now += 1.5 * HOUR
    join(app, **person("eve"))
    assert ada.get("/next").url.path == "/about-you"
    assert rows(app) == [(1, "in_progress", 1), (2, "in_progress", 0)]


@pytest.fixture
def late(app):
    """Somebody with the first batch half done whose place is gone, and no other one is free."""
    ada = practise(app, **person("ada"))
    ada.get(sort(ada, 0).json()["next"])
    send(ada, 1, [move_of(ada, 1)])
    app.now += 1.5 * HOUR
    for name in ("bob", "eve"):
        join(app, **person(name))
    return ada


def test_who_comes_back_when_all_places_are_taken_gets_a_right_answer(app, late):
    page = late.get("/next")
    assert (page.url.path, page.status_code) == ("/late", 200)
    assert texts(app)["late"]["text"].format(minutes=60) in page.text
    assert 'href="https://example.org/done?cc=FULL1"' in page.text
    assert 'href="./delete"' in page.text  # they can still have their answers deleted
    assert late.get("/stage/1").url.path == "/late"
    assert late.get("/", params=person("ada")).url.path == "/late"
    assert browser(app).get("/", params=person("ada")).url.path == "/late"
    app.now += 1.5 * HOUR  # the others are silent, too
    assert late.get("/late").url.path == "/stage/1"


def test_answers_in_a_tab_that_stayed_open_are_kept_without_a_place(app, late):
    before = late.get("/api/stages/1").json()["images"]
    answer = sort(late, 1)
    assert answer.status_code == 200
    assert late.get(answer.json()["next"]).url.path == "/late"
    assert rows(app)[0][1] == "expired"
    database = app.state.site.database
    with database.reading() as connection:
        sql = "SELECT COUNT(*) FROM placements WHERE number = 1 AND position = 1"
        assert connection.exec_driver_sql(sql).scalar() == len(before)


def test_who_sends_the_last_page_has_finished_whoever_has_the_place(app):
    ada = practise(app, **person("ada"))
    page = ada.get(sort(ada, 0).json()["next"])
    for position in (1, 2, 3):
        page = ada.get(sort(ada, position).json()["next"])
        given = {"confidence": "5", "attention": "3"}
        page = ada.post(f"/stage/{position}/confidence", data={**fields(page), **given})
    app.now += 1.5 * HOUR
    for name in ("bob", "eve"):
        join(app, **person(name))
    ratings = {"rating_one_heatmap": 3, "rating_xnn": 6, "difficulty": 4}
    done = ada.post("/ratings", data={**fields(page), **ratings})
    assert done.url.path == "/done"
    assert rows(app)[0][1] == "finished"
    assert figures(app)["beyond"] == 1


# --- the recruiter and the server disagree


def test_the_recruiter_says_complete_and_the_server_does_not(app):
    client = practise(app, **person("ada"))
    for browsing in (client, browser(app)):
        page = browsing.get("/", params=person("ada") | {"counted": "1"})
        assert page.url.path == "/unfinished"
        assert texts(app)["unfinished"]["text"].format(left=8) in page.text
        assert browsing.get("/next").url.path == "/stage/0"
    assert client.get("/", params=person("ada") | {"counted": "0"}).url.path == "/stage/0"


def test_the_recruiter_says_complete_of_somebody_who_never_began(app):
    page = browser(app).get("/", params=person("eve") | {"counted": "yes"})
    assert texts(app)["unfinished"]["nothing"] in page.text
    assert 'name="agree"' in page.text


def test_the_server_says_complete_and_the_recruiter_does_not(app):
    client = practise(app, **person("ada"))
    done = finish(client, 3)
    code = re.search(r'data-code="(\w+)"', done.text)[1]
    assert 'http-equiv="refresh"' in done.text
    for more in ({}, {"counted": "1"}):
        page = browser(app).get("/", params=person("ada") | more)
        assert (page.url.path, f'data-code="{code}"' in page.text) == ("/done", True)
        assert texts(app)["done"]["again"] in page.text
        assert 'http-equiv="refresh"' not in page.text  # no way back and forth without an end


# --- the researcher's page


def figures(app):
    """The state of the only arm."""
    from torchxnn.apps.study.server.overview import arms_now

    site = app.state.site
    [arm] = arms_now(site.plan, list_participants(site.database), site.clock())
    return {**arm.counts, **vars(arm)}


def test_the_live_page_says_who_is_where_what_is_left_and_what_it_costs(app):
    finish(practise(app, **person("ada")), 3, attention="6")
    practise(app, **person("bob"))
    join(app, pilot="1")
    found = figures(app)
    assert (found["finished"], found["failed_check"], found["here"], found["left"]) == (1, 1, 1, 0)
    assert found["pages"] == [("stage/0", 1)]
    assert sum(wanted for _, wanted, _, _ in found["cells"]) == 2
    assert (found["costs"].finished, found["costs"].total) == ("13.50 GBP", "27.00 GBP")
    app.now += 0.5 * HOUR
    assert (figures(app)["here"], figures(app)["away"]) == (0, 1)
    app.now += HOUR
    found = figures(app)
    assert (found["silent"], found["left"], found["costs"].to_come) == (1, 1, "13.50 GBP")
    join(app, **person("eve"))
    assert (figures(app)["expired"], figures(app)["silent"]) == (1, 0)


def test_the_live_page_renews_itself_and_names_nobody(app):
    client = practise(app, **person("ada-lovelace"))
    site = TestClient(app)
    assert site.get("/admin/live").status_code == 401
    page, part = (site.get(path, headers=ADMIN) for path in ("/admin", "/admin/live"))
    assert "live.js" in page.text
    assert "27.00 GBP" in part.text
    assert "3/11 stage/0" in part.text
    for text in (page.text, part.text):
        assert not re.search("ada|lovelace|session-of", text)
        assert all(value not in text for value in client.cookies.values())


def test_what_a_participant_costs_can_be_said_after_a_study_began(made):
    plan = StudyPlan.read(made)
    recruitment = RECRUITMENT.model_copy(update={"pay": None, "full_code": None})
    settings = plan.settings.model_copy(update={"recruitment": recruitment})
    changed = plan.model_copy(update={"settings": settings})
    assert changed.fingerprint() == plan.fingerprint()
