"""Nothing is kept that the consent text does not say, and what it does not say is not kept."""

from typing import get_args

import pytest
import yaml
from pydantic import ValidationError

from study_plan import write_tiny_study
from study_session import browser, event, finish, practise, send
from torchxnn.apps.study.columns import COLUMNS
from torchxnn.apps.study.export import read_tables
from torchxnn.apps.study.plan import CONSENT
from torchxnn.apps.study.recorded import ANSWERS, EVENTS, RECORDED, size_of, with_list
from torchxnn.apps.study.server.app import create_app
from torchxnn.apps.study.settings import Recruitment
from torchxnn.apps.study.store.trials import Event, EventType
from torchxnn.apps.study.texts import default_consent, default_texts

TEXTS = yaml.safe_load(default_texts("en"))
SAID = TEXTS["consent"]["recorded"]
# columns of the participants' table that the consent text, or another page, says otherwise
ELSEWHERE = {
    *("participant", "arm", "kind", "slot", "status", "language", "consent_version"),
    *("consented_at", "finished_at", "expired_at", "seconds"),  # times
    *("input", "inputs", "screen_width", "screen_height"),  # hand, device
    "attention_passed",  # an answer
    "parameters",  # what the recruiter gives: a line of its own in the consent text
}


def test_every_kind_of_event_and_answer_has_its_sentence():
    assert set(EVENTS) == set(get_args(EventType))
    assert {*EVENTS.values(), *ANSWERS.values()} <= set(SAID)
    asked = set(COLUMNS["participants"]) - ELSEWHERE
    assert asked <= set(ANSWERS), f"kept and not said: {asked - set(ANSWERS)}"
    hand = {"moves", "hand", "focus"}
    assert hand <= set(SAID)


def test_the_default_consent_text_lists_all():
    assert RECORDED in default_consent()
    shown = with_list(default_consent(), TEXTS)
    assert RECORDED not in shown
    for sentence in SAID.values():
        assert f"- {sentence}" in shown


@pytest.mark.parametrize("said", [True, False])
def test_the_hand_is_watched_only_where_it_is_said(tmp_path, said):
    write_tiny_study(tmp_path)
    text = default_consent() if said else "# Consent\n\nYou may leave at any time.\n"
    (tmp_path / CONSENT).write_text(text, "utf-8")
    app = create_app(tmp_path)
    page = browser(app).get("/").text
    assert ("How far and how straight" in page) == said
    assert practise(app).get("/api/stages/0").json()["hand"] is said
    app.state.site.database.close()


def test_who_consented_before_it_was_said_stays_unwatched(tmp_path):
    write_tiny_study(tmp_path, keys=("birds",))
    first = create_app(tmp_path)
    early = practise(first)
    first.state.site.database.close()
    (tmp_path / CONSENT).write_text(default_consent(), "utf-8")
    app = create_app(tmp_path)
    site, client = app.state.site, browser(app)
    client.cookies, client.csrf = early.cookies, early.csrf
    path = {"travel": 9.0, "direct": 9.0, "samples": 5, "trusted": True}
    kept = {}
    for who in (client, practise(app)):
        content = who.get("/api/stages/0").json()
        image = content["images"][0]["id"]
        sent = [event("move", 1, image, group=1, by="mouse", **path), event("focus", 2, on=False)]
        assert len(send(who, 0, sent).json()["saved"]) == 2
        kept[content["hand"]] = read_tables(site.database, site.plan)["events"]
    assert kept[False]["type"].tolist() == ["move"]
    assert kept[False]["value"].tolist() == ['{"by": "mouse", "group": 1}']
    assert kept[True]["type"].tolist() == ["move", "move", "focus"]
    assert '"travel": 9.0' in kept[True]["value"].iloc[1]
    site.database.close()


@pytest.mark.slow
@pytest.mark.parametrize("said", [True, False])
def test_what_was_pasted_is_kept_only_where_it_is_said(tmp_path, said):
    write_tiny_study(tmp_path, keys=("birds",))
    if said:
        (tmp_path / CONSENT).write_text(default_consent(), "utf-8")
    app = create_app(tmp_path)
    finish(practise(app), 3, pasted="12")
    site = app.state.site
    people = read_tables(site.database, site.plan)["participants"]
    assert people["pasted"].isna().tolist() == [not said]
    if said:
        assert people["pasted"].tolist() == [12]
    site.database.close()


@pytest.mark.parametrize(("name", "value"), [
    ("move", {"by": "mouse", "samples": "x"}),
    ("move", {"by": "mouse", "samples": 9}),
    ("move", {"travel": 1.0, "direct": True, "samples": 9}),
    ("move", {"travel": 1.0, "direct": 1.0, "samples": 10**400}),
    ("move", {"travel": 1.0, "direct": 1.0, "samples": 9, "trusted": "yes"}),
    ("device", {"width": "wide", "height": 800}),
    ("device", {"width": 1280.5, "height": 800}),
    ("device", {"width": 10**30, "height": 800}),
])  # fmt: skip
def test_values_that_an_analysis_cannot_read_are_refused(name, value):
    given = event(name, 1, "abcd" if name == "move" else None, **value)
    with pytest.raises(ValidationError):
        Event.model_validate(given)


def test_sizes_that_are_stored_already_and_are_none_are_missing():
    odd = {"width": "wide", "height": True}
    assert [size_of(odd, name) for name in ("width", "height", "depth")] == [None] * 3
    assert size_of({"width": 1280}, "width") == 1280


def test_a_parameter_ends_where_its_name_ends():
    with pytest.raises(ValidationError, match="must be 1 to 40"):
        Recruitment(parameters=("PID\n",))
