"""The site without a browser: who may see and send what."""

import json
import re

import pytest
from fastapi.testclient import TestClient

from study_plan import CLASSES, write_tiny_study
from study_session import browser, event, fields, finish, join, practise, send, sign, sort
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.server.site import Buckets
from torchxnn.apps.study.settings import Limits, Recruitment
from torchxnn.apps.study.steps import steps_of
from torchxnn.apps.web import POLICY

ADMIN = "a-token-of-the-admin"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    write_tiny_study(
        path,
        recruitment=Recruitment(
            parameters=("PROLIFIC_PID", "STUDY_ID"),
            completion_url="https://example.org/done?cc={code}",
        ),
        limits=Limits(requests_per_second=1000, starts_per_second=1000),
    )
    return path


@pytest.fixture
def folder(made, tmp_path):
    """The study with an empty database."""
    for part in made.iterdir():
        (tmp_path / part.name).symlink_to(part)
    return tmp_path


@pytest.fixture
def app(folder):
    app = create_app(folder, admin_token=ADMIN)
    yield app
    app.state.site.database.close()


@pytest.fixture
def plan(folder):
    return StudyPlan.read(folder)


# --- the whole way


@pytest.mark.parametrize(("arm", "trials"), [("main", 6), ("complementary", 4)])
def test_session_from_consent_to_completion(app, plan, arm, trials):
    client = practise(app, arm=arm, PROLIFIC_PID="p1", STUDY_ID="s1")
    page = finish(client, trials)
    assert page.url.path == "/done"
    code = re.search(r'data-code="(\w+)"', page.text)[1]
    assert f"https://example.org/done?cc={code}" in page.text
    assert client.get("/").url.path == "/done"  # coming back shows the code again
    assert len([s for s in steps_of(plan, arm) if s.endswith("confidence")]) == trials


def test_pages_cannot_be_skipped_or_answered_twice(app, plan):
    client = practise(app)
    for path in ("/stage/3", "/ratings", "/done", "/instructions", "/stage/1/confidence"):
        assert client.get(path).url.path == "/stage/0"
    assert client.get("/api/stages/1").status_code == 409
    assert client.get("/api/stages/1").json()["next"] == "stage/0"
    page = client.get(sort(client, 0).json()["next"])
    again = client.post("/api/stages/0/submit", headers=sign(client))
    assert (again.status_code, again.json()["next"]) == (409, "stage/1")
    assert page.url.path == "/stage/1"
    form = {"csrf": client.csrf, "confidence": "7"}
    assert client.post("/stage/1/confidence", data=form).url.path == "/stage/1"


def test_batch_needs_every_picture(app):
    client = practise(app)
    images = client.get("/api/stages/0").json()["images"]
    events = [event("move", n, i["id"], group=1) for n, i in enumerate(images[1:])]
    send(client, 0, events)
    answer = client.post("/api/stages/0/submit", headers=sign(client))
    assert (answer.status_code, answer.json()["unplaced"]) == (409, [images[0]["id"]])


def test_another_server_goes_on_where_the_first_one_was(app, folder):
    client = practise(app)
    image = client.get("/api/stages/0").json()["images"][3]["id"]
    client.post(
        "/api/stages/0/events",
        json={"events": [event("move", 1, image, group=2)]},
        headers=sign(client),
    )
    other = TestClient(create_app(folder), base_url="http://study.test")
    other.cookies = client.cookies
    shown = other.get("/api/stages/0").json()
    assert {i["id"]: i["group"] for i in shown["images"]}[image] == 2
    assert shown["csrf"] == client.csrf


def test_missing_answers_are_asked_for_again(app, plan):
    client = practise(app)
    page = client.get(sort(client, 0).json()["next"])
    page = client.get(sort(client, 1).json()["next"])
    again = client.post("/stage/1/confidence", data=fields(page))
    assert again.status_code == 422
    assert app.state.site.texts["confidence"]["missing"] in again.text


def test_consent_is_needed(app):
    client = browser(app)
    form = fields(client.get("/"))
    answer = client.post("/start", data=form)
    assert answer.status_code == 422
    assert client.get("/next").status_code == 401


def test_one_person_takes_part_once_in_either_arm(app):
    form = fields(browser(app).get("/", params={"PROLIFIC_PID": "p7"}))
    join(app, PROLIFIC_PID="p7")
    client = browser(app)
    assert client.get("/", params={"PROLIFIC_PID": "p7", "arm": "complementary"}).status_code == 409
    own = fields(client.get("/"))
    forged = {**form, **own, "arm": "complementary", "agree": "yes"}
    assert client.post("/start", data=forged).status_code == 409


