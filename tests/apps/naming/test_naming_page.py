"""The naming page: what it shows, by requests and in a real browser; nothing is lost on a kill."""

import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

import study_browser as b
from conftest import make_images, make_net
from torchxnn import XNN
from torchxnn.apps.naming.app import create_app
from torchxnn.apps.naming.config import NameConfig
from torchxnn.apps.naming.gather import gather
from torchxnn.apps.naming.site import Site
from torchxnn.apps.naming.suggest import place_names, suggest
from torchxnn.cli.main import main
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.errors import DataError
from torchxnn.explanations.names.file import read_names
from torchxnn.metrics.part_weights import CONTEXT
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.saved_folder import read_saved
from xnn_examples import make_loader, quick_fit

pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
SMALL = NameConfig(top=3, spaced=2, against=2)


class Squares(ImageDataset):
    """The images of `conftest`, with parts: the middles of four squares."""

    part_names = ("top left", "top right", "bottom left", "bottom right")

    def __init__(self, count=24):
        self.name, self.classes = "squares", ("a", "b", "c", "d")
        self.preprocessing = Preprocessing(12, "squash", (0.0,) * 3, (1.0,) * 3)
        self.paths = tuple(f"{i}.png" for i in range(count))
        self.images, labels = make_images(count, seed=3)
        self.labels = tuple(labels.tolist())

    def load(self, index):
        parts = torch.tensor([[2.0, 2, 1], [8, 2, 1], [2, 8, 1], [8, 8, 1]])
        box = torch.tensor([0.0, 0, 12, 12])
        return Sample(self.images[index], self.labels[index], self.paths[index], parts, box)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A saved XNN, its checksum and its gallery."""
    xnn = XNN(make_net(), "classifier.1", 3, class_names=("a", "b", "c", "d"))
    quick_fit(xnn, make_loader(), 1)
    folder = tmp_path_factory.mktemp("name") / "run"
    xnn.save_pretrained(folder)
    gallery = gather(xnn, Squares(), SMALL, DataConfig())
    return xnn, folder, read_saved(folder)[0]["weights_sha256"], gallery


@pytest.fixture
def run(fitted, tmp_path):
    """A copy of the run without names."""
    for file in fitted[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def app_for(fitted, run, who=""):
    return create_app(Site(run, fitted[2], "b", fitted[3], who))


def client_for(fitted, run, who="Ada"):
    return TestClient(app_for(fitted, run, who), follow_redirects=True)


def names_in(fitted, run):
    return read_names(run, fitted[2], 3)


def send(client, path, **values):
    return client.post(path, data={"token": client.app.state.site.token, **values})


def test_gather_draws_each_image_once(fitted):
    gallery = fitted[3]
    assert len(gallery.features) == 3
    shown = [s for f in gallery.features for group in f.groups.values() for s in group]
    assert shown
    assert {s.image for s in shown} | {s.heatmap for s in shown} == set(gallery.files)
    assert all(content[8:12] == b"WEBP" for content in gallery.files.values())
    assert all(re.search(r"; E [\d.]+, contribution .*; \d+\.png$", s.caption) for s in shown)
    for feature in gallery.features:
        images = [s.image for group in feature.groups.values() for s in group]
        assert len(images) == len(set(images))  # no group repeats another
    assert gallery.places == Squares.part_names


def test_suggestions_name_the_part_under_the_heatmap():
    squares = Squares(4)
    names = place_names(squares)
    assert names[-1] == "context"
    heatmap = torch.zeros(12, 12)
    heatmap[2, 8] = 1.0
    (found,) = suggest([heatmap] * 4, [squares[i] for i in range(4)], names)
    assert (found.name, found.images) == ("top right", 4)
    assert found.share == pytest.approx(1)
    assert found.evidence == (
        "100% of its relevance lies nearer to it than to any other part, "
        f"{found.ratio:.1f} times a uniform map, 4 images; ranked by its nearness-weighted score, "
        "1.00"
    )
    assert suggest([torch.ones(12, 12)] * 4, [squares[i] for i in range(4)], names) == ()
    assert suggest([0 * heatmap], [squares[0]], names) == ()


def test_the_share_of_a_suggestion_counts_every_pixel_of_the_cell_alike():
    """Of a map that lies in the cell with one half, 31% was said to lie on the part."""
    parts, box = torch.tensor([[6.0, 12.0, 1.0]]), torch.tensor([0.0, 6.0, 13.0, 13.0])
    sample = Sample(torch.zeros(3, 24, 24), 0, "x", parts=parts, box=box)
    heatmap = torch.zeros(24, 24)
    heatmap[12, :13] = 0.5 / 13
    heatmap[0, :] = 0.5 / 24
    (found,) = suggest([heatmap], [sample], ("left", CONTEXT))
    assert (found.name, found.images) == ("left", 1)
    assert found.share == pytest.approx(0.5)
    assert found.score == pytest.approx(0.31, abs=0.01)
    assert "50% of its relevance lies nearer to it" in found.evidence


def test_suggestions_from_masks():
    masks = torch.ones(12, 12, dtype=torch.long)
    masks[:3] = 2
    sample = Sample(torch.zeros(3, 12, 12), 0, "x", masks=masks)
    heatmap = torch.zeros(12, 12)
    heatmap[1, 1] = 1
    (found,) = suggest([heatmap], [sample], ("bed", "lamp"))
    assert (found.name, found.ratio) == ("lamp", pytest.approx(4))


def test_a_judgement_is_in_the_file_before_the_answer(fitted, run):
    client = client_for(fitted, run)
    assert "x-feature 3" in client.get("/").text
    answer = send(client, "/feature/1", name="golden feather", note="bright", then="stay")
    assert answer.url.path == "/feature/1"
    assert "Saved: x-feature 1 is <bdi>golden feather</bdi>" in answer.text
    names = names_in(fitted, run)
    assert names.name(0) == "golden feather"
    assert names.judgements[0].who == "Ada"
    assert 'value="golden feather"' in client.get("/feature/1").text
    assert send(client, "/feature/3", flag="unclear", then="next").url.path == "/feature/2"
    assert names_in(fitted, run).settled(2).flag == "unclear"


def test_save_goes_on_to_what_is_still_open_and_the_overview_resumes_there(fitted, run):
    client = client_for(fitted, run)
    assert "Begin with x-feature 1" in client.get("/").text
    page = send(client, "/feature/2", name="wing")
    assert page.url.path == "/feature/3"
    assert "Saved: x-feature 2 is <bdi>wing</bdi>" in page.text
    assert "1 of 3 judged" in page.text
    page = send(client, "/feature/3", name="")  # an empty answer is none, and is not called saved
    assert (page.url.path, "Saved" in page.text) == ("/feature/1", False)
    assert "Go on with x-feature 1" in client.get("/").text
    assert send(client, "/feature/1", name="beak").url.path == "/feature/3"
    page = send(client, "/feature/3", flag="mixed")
    assert page.url.path == "/"
    assert "Saved: you have judged every x-feature" in page.text
    assert "Go on with" not in page.text


def test_what_would_steer_is_shown_only_after_the_answer(fitted, run):
    """Class, prediction, contribution, the file with its folder, and measured parts."""
    client, feature = client_for(fitted, run), fitted[3].features[0]
    captions = [shown.caption for group in feature.groups.values() for shown in group]
    telling = [*captions, "Against the prediction", "contribution ", ".png", "predicted"]
    telling += [each.evidence for each in feature.suggestions]
    for person in ("Ada", ""):
        page = client_for(fitted, run, person).get("/feature/1").text
        assert not [text for text in telling if text in page]
        assert '<option value="top left">' in page if person else True  # words to choose from
    page = send(client, "/feature/1", name="beak", then="stay").text
    assert [text for text in [*captions, "Against the prediction"] if text not in page] == []
    assert all(each.evidence in page for each in feature.suggestions)


def test_the_table_of_all_judgements_opens_after_the_own_ones(fitted, run):
    ada, bo = client_for(fitted, run), client_for(fitted, run, "Bo")
    send(ada, "/feature/1", name="secret name")
    for number in (1, 2):
        answer = bo.get("/names.csv")
        assert answer.status_code == 422
        assert "when you have judged every x-feature" in answer.text
        assert "xnn name RUN --export" in answer.text
        assert "secret name" not in answer.text
        assert 'href="names.csv"' not in bo.get("/").text
        send(bo, f"/feature/{number}", name="wing")
    send(bo, "/feature/3", flag="unclear")
    assert "secret name" in bo.get("/names.csv").text
    assert 'names.csv"' in bo.get("/").text
    assert client_for(fitted, run, "").get("/names.csv").status_code == 422


def test_others_are_seen_only_after_the_own_answer(fitted, run):
    ada, bo = client_for(fitted, run), client_for(fitted, run, "Bo")
    send(ada, "/feature/1", name="wing bar", note="secret note")
    text = bo.get("/feature/1").text
    assert "wing bar" not in text
    assert "secret note" not in text
    assert "1 person has judged" in text
    assert "wing bar" not in bo.get("/").text
    refused = send(bo, "/feature/1/merge", names=["wing bar"], into="wing bar")
    assert "judge x-feature 1 yourself" in refused.text
    assert "wing bar" in send(bo, "/feature/1", name="beak", then="stay").text
    assert "No agreement" in bo.get("/").text
    assert "Krippendorff" in bo.get("/").text


def test_one_persons_name_does_not_count_as_agreed(fitted, run):
    ada, bo = client_for(fitted, run), client_for(fitted, run, "Bo")
    page = send(ada, "/feature/1", name="wing bar", then="stay").text
    assert "<strong>wing bar</strong> is one person's name so far" in page
    assert "Agreed by" not in page + ada.get("/").text
    assert "Nobody else has said so yet" in ada.get("/").text
    assert "Agreed by 2 of 2" in send(bo, "/feature/1", name="Wing bar", then="stay").text
    assert "Agreed by 2 of 2" in ada.get("/").text


def test_merge_and_split(fitted, run):
    ada, bo = client_for(fitted, run), client_for(fitted, run, "Bo")
    send(ada, "/feature/1", name="wing bar")
    send(bo, "/feature/1", name="golden wing", then="stay")
    merged = send(bo, "/feature/1/merge", names=["wing bar", "golden wing"], into="wing bar")
    assert "Bo merged" in merged.text
    assert names_in(fitted, run).agreed(0) == "wing bar"
    assert "Bo split" in send(bo, "/feature/1/split", name="wing bar").text
    assert names_in(fitted, run).disagreements == (0,)


def test_the_page_asks_who(fitted, run):
    client = client_for(fitted, run, "")
    assert "Say who you are" in client.get("/feature/2").text
    assert send(client, "/feature/2", name="a1").status_code == 422
    client = TestClient(app_for(fitted, run), base_url="http://localhost")
    assert send(client, "/who", who="Zoë <b>", back=2).url.path == "/feature/2"
    assert "You are <strong><bdi>Zoë &lt;b&gt;</bdi></strong>" in client.get("/feature/2").text


def test_who_comes_back_goes_on_in_another_browser_however_the_name_is_written(fitted, run):
    first, second = client_for(fitted, run, ""), client_for(fitted, run, "")
    send(first, "/who", who="Ada")
    send(first, "/feature/1", name="wing")
    page = send(second, "/who", who=" ADA")
    assert "You are <strong><bdi>Ada</bdi></strong>: 1 of 3 judged" in page.text
    send(second, "/feature/1", name="beak", signed="ada")
    assert {who: j.name for who, j in names_in(fitted, run).latest(0).items()} == {"Ada": "beak"}


def test_a_link_that_names_a_person_signs_nobody_in(fitted, run):
    """An image tag on any page could follow it; only the form's button signs."""
    client = client_for(fitted, run, "")
    for before in ("", "Cy"):
        page = client.get("/?who=Bo%20B.")
        assert "set-cookie" not in page.headers
        assert "is for <strong><bdi>Bo B.</bdi></strong>" in page.text
        assert 'name="who" value="Bo B."' in page.text
        assert f"you are <bdi>{before}</bdi> until" in page.text if before else True
        assert "<bdi>Bo B.</bdi>" not in client.get("/feature/1").text
        send(client, "/who", who="Cy")
    send(client, "/who", who="Bo B.")
    page = client.get("/?who=BO%20b.")
    assert "You are <strong><bdi>Bo B.</bdi></strong>" in page.text
    assert "The link that you opened" not in page.text
    assert client.get("/", params={"who": "x" * 81}).status_code == 422
    assert client.post("/who", data={"who": "Di"}).status_code == 403  # another site's form
    assert "You are <strong><bdi>Bo B.</bdi></strong>" in client.get("/").text


