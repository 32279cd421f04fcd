"""Other people's computers: who a link, a cookie or a form belongs to; addresses below a path."""

import re
from dataclasses import dataclass

import pytest
from fastapi.testclient import TestClient

import study_browser as b
from study_plan import write_tiny_study
from study_session import browser, event, fields, finish, join, practise, send
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Limits, Recruitment
from torchxnn.apps.study.simulate import SimulationConfig, simulate
from torchxnn.errors import XNNError

ADA = {"PROLIFIC_PID": "ada", "STUDY_ID": "s", "SESSION_ID": "0f3c2a9d7e"}
FAST = Limits(requests_per_second=1000, starts_per_second=1000)
BOB = {"PROLIFIC_PID": "bob", "STUDY_ID": "s", "SESSION_ID": "77aa21"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    write_tiny_study(path, keys=("birds",), limits=FAST)
    return path


@pytest.fixture
def serve(made, tmp_path):
    """Serve the study with an empty database, once or several times."""
    apps = []

    def start(name="one", **options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for part in made.iterdir():
            if not (folder / part.name).exists():
                (folder / part.name).symlink_to(part)
        apps.append(create_app(folder, admin_token="a-token-of-the-admin", **options))
        return apps[-1]

    yield start
    for app in apps:
        app.state.site.database.close()


@pytest.fixture
def app(serve):
    return serve()


def count(app):
    """Records of participants."""
    from torchxnn.apps.study.store.participants import list_participants

    return len(list_participants(app.state.site.database))


def open_consent(client, page, **more):
    return client.post("/start", data={**fields(page), "agree": "yes", **more})


# --- another person in the same browser


def test_another_identifier_is_another_person(app):
    client = practise(app, **ADA)
    page = client.get("/", params=BOB)
    assert (page.url.path, 'name="agree"' in page.text) == ("/", True)
    assert client.get("/", params=ADA).url.path == "/stage/0"  # nothing happened to the first one
    assert open_consent(client, page).url.path == "/about-you"
    assert client.get("/").url.path == "/about-you"  # without an identifier the last one goes on
    assert client.get("/", params=ADA).url.path == "/stage/0"
    assert count(app) == 2


@pytest.mark.parametrize("written", ["ADA", "\tAda "])
def test_case_and_spaces_make_nobody_another_person(app, written):
    client = practise(app, **ADA)
    assert client.get("/", params=ADA | {"PROLIFIC_PID": written}).url.path == "/stage/0"
    assert browser(app).get("/", params=ADA | {"PROLIFIC_PID": written}).url.path == "/stage/0"
    encoded = "PROLIFIC%5FPID=%61d%61&SESSION_ID=0f3c2a9d7e"
    assert browser(app).get(f"/?{encoded}").url.path == "/stage/0"


def test_an_empty_identifier_is_none(app):
    client = practise(app, **ADA)
    assert client.get("/?PROLIFIC_PID=&SESSION_ID=%20").url.path == "/stage/0"


@pytest.mark.parametrize("value", ["{{%PROLIFIC_PID%}}", "${e://Field/PID}", "x" * 201])
def test_a_link_that_was_not_filled_in_is_nobodys(app, value):
    """Else all who come by it would be one person."""
    client = practise(app, **ADA)
    page = client.get("/", params={**ADA, "PROLIFIC_PID": value})
    assert page.status_code == 422
    assert app.state.site.texts["message"]["broken_link"]["title"] in page.text
    assert 'href="./next"' not in page.text


def test_without_identifiers_somebody_new_says_so(app):
    client = practise(app, arm="complementary", pilot="1")
    assert client.get("/").url.path == "/stage/0"
    again = re.search(r'href="(\./\?new=1[^"]*|\.\./\?new=1[^"]*)"', client.get("/stage/0").text)[1]
    page = client.get("/stage/" + again.replace("&amp;", "&"))
    assert 'value="complementary"' in page.text
    assert 'value="pilot"' in page.text
    assert open_consent(client, page).url.path == "/about-you"
    assert count(app) == 2


def test_how_it_ended_has_a_code_of_its_own(tmp_path):
    codes = {"completion_code": "DONE", "failed_check_code": "LOOK", "withdrawn_code": "LEFT"}
    url = {"completion_url": "https://recruiter.example/?cc={code}"}
    write_tiny_study(tmp_path, keys=("birds",), recruitment=Recruitment(**codes, **url))
    app = create_app(tmp_path)
    for attention, code in (("3", "DONE"), ("5", "LOOK")):
        page = finish(practise(app), 3, attention=attention)
        assert f'data-code="{code}"' in page.text
        refresh = f'http-equiv="refresh" content="10; url=https://recruiter.example/?cc={code}"'
        assert refresh in page.text
        assert f'href="https://recruiter.example/?cc={code}"' in page.text
    client = practise(app)
    page = client.post("/delete", data=fields(client.get("/delete")))
    assert f'href="{url["completion_url"].format(code="LEFT")}"' in page.text
    stays = client.get(str(page.url) + "&stay=1")
    assert 'data-code="LEFT"' in stays.text
    assert "refresh" not in stays.text
    assert "LEFT" not in browser(app).get("/left").text
    app.state.site.database.close()


def test_somebody_new_does_not_see_the_code_of_the_one_before(app):
    client = practise(app)
    page = finish(client, 3)
    assert page.url.path == "/done"
    assert "?new=1" in page.text
    page = client.get("/?new=1")
    assert "data-code" not in page.text
    assert 'name="agree"' in page.text


def test_who_has_an_identifier_is_told_to_use_the_own_link(app):
    page = practise(app, **ADA).get("/stage/0")
    assert app.state.site.texts["common"]["not_you_either"] in page.text
    assert "?new=1" not in page.text


def test_a_form_of_the_one_before_changes_nothing_of_the_next(app):
    client, page = join(app, **ADA)
    open_consent(client, client.get("/", params=BOB))
    late = client.post("/about-you", data={**fields(page), "age": "18-30"})
    assert late.status_code == 403
    assert app.state.site.texts["message"]["forged"]["text"] in late.text
    assert 'href="./next"' not in late.text  # it would lead to the other person
    assert client.get("/next").url.path == "/about-you"


def test_moves_of_the_one_before_are_refused(app):
    first = practise(app, **ADA)
    image = first.get("/api/stages/0").json()["images"][0]["id"]
    open_consent(first, first.get("/", params=BOB))
    assert send(first, 0, [event("move", 1, image, group=1)]).status_code == 403


def test_two_studies_on_one_host_share_no_cookie(serve):
    one, two = serve("one"), serve("two")
    client = practise(one)
    other = TestClient(two, base_url="http://study.test")
    other.cookies = client.cookies
    assert other.get("/next").status_code == 401
    open_consent(other, other.get("/"))
    assert client.get("/next").url.path == "/stage/0"


# --- the same person elsewhere


def test_the_same_link_goes_on_in_another_browser(app):
    client = practise(app, **ADA)
    image = client.get("/api/stages/0").json()["images"][0]["id"]
    send(client, 0, [event("move", 1, image, group=2)])
    other = browser(app)
    assert other.get("/", params=ADA).url.path == "/stage/0"
    shown = other.get("/api/stages/0").json()
    assert {i["id"]: i["group"] for i in shown["images"]}[image] == 2
    other.csrf = shown["csrf"]
    assert send(other, 0, [event("move", 2, image, group=1)]).status_code == 200
    assert send(client, 0, [event("move", 3, image, group=3)]).status_code == 200
    assert count(app) == 1


@pytest.mark.parametrize("session", [None, "", "0f3c2a9d7f"])
def test_the_identifier_alone_opens_nothing(app, session):
    practise(app, **ADA)
    form = fields(browser(app).get("/", params=BOB))
    link = {k: v for k, v in (ADA | {"SESSION_ID": session}).items() if v is not None}
    client = browser(app)
    page = client.get("/", params=link)
    assert page.status_code == 409
    assert app.state.site.texts["message"]["already_started"]["text"] in page.text
    sent = {**form, **fields(client.get("/")), **{f"p_{k}": v for k, v in link.items()}}
    assert client.post("/start", data={**sent, "agree": "yes"}).status_code == 409
    assert client.get("/next").status_code == 401


def test_guessing_the_session_is_slow(app):
    practise(app, **ADA)
    tries = [ADA | {"SESSION_ID": f"{n:06x}"} for n in range(12)]
    codes = [browser(app).get("/", params=link).status_code for link in tries]
    assert codes[0] == 409
    assert codes[-1] == 429
    assert browser(app).get("/", params=ADA).status_code == 429  # nor does it tell the right one
    assert browser(app).get("/", params=BOB).status_code == 200  # others are not held up


def test_who_has_left_is_not_led_back(app):
    client = practise(app, **ADA)
    client.post("/delete", data=fields(client.get("/delete")))
    assert browser(app).get("/", params=ADA).status_code == 409


def test_another_parameter_may_be_the_one_that_nobody_can_guess(tmp_path):
    recruitment = Recruitment(parameters=("code",), session_parameter="code")
    write_tiny_study(tmp_path, keys=("birds",), recruitment=recruitment)
    app = create_app(tmp_path)
    practise(app, code="91xk")
    assert browser(app).get("/?code=91XK").url.path == "/stage/0"
    app.state.site.database.close()
    with pytest.raises(ValueError, match="'SESION' is none of the parameters PROLIFIC_PID"):
        Recruitment(session_parameter="SESION")


@pytest.mark.parametrize("link", [{}, {"PROLIFIC_PID": "ada"}, ADA])
def test_a_consent_form_that_is_sent_twice_begins_once(app, link):
    client = browser(app)
    page = client.get("/", params=link)
    open_consent(client, page)
    assert open_consent(client, page).url.path == "/about-you"
    assert count(app) == 1


def test_an_expired_cookie_is_made_up_for_by_the_link(app):
    client = practise(app, **ADA)
    client.cookies.clear()
    assert client.get("/stage/0").status_code == 401
    assert client.get("/", params=ADA).url.path == "/stage/0"


# --- below a path


@dataclass
class Proxy:
    """A reverse proxy at /lab/study that takes this path away, or passes it on."""

    app: object
    strips: bool
    headers: tuple = ()

    async def __call__(self, scope, receive, send):
        path = scope["path"]
        assert (path + "/").startswith("/lab/study/"), f"{path} leads out of the study"
        if self.strips:
            path = path.removeprefix("/lab/study") or "/"
        headers = [*scope["headers"], *((k.encode(), v.encode()) for k, v in self.headers)]
        await self.app({**scope, "path": path, "headers": headers}, receive, send)


def addresses(text):
    return re.findall(r'(?:href|src|action)="([^"#]*)"', text)


BELOW = pytest.mark.parametrize(
    ("strips", "base_path", "headers"),
    [
        (True, "/lab/study", ()),
        (False, "lab/study/", ()),
        (True, "", (("x-forwarded-prefix", "/lab/study/"),)),
        (True, "", ()),  # nobody tells: addresses are relative
    ],
)


@BELOW
def test_whole_session_below_a_path(serve, strips, base_path, headers):
    app = serve(base_path=base_path)
    client = TestClient(Proxy(app, strips, headers), base_url="http://lab.test")
    page = client.get("/lab/study/", params=ADA)
    seen = [page]
    page = client.post("/lab/study/start", data={**fields(page), "agree": "yes"})
    seen.append(page)
    assert page.url.path == "/lab/study/about-you"
    for step in ("instructions", "stage/0"):
        page = client.post(page.url.path, data=fields(page))
        assert page.url.path == f"/lab/study/{step}"
        seen.append(page)
    seen += [client.get(f"/lab/study/{path}") for path in ("delete", "nothing/here", "admin")]
    for each in seen:
        for address in addresses(each.text):
            found = each.url.join(address)
            assert found.path.startswith("/lab/study/"), (each.url, address)
            if "/static/" in address:
                assert client.get(found).status_code == 200
    shown = client.get("/lab/study/api/stages/0").json()
    picture = shown["images"][0]["picture"]  # a path of the application; pages know their place
    assert picture.startswith("media/")
    assert client.get(f"/lab/study/{picture}").status_code == 200
    late = client.get("/lab/study/api/stages/1")
    assert (late.status_code, late.json()["next"]) == (409, "stage/0")
    token = {"token": "a-token-of-the-admin"}
    assert client.post("/lab/study/admin", data=token).url.path == "/lab/study/admin"
    assert client.get("/lab/study/admin/export.zip").status_code == 200
    assert client.post("/lab/study/delete", data=fields(seen[4])).url.path == "/lab/study/left"
    assert client.get("/lab/study/next").status_code == 401  # the cookie is gone


@pytest.mark.slow
@BELOW
def test_a_session_over_real_connections_below_a_path(tmp_path, strips, base_path, headers):
    """From consent to the end, with all pictures, and no request out of the path."""
    write_tiny_study(tmp_path, keys=("birds",), images_per_set=4, limits=FAST)
    asked = []

    async def proxy(scope, receive, send):
        asked.append(scope["path"])
        await Proxy(app, strips, headers)(scope, receive, send)

    app = create_app(tmp_path, base_path=base_path)
    with b.serve_app(proxy) as url:
        found = simulate(f"{url}/lab/study", SimulationConfig(1))
    assert (found.finished, found.failed) == (1, [])
    assert sum("/media/" in path for path in asked) > 4
    assert [path for path in asked if not f"{path}/".startswith("/lab/study/")] == []
    app.state.site.database.close()


def test_the_path_may_come_with_a_slash_or_without(serve):
    app = serve(base_path="/lab/study")
    client = TestClient(Proxy(app, strips=False), base_url="http://lab.test")
    for path in ("/lab/study", "/lab/study/", "/lab/study//"):
        page = client.get(path)
        assert page.status_code == 200
        assert (
            page.url.join(re.search(r'action="([^"]*)"', page.text)[1]).path == "/lab/study/start"
        )
        assert "path=/lab/study;" in page.headers["set-cookie"].lower()
    assert client.get("/lab/study/admin/").status_code == 401


def test_personal_link_and_cookies_behind_a_proxy_with_a_certificate(serve):
    app = serve(base_path="/lab")
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "lab.example.org"}
    client = TestClient(app, base_url="https://127.0.0.1:8000", headers=headers)
    page = client.get("/lab/")
    assert "secure" in page.headers["set-cookie"].lower()
    page = client.post("/lab/start", data={**fields(page), "agree": "yes"})
    page = client.post("/lab/about-you", data=fields(page))
    link = re.search(r">https://lab\.example\.org/lab/(resume/\w+)<", page.text)[1]
    assert browser(app).get(f"/lab/{link}").url.path == "/lab/instructions"


@pytest.mark.parametrize("sent", ["//evil.example", "/a/../b", "javascript:x", '/"><script>'])
def test_a_path_that_is_none_is_ignored(app, sent):
    page = browser(app).get("/", headers={"X-Forwarded-Prefix": sent, "X-Forwarded-Host": "a b/<"})
    assert re.search(r'action="([^"]*)"', page.text)[1] == "./start"


@pytest.mark.parametrize("path", ["https://lab.example.org/study", "/a b", "/../x", "/x?y"])
def test_what_is_no_path_is_refused(serve, path):
    with pytest.raises(XNNError, match="base_path must be a path without a host, such as /study"):
        serve(base_path=path)


@pytest.mark.parametrize("path", ["/stage", "/admin/x", "media", "/start"])
def test_a_path_that_begins_like_a_page_is_refused(serve, path):
    with pytest.raises(XNNError, match="begins as addresses of the pages themselves do"):
        serve(base_path=path)