def test_unknown_arm_is_not_found(app):
    assert browser(app).get("/", params={"arm": "third"}).status_code == 404


@pytest.mark.parametrize(("parameter", "kind"), [("pilot", "pilot"), ("synthetic", "synthetic")])
def test_kinds_are_kept_apart(app, parameter, kind):
    join(app, **{parameter: "1"})
    rows = TestClient(app).get("/admin", headers={"Authorization": f"Bearer {ADMIN}"}).text
    assert kind in rows


def test_pilots_are_told_on_every_page(app):
    banner = 'class="pilot"'
    assert banner not in browser(app).get("/").text
    assert banner in browser(app).get("/", params={"pilot": "1"}).text
    _, page = join(app, pilot="1")
    assert banner in page.text


def test_server_in_pilot_mode_marks_everybody(folder):
    app = create_app(folder, admin_token=ADMIN, pilot=True)
    join(app)
    found = read_export(app)["participants"]
    assert [row["kind"] for row in found] == ["pilot"]


def read_export(app):
    import io
    import zipfile

    answer = TestClient(app).get("/admin/export.zip", headers={"Authorization": f"Bearer {ADMIN}"})
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    return {
        name.removesuffix(".json"): json.loads(archive.read(name))
        for name in archive.namelist()
        if name.endswith(".json")
    }


# --- what reaches the browser


def test_nothing_tells_the_class(app, plan):
    """No class, no name of a file, no prediction in any page, answer or address of the study."""
    client = practise(app)
    seen = [client.get("/stage/0").text]
    client.get(sort(client, 0).json()["next"])
    groups = {}
    for position in range(1, 7):
        answer = client.get(f"/api/stages/{position}")
        seen += [answer.text, client.get(f"/stage/{position}").text]
        for image in answer.json()["images"]:
            groups[image["id"]] = image["picture"]
        page = client.get(sort(client, position).json()["next"])
        seen.append(page.text)
        given = {"confidence": "5", "attention": "3"}
        client.post(f"/stage/{position}/confidence", data={**fields(page), **given})
    text = "\n".join(seen).lower()
    for word in (*CLASSES, ".jpg", "predicted", "label_"):
        assert not re.search(rf"\b{re.escape(word)}\b", text), word
    assert len(groups) == 60
    assert all(re.fullmatch(r"media/[A-Za-z0-9_-]{10,}\.webp", path) for path in groups.values())


def test_pictures_of_a_class_do_not_stand_together(app, plan):
    client = practise(app)
    client.get(sort(client, 0).json()["next"])
    shown = [image["id"] for image in client.get("/api/stages/1").json()["images"]]
    known = {image.id: image.predicted for image in plan.images}
    classes = [known[name] for name in shown]
    assert classes != sorted(classes)
    assert shown != sorted(shown)


def test_headers_of_every_answer(app):
    client = browser(app)
    style = f"/static/{app.state.site.static_version}/study.css"
    assert client.get(style).status_code == 200
    for path in ("/", style, "/nothing", "/api/stages/0", "/admin"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert client.get("/").headers["cache-control"] == "no-store"
    assert "unsafe" not in POLICY


def test_cookies_cannot_be_read_by_scripts(app):
    client = browser(app)
    cookie = client.get("/").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    safe = TestClient(app, base_url="https://study.test")
    assert "secure" in safe.get("/").headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "path",
    [
        "/media/../study.json",
        "/media/%2e%2e/study.json",
        "/media/..%2fstudy.db",
        "/media/%2e%2e%2fstudy.db",
        "/media/study.json",
        "/static/../templates/base.html",
        "/static/%2e%2e/%2e%2e/texts/en.yaml",
        "/study.json",
        "/study.db",
        "/openapi.json",
        "/docs",
    ],
)
def test_no_path_leads_out_of_the_pictures(app, path):
    assert browser(app).get(path).status_code == 404


# --- who may do what


def test_nobody_acts_for_another(app):
    first, second = practise(app), practise(app)
    image = second.get("/api/stages/0").json()["images"][0]["id"]
    answer = second.post(
        "/api/stages/0/events",
        json={"events": [event("move", 1, image, group=1)]},
        headers=sign(first),
    )
    assert answer.status_code == 403
    assert all(i["group"] is None for i in second.get("/api/stages/0").json()["images"])


@pytest.mark.parametrize("header", [{}, {"X-CSRF-Token": "0" * 64}])
def test_forged_requests_change_nothing(app, header):
    client = practise(app)
    for path in ("/api/stages/0/events", "/api/stages/0/submit"):
        assert client.post(path, json={"events": []}, headers=header).status_code == 403
    assert client.post("/delete", data={"csrf": "x"}).status_code == 403
    assert client.get("/next").url.path == "/stage/0"