def test_one_person_in_two_tabs_however_the_name_is_written(fitted, run):
    first, second = client_for(fitted, run, ""), client_for(fitted, run, "")
    send(first, "/who", who="Ada  Straße")
    send(second, "/who", who="ada\u200b STRASSE ")  # nobody has judged, so both names are new
    send(first, "/feature/1", name="wing", signed="Ada Straße")
    send(second, "/feature/1", name="beak", signed="ada\u200b STRASSE")
    names = names_in(fitted, run)
    assert {who: j.name for who, j in names.latest(0).items()} == {"Ada Straße": "beak"}
    assert "You are <strong><bdi>Ada Straße</bdi></strong>: 1 of 3" in second.get("/").text


def test_who_signs_with_a_name_that_has_answers_is_told_so(fitted, run):
    client = client_for(fitted, run, "")
    told = "Somebody has answered as <bdi>Ada</bdi> before: 1 of 3 x-features, last on 20"
    assert "Somebody has answered" not in send(client, "/who", who="Ada").text
    send(client, "/feature/2", name="wing")
    assert "Somebody has answered" not in send(client, "/who", who="ADA").text  # it is Ada
    send(client, "/who", who="Bo")
    assert told in send(client, "/who", who=" ada").text
    send(client, "/who", who="Bo")
    page = send(client, "/who", who="ada", back=2)
    assert page.url.path == "/feature/2"
    assert told in page.text
    assert "Somebody has answered" not in client.get("/?known=1", headers={"Cookie": ""}).text


