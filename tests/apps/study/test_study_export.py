"""What an export holds, compared with what a known participant did."""

import csv
import json
from io import StringIO
from types import SimpleNamespace

import pandas as pd
import pytest

from study_plan import write_tiny_study
from study_session import event, finish, practise, send, sort
from torchxnn.apps.study.columns import COLUMNS
from torchxnn.apps.study.export import (
    active_seconds,
    count_hands,
    dictionary,
    read_tables,
    render,
    write_tables,
)
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Limits
from torchxnn.apps.study.steps import trials_of
from torchxnn.apps.study.store.trials import Event


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One finished participant, one pilot in the middle, one simulated at the start."""
    path = tmp_path_factory.mktemp("study")
    write_tiny_study(path, limits=Limits(requests_per_second=1000, starts_per_second=1000))
    plan = StudyPlan.read(path)
    app = create_app(path)
    now = [1_000_000.0]
    app.state.site.clock = lambda: now.__setitem__(0, now[0] + 0.5) or now[0]
    client = practise(app, PROLIFIC_PID="p1", SESSION_ID="s9")
    send(client, 0, [event("device", 7, ms=1.0, width=390, height=844, pointer="coarse")])
    classes = {
        image.id: plan.data_sets[0].classes.index(image.predicted)
        for d in plan.data_sets
        for image in d.images
    }
    finish(client, 6, lambda place, image: (classes[image["id"]] + 2) % 4 + 1)
    pilot = practise(app, pilot="1")
    sort(pilot, 0)
    practise(app, synthetic="1")
    tables = read_tables(app.state.site.database, plan)
    app.state.site.database.close()
    return plan, tables


@pytest.fixture
def plan(made):
    return made[0]


@pytest.fixture
def tables(made):
    return made[1]


def test_tables_have_the_documented_columns(tables):
    assert {name: list(table.columns) for name, table in tables.items()} == {
        name: list(columns) for name, columns in COLUMNS.items()
    }
    text = dictionary()
    for columns in COLUMNS.values():
        for column, (kind, meaning) in columns.items():
            assert f"| {column} | {kind} | {meaning} |" in text


def happened(kind, **value):
    return SimpleNamespace(type=kind, value=value)


def test_moves_are_counted_by_what_they_were_made_with():
    """On one page, and on a telephone after a desktop; also as earlier versions recorded them."""
    moves = [("mouse", "drag")] * 2 + [("touch", "drag")] * 3 + [("keyboard", "keyboard")]
    own = [happened("device", pointer="fine"), *(happened("move", by=b, how=h) for b, h in moves)]
    assert count_hands(own).most_common() == [("touch", 3), ("mouse", 2), ("keyboard", 1)]
    earlier = [happened("move", how=how) for how in ("drag", "tap", "keyboard")]
    coarse = [happened("device", pointer="coarse"), *earlier, happened("move", how="tap")]
    assert count_hands([*own[:1], *earlier, *coarse]) == {"mouse": 2, "touch": 3, "keyboard": 2}


def test_participants(tables):
    people = tables["participants"].set_index("participant")
    assert list(people["kind"]) == ["participant", "pilot", "synthetic"]
    assert list(people["status"]) == ["finished", "in_progress", "in_progress"]
    first = people.loc[1]
    assert json.loads(first["parameters"]) == {"PROLIFIC_PID": "p1", "SESSION_ID": "s9"}
    assert (first["screen_width"], first["screen_height"], first["input"]) == (390, 844, "touch")
    moves = tables["trials"].query("participant == 1")["moves"].sum()
    assert first["inputs"] == f"touch {moves}"
    assert (first["rating_one_heatmap"], first["rating_xnn"], first["difficulty"]) == (3, 6, 4)
    assert first["comments"] == "<b>fine</b>"
    assert bool(first["attention_passed"]) is True
    assert pd.isna(people.loc[2, "rating_xnn"])
    assert pd.isna(people.loc[2, "attention_passed"])
    assert first["consented_at"].startswith("1970-01-12T13:46")


def test_trials_follow_the_design(tables, plan):
    own = tables["trials"].query("participant == 1 and position > 0")
    expected = trials_of(plan, "main", 0)
    assert [(r.stage, r.data_set, r.set, r.method) for r in own.itertuples()] == [
        (t.stage, t.data_set, t.set, t.method) for t in expected
    ]
    assert (own["confidence"] == 5).all()
    assert (own["moves"] == 10).all()
    assert (own["seconds"] > 0).all()


def test_placements_name_what_the_network_predicts(tables, plan):
    own = tables["placements"]
    assert len(own) == 60  # of submitted batches that count; no practice, no pilot's practice
    known = {image.id: image for image in plan.images}
    for row in own.itertuples():
        assert (row.predicted, row.label) == (known[row.image].predicted, known[row.image].label)
        assert row.group == (plan.data_sets[0].classes.index(row.predicted) + 2) % 4 + 1


def test_files_hold_the_same_in_all_formats(tables, tmp_path):
    names = write_tables(tables, tmp_path)
    assert len(names) == 3 * len(COLUMNS) + 1
    for name, table in tables.items():
        parquet = pd.read_parquet(tmp_path / f"{name}.parquet")
        pd.testing.assert_frame_equal(parquet, table)
        rows = json.loads((tmp_path / f"{name}.json").read_text("utf-8"))
        assert len(rows) == len(table)
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(table)
        for row, line in zip(rows, lines, strict=True):
            for column, value in row.items():
                if value is None:
                    assert line[column] == ""
                elif isinstance(value, float):
                    assert float(line[column]) == pytest.approx(value)
                else:
                    assert line[column] == str(value)


def test_empty_study_has_all_columns(tmp_path):
    write_tiny_study(tmp_path)
    app = create_app(tmp_path)
    tables = read_tables(app.state.site.database, app.state.site.plan)
    assert len(tables["participants"]) == 0
    assert list(tables["trials"].columns) == list(COLUMNS["trials"])
    assert len(tables["images"]) == 100
    write_tables(tables, tmp_path / "export")


def test_active_seconds_by_hand():
    def at(seconds, name="move", **value):
        value = value or {"group": 1}
        return Event(id="0" * 16, type=name, image="abcd", value=value, ms=1000.0 * seconds)

    own = [
        at(0, "open"),
        at(10),  # + 10
        at(200),  # a pause: + 60
        at(210, "visibility", visible=False),  # + 10
        at(500, "visibility", visible=True),  # away: + 0
        at(505),  # + 5
        at(2, "open"),  # reloaded: the clock starts anew
        at(8),  # + 6
    ]
    assert active_seconds(own) == pytest.approx(91)
    assert active_seconds([]) == 0
    moves = [each.model_copy(update={"type": "move"}) for each in own[:2]]
    assert active_seconds(moves) == pytest.approx(10)


def test_a_comment_is_no_formula_in_a_spreadsheet(tables):
    comments = ["=HYPERLINK(1)", "fine - really", "-1", None]
    participants = tables["participants"].iloc[[0] * 4].reset_index(drop=True)
    participants = participants.assign(comments=pd.Series(comments, dtype="string"))
    files = render({"participants": participants})
    lines = list(csv.DictReader(StringIO(files["participants.csv"].decode())))
    assert [line["comments"] for line in lines] == ["'=HYPERLINK(1)", "fine - really", "'-1", ""]
    assert [row["comments"] for row in json.loads(files["participants.json"])] == comments
    assert [int(line["participant"]) for line in lines] == list(participants["participant"])