def test_forged_answers_change_nothing(app):
    """Forms of pages, filled in well but without the signature of the session."""
    client, _ = join(app)
    forged = {"csrf": "0" * 64}
    assert client.post("/about-you", data=forged).status_code == 403
    client.post("/about-you", data=fields(client.get("/about-you")))
    assert client.post("/instructions", data=forged).status_code == 403
    client.post("/instructions", data=fields(client.get("/instructions")))
    client.csrf = client.get("/api/stages/0").json()["csrf"]
    client.get(sort(client, 0).json()["next"])
    sort(client, 1)
    given = {"confidence": "5", "attention": "3"}
    assert client.post("/stage/1/confidence", data={**given, **forged}).status_code == 403
    assert client.get("/next").url.path == "/stage/1/confidence"


def test_pictures_of_another_batch_are_refused(app):
    client = practise(app)
    image = client.get("/api/stages/0").json()["images"][0]["id"]
    client.get(sort(client, 0).json()["next"])
    answer = send(client, 1, [event("move", 1, image, group=1)])
    assert answer.status_code == 422
    assert all(i["group"] is None for i in client.get("/api/stages/1").json()["images"])


def test_only_who_is_known_is_led_back(app):
    """A message has a link to where somebody was, if it leads anywhere."""
    link = 'href="./next"'
    for path in ("/nothing", "/next"):
        assert link not in browser(app).get(path).text
    client = practise(app)
    assert link in client.get("/nothing").text
    client.cookies.set(app.state.site.cookie("study"), "guessed")
    assert link not in client.get("/next").text


def test_forged_consent_starts_nobody(app):
    form = fields(browser(app).get("/"))
    stranger = browser(app)  # another browser: the signature is tied to the first one's cookie
    assert stranger.post("/start", data={**form, "agree": "yes"}).status_code == 403


def test_without_a_session_nothing_is_shown(app):
    client = browser(app)
    for path in ("/next", "/stage/0", "/ratings", "/done", "/api/stages/0", "/delete"):
        assert client.get(path).status_code == 401
    client.cookies.set(app.state.site.cookie("study"), "guessed")
    assert client.get("/next").status_code == 401


def test_admin_token_opens_dashboard_and_export(app):
    client = browser(app)
    assert client.get("/admin").status_code == 401
    assert client.get("/admin/export.zip").status_code == 401
    assert client.post("/admin", data={"token": "wrong"}).status_code == 401
    assert client.post("/admin", data={"token": ADMIN}).status_code == 200
    assert client.get("/admin/export.zip").status_code == 200
    assert 'http-equiv="refresh"' in client.get("/admin").text  # the dashboard is live
    bearer = {"Authorization": f"Bearer {ADMIN}x"}
    assert browser(app).get("/admin/export.zip", headers=bearer).status_code == 401


def test_without_an_admin_token_there_is_no_dashboard(folder):
    client = browser(create_app(folder))
    assert client.get("/admin").status_code == 404
    assert client.get("/admin/export.zip").status_code == 404


def test_guessing_the_admin_token_is_slow(app):
    client = browser(app)
    codes = [client.post("/admin", data={"token": "x"}).status_code for _ in range(15)]
    assert codes[0] == 401
    assert codes[-1] == 429


def test_personal_link_brings_a_participant_back(app):
    client, page = join(app)
    page = client.post("/about-you", data=fields(page))
    link = re.search(r"http://study\.test/resume/[\w-]+", page.text)[0]
    elsewhere = browser(app)
    assert elsewhere.get(link).url.path == "/instructions"
    assert browser(app).get(link + "x").status_code == 404


def test_deleting_leaves_no_answer(app, plan):
    client = practise(app, PROLIFIC_PID="somebody")
    sort(client, 0)
    page = client.get("/delete")
    assert client.post("/delete", data=fields(page)).url.path == "/left"
    assert client.get("/next").status_code == 401
    tables = read_export(app)
    assert [row["status"] for row in tables["participants"]] == ["withdrawn"]
    assert tables["events"] == tables["trials"] == tables["placements"] == []
    assert "somebody" not in json.dumps(tables)


# --- limits