@pytest.mark.parametrize("who", ["  ", "\u200b", "x" * 81, "Torchxnn (Example)", "a\nb"])
def test_what_is_no_name_of_a_person(fitted, run, who, capsys):
    client = client_for(fitted, run, "")
    assert send(client, "/who", who=who).status_code == 422
    assert send(client, "/feature/1", name="wing", signed=who).status_code == 422
    assert not (run / "names.json").exists()
    with pytest.raises(DataError):
        app_for(fitted, run, who)
    assert main(["name", str(run), str(run), "--who", who]) == 2
    assert "person" in capsys.readouterr().err


ESCAPED = "multipart/form-data; boundary=b; charset=unicode_escape"
SURROGATE = (
    "\r\n".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'
        for name, value in (("who", "Bo"), ("token", r"\ud800"))
    ).encode()
    + b"\r\n--b--\r\n"
)


def test_odd_requests_are_answered_with_a_page_and_the_way_out(fitted, run):
    client = client_for(fitted, run)
    odd = [
        send(client, "/feature/1", name="a", note="n" * 70_000),
        client.get("/feature/one"),
        client.get("/feature/1?saved=x"),
        send(client, "/who", who="Bo", back="x"),
        client.post("/who", content=b"\xff\x00", headers={"content-type": "application/json"}),
        client.post("/who", files={"who": b"a", "token": b"b"}),
        client.post("/who", content=SURROGATE, headers={"content-type": ESCAPED}),
        client.put("/feature/1"),
        client.get("/who"),
    ]
    assert [one.status_code for one in odd] == [413, 422, 422, 422, 403, 422, 403, 405, 405]
    for one in odd:
        assert one.headers["content-type"].startswith("text/html")
        assert re.search(r'<a href="[./]+">To the overview</a>', one.text)
        assert "default-src 'none'" in one.headers["content-security-policy"]
    assert "go back (the form still has what you wrote)" in odd[0].text
    assert not (run / "names.json").exists()


