"""Forward simulation: its design, its pages, what leaves the server, and what is kept."""

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

import study_session as s
from study_data import make_plan
from study_plan import write_tiny_study
from torchxnn.apps.study.design import draw_trials
from torchxnn.apps.study.export import read_tables
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import MAIN, Exclusions, MachineRules, StudySettings
from torchxnn.apps.study.simulate_answers import predict_answers

TASK = {"task": "forward_simulation", "rounds": 2, "images_per_set": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("study")
    return path, write_tiny_study(path, keys=("birds",), **TASK)


@pytest.fixture
def app(made, tmp_path):
    for part in made[0].iterdir():
        (tmp_path / part.name).symlink_to(part)
    app = create_app(tmp_path)
    yield app
    app.state.site.database.close()


def test_settings_of_the_task():
    made = StudySettings(title="x", task="forward_simulation", rounds=4)
    assert made.arms == (MAIN,)
    assert made.sets == 8
    with pytest.raises(ValidationError, match="sets must be at least 6"):
        StudySettings(title="x", task="forward_simulation", sets=5)
    two = (MAIN, MAIN.model_copy(update={"name": "other"}))
    with pytest.raises(ValidationError, match="compares the stages of one arm"):
        StudySettings(title="x", task="forward_simulation", arms=two)


@pytest.mark.parametrize("randomisation", ["blocks", "simple"])
def test_everybody_sees_one_stage_and_no_batch_twice(randomisation):
    made = StudySettings(title="x", task="forward_simulation", randomisation=randomisation)
    keys = ("a", "b")
    places = [draw_trials(made, MAIN, keys, place) for place in range(60)]
    for trials in places:
        assert len({trial.stage for trial in trials}) == 1
        assert [trial.position for trial in trials] == list(range(1, 7))
        for key in keys:
            own = [trial for trial in trials if trial.data_set == key]
            assert len({n for trial in own for n in (trial.set, trial.learned)}) == 6
    if randomisation == "blocks":
        assert Counter(trials[0].stage for trials in places) == {
            "NoVis": 20, "1-Heatmap": 20, "XNN": 20,
        }  # fmt: skip
        for first in range(0, 60, 3):  # whoever stops recruiting has stages of much the same size
            assert len({trials[0].stage for trials in places[first : first + 3]}) == 3
        for first in range(0, 60, 6):  # in a block all stages have the same batches
            seen = [
                sorted((trial.data_set, trial.set, trial.learned) for trial in trials)
                for trials in places[first : first + 6]
            ]
            assert all(each == seen[0] for each in seen)


def test_a_clustering_study_keeps_its_fingerprint():
    """What was hashed before there were other tasks is hashed today."""
    plan = make_plan(exclusions=Exclusions(machine=MachineRules(signals=0)))
    assert plan.fingerprint() == "a5726f5e917eb6c55f583ef3428c86685152a7ee396caf917d01338e21be29e7"


def test_a_session_from_consent_to_the_export(app, made):
    plan = made[1]
    client = s.practise(app)
    practice = client.get("/api/stages/0").json()
    assert sorted(image["answer"] for image in practice["learned"]) == [1, 2, 3, 4]
    assert all(image["answer"] for image in practice["images"])  # feedback is for practice alone
    assert s.sort(client, 0).json() == {"next": "stage/1"}
    truth = {image.id: image for image in plan.images}
    classes = plan.data_sets[0].classes
    for position in (1, 2):
        content = client.get(f"/api/stages/{position}").json()
        assert content["stage"] in ("NoVis", "1-Heatmap", "XNN")
        assert content["answers"] == 4
        for image in content["learned"]:
            assert classes[image["answer"] - 1] == truth[image["id"]].predicted
            assert len(image["features"]) == (7 if content["stage"] == "XNN" else 0)
            assert bool(image["heatmap"]) == (content["stage"] == "1-Heatmap")
        for image in content["images"]:
            assert image["answer"] is None
            assert image["heatmap"] is None
            assert image["features"] == []
        right = [classes.index(truth[image["id"]].predicted) + 1 for image in content["images"]]
        page = client.get(f"/stage/{position}")
        assert "forward_simulation.js" in page.text
        page = client.get(
            s.sort(client, position, lambda n, _, right=right: right[n]).json()["next"]
        )
        assert "predicted the agent" in page.text
        given = {"confidence": "6", "attention": "3"}
        page = client.post(f"/stage/{position}/confidence", data={**s.fields(page), **given})
    assert page.url.path == "/ratings"
    assert "to predict the agent" in page.text
    answers = {name: 5 for name in ("rating_one_heatmap", "rating_xnn") if name in page.text}
    page = client.post("/ratings", data={**s.fields(page), **answers, "difficulty": 2})
    assert page.url.path == "/done"
    tables = read_tables(app.state.site.database, plan)
    placed = tables["placements"]
    assert len(placed) == 4
    assert (placed["predicted"] == placed["group"].map(lambda n: classes[n - 1])).all()
    trials = tables["trials"]
    assert trials.loc[trials["position"] > 0, "learned"].gt(0).all()


def test_an_answer_that_does_not_exist_is_refused(app):
    client = s.practise(app)
    s.sort(client, 0)
    content = client.get("/api/stages/1").json()
    image = content["images"][0]["id"]
    assert s.send(client, 1, [s.event("move", 1, image, group=5)]).status_code == 422
    learned = content["learned"][0]["id"]
    assert s.send(client, 1, [s.event("move", 2, learned, group=1)]).status_code == 422
    missing = client.post("/api/stages/1/submit", headers=s.sign(client))
    assert missing.status_code == 409
    assert len(missing.json()["unplaced"]) == 2


def test_synthetic_participants_trust_what_was_highlighted():
    """The answer follows one place, and the rest of the looks misleads."""
    looks = {
        "a": [9.0, 0, 0, 0], "b": [2.0, 5, 5, 5], "a+": [9.5, 0, 0, 0], "b+": [2.5, 5, 5, 5],
        "new": [9.0, 5, 5, 5],
    }  # fmt: skip

    def read(address):
        return np.array(looks[address])

    def shown(name, heatmap, answer):
        return {
            "id": name, "picture": name, "heatmap": heatmap, "features": [], "answer": answer,
        }  # fmt: skip

    new = [shown("new", None, None)]
    blind = [shown("a", None, 1), shown("b", None, 2)]
    told = [shown("a", "a+", 1), shown("b", "b+", 2)]
    assert predict_answers({"learned": blind, "images": new}, read) == {"new": 2}
    assert predict_answers({"learned": told, "images": new}, read) == {"new": 1}