def test_large_and_malformed_bodies_are_refused(app):
    client = practise(app)
    path, headers = "/api/stages/0/events", sign(client)
    large = "x" * (app.state.site.plan.settings.limits.body_bytes + 1)
    assert client.post(path, content=large, headers=headers).status_code == 413
    chunks = (b"x" * 10_000 for _ in range(100))  # without a length
    assert client.post(path, content=chunks, headers=headers).status_code == 413
    image = client.get("/api/stages/0").json()["images"][0]["id"]
    good = event("move", 1, image, group=1)
    for bad in (
        b"{",
        b"[]",
        json.dumps({"events": [good] * 101}).encode(),
        json.dumps({"events": [good | {"id": "short"}]}).encode(),
        json.dumps({"events": [good | {"type": "other"}]}).encode(),
        json.dumps({"events": [good | {"image": "unknown-picture"}]}).encode(),
        json.dumps({"events": [good | {"value": {"group": 5}}]}).encode(),
        json.dumps({"events": [good | {"value": {"group": "two"}}]}).encode(),
        json.dumps({"events": [good | {"value": {"group": True}}]}).encode(),
        json.dumps({"events": [good | {"value": {"group": 1.5}}]}).encode(),
        json.dumps({"events": [good | {"value": {"x": {"deep": 1}}}]}).encode(),
        json.dumps({"events": [good | {"ms": -1}]}).encode(),
        json.dumps({"events": [good | {"value": {"group": 1, "how": "\x00"}}]}).encode(),
        json.dumps({"events": [good | {"value": {"group": 1, "how": "\ud800"}}]}).encode(),
        json.dumps({"events": [good | {"value": {"group": 1, "x": float("inf")}}]}).encode(),
        b'{"events": [' + json.dumps(good).encode().replace(b"10.0", b"NaN") + b"]}",
        json.dumps({"events": [good], "more": 1}).encode(),
    ):
        answer = client.post(path, content=bad, headers=headers)
        assert answer.status_code == 422, bad
    assert all(i["group"] is None for i in client.get("/api/stages/0").json()["images"])


def test_rate_limit_is_of_one_participant(folder, made):
    app = create_app(folder)
    app.state.site.requests = Buckets(1.0, 5.0)
    first, _ = join(app)
    codes = [first.get("/next").status_code for _ in range(8)]
    assert codes[-1] == 429
    waiting = first.get("/next")
    assert int(waiting.headers["retry-after"]) >= 1
    _, page = join(app)
    assert page.status_code == 200


def test_buckets_fill_with_time():
    now = [0.0]
    buckets = Buckets(2.0, 3.0, clock=lambda: now[0])
    assert [buckets.wait("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.wait("b") == 0
    now[0] += 0.5
    assert buckets.wait("a") == 0
    assert buckets.wait("a") == 0.5


def test_texts_of_participants_are_not_obeyed(app, plan):
    client = practise(app, PROLIFIC_PID="<script>alert(1)</script>")
    finish(client, 6)
    page = TestClient(app).get("/admin", headers={"Authorization": f"Bearer {ADMIN}"}).text
    assert "<script>alert" not in page
    hidden = browser(app).get("/", params={"PROLIFIC_PID": '"><script>x</script>'}).text
    assert "<script>x" not in hidden


def test_no_address_of_a_participant_is_stored(app, folder, plan):
    client = browser(app)
    form = fields(client.get("/", headers={"X-Forwarded-For": "203.0.113.9"}))
    client.post(
        "/start",
        data={**form, "agree": "yes"},
        headers={"X-Forwarded-For": "203.0.113.9", "User-Agent": "agent-of-somebody"},
    )
    app.state.site.database.close()
    stored = b"".join(path.read_bytes() for path in folder.glob("study.db*"))
    assert b"203.0.113.9" not in stored
    assert b"agent-of-somebody" not in stored
    assert b"testclient" not in stored


# --- the database is away


def test_full_disk_is_said_and_loses_nothing(app, monkeypatch):
    from sqlalchemy.exc import OperationalError

    from torchxnn.apps.study.server import api

    client = practise(app)
    image = client.get("/api/stages/0").json()["images"][0]["id"]
    events = {"events": [event("move", 1, image, group=3)]}

    def full(*_):
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr(api, "save_events", full)
        answer = client.post("/api/stages/0/events", json=events, headers=sign(client))
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
    assert client.post("/api/stages/0/events", json=events, headers=sign(client)).status_code == 200


@pytest.mark.slow
def test_openapi_holds_under_schemathesis(app, plan):
    """Random requests, well-formed and not, of somebody signed in: never a server error."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    client = practise(app)
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.app = app
    cookies = dict(client.cookies)
    app.state.site.requests = app.state.site.logins = Buckets(1e9, 1e9)

    quiet = settings(
        max_examples=15, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) >= 15

    def send(case):
        answer = case.call(headers={"X-CSRF-Token": client.csrf}, cookies=cookies)
        assert answer.status_code < 500, (case.method, case.path, answer.text)

    for operation in operations:
        quiet(given(case=operation.as_strategy())(send))()