def test_what_cannot_be_used_is_kept_on_the_page_and_not_saved(fitted, run):
    client = client_for(fitted, run)
    answer = send(client, "/feature/1", name="x-feature 2", note="my long note")
    assert answer.status_code == 422
    assert "Not saved" in answer.text
    assert "my long note" in answer.text
    assert not (run / "names.json").exists()
    assert send(client, "/feature/1", name="a", flag="sure").status_code == 422
    assert send(client, "/feature/1/merge", into="").status_code == 422


def test_only_forms_of_this_page_from_this_machine(fitted, run):
    client = client_for(fitted, run)
    assert client.post("/feature/1", data={"name": "a"}).status_code == 403
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/feature/4").status_code == 404
    assert client.get("/feature/0").status_code == 404
    version = client.app.state.site.version
    assert client.get(f"/media/{version}/nothing.webp").status_code == 404
    assert send(client, "/feature/1", name="a", note="n" * 70_000).status_code == 413
    headers = client.get("/feature/1").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "<script" not in client.get("/feature/1").text


def test_a_broken_file_is_said_and_kept(fitted, run):
    client = client_for(fitted, run)
    (run / "names.json").write_text("{")
    answer = send(client, "/feature/1", name="a")
    assert answer.status_code == 500
    assert "cannot be read" in answer.text
    assert (run / "names.json").read_text() == "{"


