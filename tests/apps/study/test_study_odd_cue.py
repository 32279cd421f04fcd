"""The odd cue: its pages, what is asked and kept, and its analysis with known effects."""

import html

import pytest
from pydantic import ValidationError

import study_session as s
from study_answers import CUE, make_answer_plan, make_answer_tables
from study_plan import write_tiny_study
from torchxnn.apps.study.analysis.answers.report import write_answers_report
from torchxnn.apps.study.analysis.answers.results import compute_answers
from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.export import read_tables
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Cue, StudySettings
from torchxnn.apps.study.texts import ASKED, default_consent

SYNTHETIC = AnalysisOptions(include_synthetic=True, resamples=200)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    return path, write_tiny_study(path, keys=("birds",), task="odd_cue", images_per_set=3, sets=2)


@pytest.fixture
def app(made, tmp_path):
    for part in made[0].iterdir():
        (tmp_path / part.name).symlink_to(part)
    app = create_app(tmp_path)
    yield app
    app.state.site.database.close()


def test_a_cue_is_needed_and_its_options_differ(made):
    plan = made[1].model_dump()
    plan["data_sets"][0]["cue"] = None
    with pytest.raises(ValidationError, match="needs a `cue`"):
        StudyPlan.model_validate(plan)
    with pytest.raises(ValidationError, match="must be different texts"):
        Cue(right="a", others=("b", "b"))
    assert StudySettings(title="x", task="odd_cue").repeats == 1


@pytest.mark.parametrize("task", ASKED["en"])
@pytest.mark.parametrize("language", ASKED)
def test_the_consent_text_says_what_is_done(task, language):
    text = " ".join(default_consent(task, language).split())
    assert text.count(ASKED[language][task]) == 1
    assert sum(words in text for words in ASKED[language].values()) == 1


def test_a_session_from_looking_to_the_export(app, made):
    client = s.practise(app)
    assert s.sort(client, 0, lambda *_: 1).json() == {"next": "stage/1"}
    content = client.get("/api/stages/1").json()
    assert content["learned"] == []
    assert all(image["answer"] for image in content["images"])
    early = client.post("/api/stages/1/submit", headers=s.sign(client))
    assert early.status_code == 409  # nothing was seen yet
    seen = [image["id"] for image in content["images"][:2]]
    s.send(client, 1, [s.event("move", n, image, group=1) for n, image in enumerate(seen)])
    done = client.post("/api/stages/1/submit", headers=s.sign(client)).json()
    assert done == {"next": "stage/1/words"}
    page = client.get(done["next"])
    page = client.post("/stage/1/words", data={**s.fields(page), "words": "a dot, I think"})
    assert page.url.path == "/stage/1/confidence"
    right = made[1].data_sets[0].cue.right
    assert page.text.count('name="cue"') == 4
    assert "I cannot tell" in page.text
    given = {"confidence": "6", "attention": "3"}
    form = "/stage/1/confidence"
    missing = client.post(form, data={**s.fields(page), **given})
    assert missing.status_code == 422
    assert client.post(form, data={**s.fields(page), **given, "cue": "4"}).status_code == 422
    place = page.text[: page.text.index(right)].count('name="cue"')
    page = client.post(form, data={**s.fields(page), **given, "cue": str(place)})
    assert page.url.path == "/ratings"
    trial = read_tables(app.state.site.database, made[1])["trials"].iloc[-1]
    assert trial["seen"] == 2
    assert trial["cue"] == right
    assert trial["cue_right"]
    assert trial["words"] == "a dot, I think"
    assert trial["confidence"] == 6


def test_known_effects_are_found_and_none_is_not(tmp_path):
    plan = make_answer_plan("odd_cue", keys=("birds", "cells", "digits"), rounds=1)
    effect = {"NoVis": 0.2, "1-Heatmap": 0.3, "XNN": 0.85}
    found = write_answers_report(
        make_answer_tables(plan, effect, 54), plan, SYNTHETIC, tmp_path / "out"
    )
    primary, sooner = found.contrasts[0].people, found.sooner[0].people
    assert primary.p_holm < 0.01
    assert primary.mean_difference > 0.3
    assert sooner.p_holm < 0.01
    assert sooner.mean_difference < 0  # fewer pictures with XNN
    assert found.chance == pytest.approx(1 / 3)
    assert found.errs == ()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Pictures seen until the right cue" in page
    assert CUE.right in page
    nothing = make_answer_tables(plan, dict.fromkeys(effect, 0.5), 54, seed=2)
    results, rows = compute_answers(nothing, plan, SYNTHETIC)
    assert all(c.people.p_holm > 0.05 for c in (*results.contrasts, *results.sooner))
    assert (rows.loc[rows["right"] == 0, "seen"] == 7).all()  # one more than there are


def test_a_text_that_is_too_long_is_shown_again_and_none_is_raw_json(app):
    client = s.practise(app)
    s.sort(client, 0, lambda *_: 1)
    page = client.get(s.sort(client, 1, lambda *_: 1).json()["next"])
    form, path = s.fields(page), "/stage/1/words"
    long = "ö" * 4000 + "\n<b>" + "x" * 100
    again = client.post(path, data={**form, "words": long})
    assert again.status_code == 422
    assert f"This text has {len(long):,}".replace(",", "") in again.text
    assert html.escape(long) in again.text  # nothing is lost
    huge = client.post(path, data={**form, "words": "x" * 100_000})
    assert huge.status_code == 413
    assert huge.headers["content-type"].startswith("text/html")
    assert huge.headers["content-security-policy"]
    assert "<h1>Too long</h1>" in huge.text
    assert "Go to where I was" in huge.text
    script = client.post("/api/stages/1/events", content="x" * 100_000, headers=s.sign(client))
    assert (script.status_code, list(script.json())) == (413, ["detail"])
    lines = "a\r\n" * 1000 + "b" * 2000  # as a form sends lines: 4,000 characters as people count
    page = client.post(path, data={**form, "words": lines})
    assert page.url.path == "/stage/1/confidence"
    trial = read_tables(app.state.site.database, app.state.site.plan)["trials"].iloc[-1]
    assert trial["words"] == "a\n" * 1000 + "b" * 2000
    given = {"confidence": "6", "attention": "3", "cue": "1"}
    page = client.post("/stage/1/confidence", data={**s.fields(page), **given})
    ratings = dict.fromkeys(("rating_one_heatmap", "rating_xnn", "difficulty"), "4")
    again = client.post("/ratings", data={**s.fields(page), **ratings, "comments": long})
    assert again.status_code == 422
    assert html.escape(long) in again.text
    assert 'value="4" checked' in again.text.replace(" required", "")
    for name in ("agree", "arm", "form", "p_PROLIFIC_PID", "kind"):
        start = s.browser(app)
        sent = s.fields(start.get("/")) | {"agree": "yes", name: "x" * 100_000}
        answer = start.post("/start", data=sent)
        assert (answer.status_code, "<h1>Too long</h1>" in answer.text) == (413, True)
        answer = start.post("/start", data=sent | {name: "x" * 10_000})
        assert answer.status_code == 422
        assert answer.headers["content-type"].startswith("text/html")
