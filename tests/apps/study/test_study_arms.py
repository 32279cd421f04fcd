"""Arms that show numbers only, heatmaps only, or both in the stage XNN."""

import numpy as np
import pytest
from pydantic import ValidationError

from study_data import make_plan
from study_plan import write_tiny_study
from study_session import browser, event, fields, practise, send, sort
from torchxnn.apps.study.analysis.arms import arm_pairs
from torchxnn.apps.study.analysis.options import AnalysisOptions, stage_in
from torchxnn.apps.study.analysis.wording import (
    describe_design,
    describe_hypotheses,
    describe_randomisation,
)
from torchxnn.apps.study.export import read_tables
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import MAIN, Arm, Limits

NUMBERS = Arm(name="numbers", stages=("XNN",), shows="numbers")
MAPS = Arm(name="maps", stages=("XNN",), shows="maps")
ARMS = (NUMBERS, MAIN, MAPS)
FAST = Limits(requests_per_second=1000, starts_per_second=1000)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    write_tiny_study(folder, keys=("birds",), arms=ARMS, allocation="lot", limits=FAST)
    app = create_app(folder)
    yield app
    app.state.site.database.close()


def at_xnn(app, arm):
    """A participant of an arm with one assisted stage, at the batch of it."""
    client = practise(app, arm=arm)
    practice = client.get("/api/stages/0").json()
    page = client.get(sort(client, 0).json()["next"])
    page = client.get(sort(client, 1).json()["next"])
    client.post("/stage/1/confidence", data={**fields(page), "confidence": "4", "attention": "3"})
    return client, practice, client.get("/api/stages/2").json()


@pytest.mark.parametrize(("arm", "kept", "lost"), [
    ("numbers", "contribution", "overlay"), ("maps", "overlay", "contribution"),
])  # fmt: skip
def test_what_an_arm_does_not_show_does_not_reach_the_browser(app, arm, kept, lost):
    client, practice, content = at_xnn(app, arm)
    assert content["stage"] == "XNN"
    for each in (practice, content):
        assert each["shows"] == arm
        features = [feature for image in each["images"] for feature in image["features"]]
        assert len(features) == 7 * len(each["images"])
        assert all(feature[lost] is None and feature[kept] is not None for feature in features)
    sort(client, 2)
    site = app.state.site
    trials = read_tables(site.database, site.plan)["trials"]
    own = trials[trials["arm"] == arm].set_index("position")["shows"]
    assert own.to_dict() == {0: "none", 1: "none", 2: arm}


def test_practice_goes_through_both_kinds_of_help_and_tells_the_kinds(app):
    practice = practise(app, arm="main").get("/api/stages/0").json()
    assert [part["stage"] for part in practice["parts"]] == ["1-Heatmap", "XNN"]
    shown = [id for part in practice["parts"] for id in part["images"]]
    assert sorted(shown) == sorted(image["id"] for image in practice["images"])
    kinds = {image["id"]: image["kind"] for image in practice["images"]}
    for part in practice["parts"]:
        own = [kinds[id] for id in part["images"]]
        assert sorted(np.unique(own, return_counts=True)[1]) == [2, 2]
    assert all(image["heatmap"] and len(image["features"]) == 7 for image in practice["images"])


def test_who_comes_without_an_arm_is_given_one_by_lot(app):
    drawn = {fields(browser(app).get("/"))["arm"] for _ in range(40)}
    assert drawn == {"numbers", "main", "maps"}
    one = browser(app)
    assert len({fields(one.get("/"))["arm"] for _ in range(6)}) == 1
    people = [f"ada{number}" for number in range(40)]
    twice = [
        [fields(browser(app).get("/", params={"PROLIFIC_PID": who}))["arm"] for who in people]
        for _ in range(2)
    ]
    assert twice[0] == twice[1]
    assert set(twice[0]) == drawn
    settings = app.state.site.plan.settings
    assert "keyed hash" in describe_randomisation(settings)
    assert "keyed hash" not in describe_randomisation(make_plan().settings)


def test_practice_with_one_stage_has_a_group_for_each_kind(tmp_path):
    plan = write_tiny_study(tmp_path, keys=("birds",), arms=(NUMBERS,), limits=FAST)
    two = tuple(data.model_copy(update={"classes": ("alpha", "beta")}) for data in plan.data_sets)
    plan.model_copy(update={"data_sets": two}).write(tmp_path)
    app = create_app(tmp_path)
    client = practise(app)
    practice = client.get("/api/stages/0").json()
    kinds = {image["id"]: image["kind"] for image in practice["images"]}
    assert (practice["groups"], len(practice["parts"])) == (4, 1)
    client.get(sort(client, 0, lambda _, image: kinds[image["id"]] + 1).json()["next"])
    first = client.get("/api/stages/1").json()
    assert first["groups"] == 2
    over = event("move", 1, first["images"][0]["id"], group=3)
    assert send(client, 1, [over]).status_code == 422
    app.state.site.database.close()


def test_a_lot_is_part_of_what_a_database_belongs_to():
    assert make_plan(allocation="lot").fingerprint() != make_plan().fingerprint()


def test_the_paper_s_arm_is_written_as_before_and_is_the_main_one(tmp_path):
    assert "shows" not in MAIN.model_dump()
    assert Arm.model_validate(MAPS.model_dump()) == MAPS
    plan = make_plan(complementary=False)
    later = plan.model_copy(update={"settings": plan.settings.model_copy(update={"arms": ARMS})})
    assert [arm.name for arm in later.arms] == ["main", "numbers", "maps"]
    assert plan.fingerprint() == StudyPlan.model_validate_json(plan.model_dump_json()).fingerprint()
    with pytest.raises(ValidationError, match="add XNN to its stages"):
        Arm(name="x", stages=("1-Heatmap",), shows="maps")


def test_every_two_of_the_three_are_compared_and_foretold():
    plan = make_plan(complementary=False)
    plan = plan.model_copy(update={"settings": plan.settings.model_copy(update={"arms": ARMS})})
    pairs = [(p.arm.name, p.other.name) for p in arm_pairs(plan) if p.stage == "XNN"]
    assert pairs == [("main", "numbers"), ("main", "maps"), ("numbers", "maps")]
    assert stage_in(NUMBERS, "XNN") == "XNN, numbers only"
    assert "NoVis and XNN, maps only" in " ".join(describe_design(plan))
    foretold = " ".join(describe_hypotheses(plan, AnalysisOptions()))
    assert "higher with XNN in main than with XNN, numbers only in numbers" in foretold