def test_a_judgement_is_of_whom_its_page_names(fitted, run):
    """Two people with a tab each in one browser: the cookie is of the one who came last."""
    client = client_for(fitted, run, "")
    send(client, "/who", who="Ada")
    form = client.get("/feature/1").text
    assert '<input type="hidden" name="signed" value="Ada">' in form
    send(client, "/who", who="Bo")
    send(client, "/feature/1", name="red crown", signed="Ada")
    send(client, "/feature/1", name="red eye", signed="Bo")
    assert {who: j.name for who, j in names_in(fitted, run).latest(0).items()} == {
        "Ada": "red crown",
        "Bo": "red eye",
    }


@pytest.mark.parametrize("base_path", ["/lab/names", ""])
def test_the_page_lies_below_a_path(fitted, run, base_path):
    app = create_app(Site(run, fitted[2], "b", fitted[3]), base_path)

    async def strip(scope, receive, send):
        assert scope["path"].startswith("/lab/names/")
        path = scope["path"].removeprefix("/lab/names")
        await app({**scope, "path": path}, receive, send)

    client = TestClient(strip, base_url="http://localhost")
    token = {"token": app.state.site.token}
    page = client.post("/lab/names/who", data={**token, "who": "Ada", "back": 1})
    assert page.url.path == "/lab/names/feature/1"
    page = client.post(page.url.path, data={**token, "name": "a1", "then": "next"})
    assert page.url.path == "/lab/names/feature/2"
    for each in (page, client.get("/lab/names/"), client.get("/lab/names/no/such/page")):
        addresses = re.findall(r'(?:href|src|action)="([^"#]+)"', each.text)
        assert addresses
        assert all(each.url.join(a).path.startswith("/lab/names/") for a in addresses)
    picture = re.search(r'src="([^"]+)"', page.text)[1]
    assert client.get(page.url.join(picture)).status_code == 200


def test_two_runs_on_one_host_do_not_share_a_name(fitted, run):
    client = client_for(fitted, run, "")
    send(client, "/who", who="Ada")
    (cookie,) = client.cookies
    assert cookie == f"xnn_name_{fitted[2][:8]}"


def test_two_people_at_once_lose_nothing(fitted, run):
    clients = [client_for(fitted, run, who) for who in ("Ada", "Bo", "Cy")]

    def judge(client):
        for i in range(8):
            send(client, f"/feature/{i % 3 + 1}", name=f"name {i}")

    threads = [threading.Thread(target=judge, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names_in(fitted, run).judgements) == 24


def test_csv_from_the_page_and_the_command(fitted, run, tmp_path, capsys):
    client = client_for(fitted, run)
    for number in (1, 2, 3):
        send(client, f"/feature/{number}", name="=1+1")
    text = client.get("/names.csv").text
    assert "'=1+1" in text
    assert main(["name", str(run), "--export", str(tmp_path / "out" / "names.csv")]) == 0
    assert (tmp_path / "out/names.csv").read_text("utf-8").splitlines() == text.splitlines()
    assert main(["name", str(run)]) == 2
    assert "xnn name RUN DIR" in capsys.readouterr().err


# --- in a browser


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_in_a_browser_by_keyboard(fitted, run, chromium, size):
    width, height = size
    problems, asked = [], []
    viewport = {"width": width, "height": height}
    with (
        b.serve_app(app_for(fitted, run)) as url,
        chromium.new_context(viewport=viewport) as context,
    ):
        page = context.new_page()
        b.watch(page, problems)
        page.on("request", lambda request: asked.append(request.url))
        hand = b.Keyboard(page)
        page.goto(url)
        hand.reach(page.get_by_label("Your name"))
        page.keyboard.type("Ada")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Change").wait_for()
        for each in ("/", "/feature/1", "/feature/2"):
            page.goto(url + each)
            assert b.nameless(page) == []
            assert b.weak_contrasts(page) == []
            assert b.overflow(page) <= 0
        page.goto(f"{url}/feature/1")
        hand.reach(page.get_by_label("What do these images"))
        page.keyboard.type("golden feather")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")  # mixed
        hand.press(page.get_by_role("button", name="Save and see what others say"))
        page.get_by_text("Saved: x-feature 1 is golden feather (mixed)").wait_for()
        (judgement,) = names_in(fitted, run).judgements
        assert (judgement.name, judgement.flag) == ("golden feather", "mixed")
        assert b.weak_contrasts(page) == []
        assert b.overflow(page) <= 0
        hand.press(page.get_by_role("link", name="Go on with x-feature 2"))
        hand.reach(page.get_by_label("What do these images"))
        page.keyboard.type("beak")
        page.keyboard.press("Enter")  # the first button goes on
        page.wait_for_url("**/feature/3?saved=2")
    assert problems == []
    assert all(address.startswith(url) for address in asked)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1280, 800), (390, 844)])
def test_the_page_does_not_steer_and_two_people_agree_in_a_browser(fitted, run, chromium, size):
    """The whole way of two people, one after the other, on one screen."""
    viewport = dict(zip(("width", "height"), size, strict=True))
    with (
        b.serve_app(app_for(fitted, run)) as url,
        chromium.new_context(viewport=viewport) as context,
    ):
        page = context.new_page()
        for who in ("Ada", "Bo"):
            page.goto(f"{url}/?who={who}")
            page.get_by_role("button", name="Begin" if who == "Ada" else "Change").click()
            page.get_by_role("link", name="Begin with x-feature 1").click()
            if size[0] > 1000:  # what is judged and the answer are on one screen
                assert page.locator(".seen img").first.bounding_box()["y"] < size[1]
                assert page.get_by_role("button", name="Save and go on").is_visible()
            assert page.locator(".glance").is_visible() == (size[0] < 1000)  # a form comes first
            told = page.locator("figcaption").all_inner_texts()
            assert not [text for text in told if "contribution" in text]
            alts = page.locator("img").evaluate_all("all => all.map(one => one.alt)")
            assert not [alt for alt in alts if ".png" in alt]
            assert page.get_by_role("heading", name="What others say").count() == 0
            shown = page.locator(".seen figure img:first-child").evaluate_all(
                "all => all.map(one => one.src)"
            )
            assert len(shown) == len(set(shown))
            for name in ("wing", "beak"):
                page.get_by_label("What do these images").fill(name)
                page.get_by_role("button", name="Save and go on").click()
            page.get_by_role("radio", name="unclear").check()
            page.get_by_role("button", name="Save and finish").click()
            page.get_by_text("you have judged every x-feature").wait_for()
            agreed = page.get_by_text("Agreed by 2 of 2: wing").count()
            assert agreed == (1 if who == "Bo" else 0)
        page.goto(f"{url}/feature/1")
        assert all("contribution" in text for text in page.locator("figcaption").all_inner_texts())
        page.goto(f"{url}/?who=ADA")  # on the way back
        page.get_by_text("The link that you opened is for Ada").wait_for()
        page.get_by_role("button", name="Change").click()
        page.get_by_text("Somebody has answered as Ada before: 3 of 3").wait_for()
        page.get_by_text("You are Ada: 3 of 3 judged").wait_for()
    assert names_in(fitted, run).shown() == ("wing", "beak", "x-feature 3")


@pytest.mark.slow
def test_it_works_without_scripts(fitted, run, chromium):
    with (
        b.serve_app(app_for(fitted, run, "Ada")) as url,
        chromium.new_context(java_script_enabled=False) as context,
    ):
        page = context.new_page()
        page.goto(f"{url}/feature/2")
        page.get_by_label("What do these images").fill("beak")
        page.get_by_role("button", name="Save and go on").click()
        page.wait_for_url("**/feature/3?saved=2")
    assert names_in(fitted, run).name(1) == "beak"


@pytest.mark.slow
def test_the_command_keeps_what_was_saved_before_a_kill(tmp_path):
    """`xnn name` as a process of its own, on a network with random weights and saved pictures."""
    images, _ = make_images(32)
    for i, image in enumerate(images):
        folder = tmp_path / "data" / f"class {i % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (image.clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
        Image.fromarray(np.kron(pixels, np.ones((4, 4, 1), np.uint8))).save(folder / f"{i}.png")
    source = {"model": "conftest:make_net", "weights": None, "random_weights": True}
    preprocessing = Preprocessing(12, "squash")
    xnn = XNN(make_net(), "classifier.1", 3, preprocessing=preprocessing, source=source)
    quick_fit(xnn, make_loader(), 1)
    xnn.save_pretrained(tmp_path / "run")
    port = b.free_port()
    command = [sys.executable, "-m", "torchxnn.cli", "name", str(tmp_path / "run")]
    command += [str(tmp_path / "data"), "--no-browser", "--who", "Ada", "--port", str(port)]
    command += ["--top", "2", "--spaced", "1", "--against", "1"]
    here = str(Path(__file__).parents[2])
    log = (tmp_path / "log").open("wb")
    with subprocess.Popen(command, stdout=log, stderr=log, cwd=here) as process:
        try:
            b.wait_until(lambda: b.answers(f"http://127.0.0.1:{port}/"), 60)
            judge_by_request(f"http://127.0.0.1:{port}", 1, "wing")
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            log.close()
    assert XNN.from_pretrained(tmp_path / "run", xnn.model).feature_names[0] == "“wing”"


def judge_by_request(url, number, name):
    """The form, by plain requests."""
    with httpx.Client(base_url=url, follow_redirects=True, timeout=120) as client:
        page = client.get(f"/feature/{number}").text
        token = page.split('name="token" value="')[1].split('"')[0]
        answer = client.post(f"/feature/{number}", data={"token": token, "name": name})
        assert answer.status_code == 200
