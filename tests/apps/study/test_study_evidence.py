"""Who answers: figures by hand, simulated hands and programs, the rule and what it changes."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from study_answers import make_answer_plan
from study_data import make_plan, make_tables
from torchxnn.apps.study.analysis.evidence import (
    FIGURES,
    describe_machine_rules,
    evidence_table,
    measure_evidence,
)
from torchxnn.apps.study.analysis.exclusions import (
    MACHINE,
    RULE_OFF,
    RULE_PLANNED,
    RULE_STRICT,
    select_participants,
)
from torchxnn.apps.study.analysis.options import AnalysisOptions, ExclusionRules, options_of
from torchxnn.apps.study.analysis.results import compute
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import Exclusions, MachineRules

RULES = MachineRules()
SKILL = {"birds": {"NoVis": 0.2, "1-Heatmap": 0.4, "XNN": 0.8}}


def rows(number, moments, value, start=0.0):
    """A page of one participant: a move at each moment (ms)."""
    events = [("open", start, {})]
    events += [("move", start + at, dict(value)) for at in moments]
    return [
        {"participant": number, "position": 1, "client_ms": at, "type": kind, "image": None,
         "at": "", "value": json.dumps(what)}
        for kind, at, what in events
    ]  # fmt: skip


def tables_with(*pages, **columns):
    """What is measured needs: events, and who is who."""
    people = pd.DataFrame({"participant": [1, 2, 3], **columns})
    return {"participants": people, "events": pd.DataFrame([row for page in pages for row in page])}


def hand(rng, count=40):
    """Pauses of people: long-tailed; with a mouse, along a path that bends."""
    moments = np.cumsum(rng.lognormal(np.log(1800), 0.6, count))
    path = {"travel": 420.0, "direct": 350.0, "samples": 40, "trusted": True}
    return moments, {"group": 1, "how": "drag", "by": "mouse", **path}


def test_figures_by_hand():
    moments = [100, 105, *np.cumsum([400, 600] * 6) + 100]  # the first two are one act
    value = {"group": 1, "by": "mouse", "travel": 200.0, "direct": 150.0, "samples": 9}
    tables = tables_with(
        rows(1, moments, value), comments=["four", None, None], pasted=[3, 0, None]
    )
    found = measure_evidence(tables)[1]
    pauses = [400, 600] * 6
    assert (found.acts, found.pause_ms) == (13, 500)
    assert found.pause_cv == pytest.approx(np.std(pauses, ddof=1) / 500)
    assert (found.jumps, found.straight, found.scripted) == (0, 0.75, None)
    assert (found.away, found.pasted) == (0, 0.75)
    nobody = measure_evidence(tables)[2]
    assert nobody.signals(RULES) == ()
    assert all(getattr(nobody, figure.name) is None for figure in FIGURES)


def test_time_away_is_hidden_or_behind_another_window():
    events = rows(1, [], {})
    for at, kind, value in (
        (1000, "visibility", {"visible": False}), (3000, "visibility", {"visible": True}),
        (4000, "focus", {"on": False}), (5000, "focus", {"on": True}), (10000, "zoom", {}),
    ):  # fmt: skip
        events.append(dict(events[0], type=kind, client_ms=at, value=json.dumps(value)))
    assert measure_evidence(tables_with(events))[1].away == pytest.approx(0.3)


def test_hands_have_no_two_signals_and_programs_have():
    rng = np.random.default_rng(0)
    for _ in range(50):
        moments, value = hand(rng)
        found = measure_evidence(tables_with(rows(1, moments, value)))[1]
        assert found.signals(RULES) == ()
    programs = {
        "calls of a script in the page": (
            {"trusted": False, "samples": 0},
            rng.uniform(20, 90, 40),
        ),
        "a driven browser, steady": ({"trusted": True, "samples": 1}, np.full(40, 1500.0)),
        "a driven browser, quick": ({"trusted": True, "samples": 1}, rng.uniform(50, 300, 40)),
        "one that draws lines, steady": (
            {"trusted": True, "samples": 20, "travel": 300.0, "direct": 300.0},
            rng.uniform(1400, 1800, 40),
        ),
    }
    for name, (value, pauses) in programs.items():
        whole = {"group": 1, "by": "mouse", "travel": 0.0, "direct": 0.0, **value}
        found = measure_evidence(tables_with(rows(1, np.cumsum(pauses), whole)))[1]
        assert len(found.signals(RULES)) >= 2, name


def test_a_keyboard_gives_no_signal_of_a_path():
    moments, value = hand(np.random.default_rng(1))
    keys = value | {"by": "keyboard", "how": "keyboard", "travel": 0.0, "samples": 0}
    found = measure_evidence(tables_with(rows(1, moments, keys)))[1]
    assert (found.jumps, found.straight, found.signals(RULES)) == (None, None, ())


@pytest.fixture(scope="module")
def mixed():
    """Twelve people by hand; number 3 shows two signals, number 5 one."""
    rng = np.random.default_rng(2)
    pages = [rows(number, *hand(rng)) for number in range(1, 13)]
    jump = {"group": 1, "by": "mouse", "travel": 0.0, "direct": 0.0, "samples": 1}
    pages[2] = rows(3, np.arange(1, 41) * 900.0, jump)
    pages[4] = rows(5, np.arange(1, 41) * 900.0, {"group": 1, "by": "keyboard"})
    return {
        **make_tables(12, 0, kind="participant", skill=SKILL),
        **{"events": tables_with(*pages)["events"]},
    }


def excluded(tables, rules, **more):
    options = AnalysisOptions(ExclusionRules(machine=rules), **more)
    found = select_participants(tables, options)
    return {one.participant: one.reasons for one in found.excluded}


def test_the_rule(mixed):
    assert excluded(mixed, RULES) == {3: (MACHINE,)}
    assert excluded(mixed, MachineRules(signals=0)) == {}
    assert excluded(mixed, MachineRules(signals=1)) == {3: (MACHINE,), 5: (MACHINE,)}
    assert excluded(mixed, MachineRules(pause_cv=0.0)) == {}
    programs = {**mixed, "participants": mixed["participants"].assign(kind="synthetic")}
    assert excluded(programs, RULES, include_synthetic=True) == {}
    table = evidence_table(measure_evidence(mixed).values(), RULES).set_index("participant")
    assert table.at[3, "signals"] == "pause_cv jumps"
    assert table.at[5, "signals"] == "pause_cv"


def test_the_main_answers_stand_side_by_side(mixed):
    results, _ = compute(
        mixed, make_plan(("birds",), complementary=False), AnalysisOptions(resamples=100)
    )
    counts = {name: {c.n for c in found} for name, found in results.by_rule.items()}
    assert counts == {RULE_OFF: {12}, RULE_STRICT: {10}, RULE_PLANNED: {11}}
    assert list(results.by_rule) == [RULE_OFF, RULE_PLANNED, RULE_STRICT]
    assert results.by_rule[RULE_PLANNED] == tuple(
        c for c in results.paired if c.family == "primary"
    )
    assert {c.n for c in results.sensitivity if "nobody" in c.measure} == {12}
    assert len(results.evidence) == 12


def test_the_rule_is_said_with_its_thresholds():
    said = " ".join(describe_machine_rules(replace(RULES, pause_ms=333.0)))
    assert "in 2 or more of 7 respects are left out" in said
    for figure in FIGURES:
        assert figure.text in said
    assert "below 333" in said
    assert describe_machine_rules(MachineRules(signals=0)) == (
        "Nobody is left out for acting like a program.",
    )


def test_settings_decide_and_earlier_studies_have_no_rule():
    strict = make_plan(exclusions=Exclusions(machine=MachineRules(signals=3, away=0.3)))
    assert options_of(strict).exclusions.machine == MachineRules(signals=3, away=0.3)
    values = json.loads(strict.model_dump_json())
    assert StudyPlan.model_validate_json(json.dumps(values)) == strict
    del values["settings"]["exclusions"]["machine"]
    earlier = StudyPlan.model_validate_json(json.dumps(values))
    assert earlier.settings.exclusions.machine.signals == 0
    assert earlier.fingerprint() != strict.fingerprint()
    none = make_plan(exclusions=Exclusions(machine=MachineRules(signals=0, away=0.3)))
    assert earlier.fingerprint() == none.fingerprint()
    with pytest.raises(ValueError, match="pause"):
        Exclusions.model_validate({"machine": {"pauses": 3}})
    with pytest.raises(ValueError, match="away"):
        Exclusions.model_validate({"machine": {"away": 3}})


def test_one_participant_s_odd_values_break_nothing():
    moments, value = hand(np.random.default_rng(3), 20)
    pages = [rows(1, moments, value)]
    for odd in ({"samples": "x"}, {"samples": 9}, {"samples": True, "trusted": "no"}):
        pages.append(rows(2, moments, {"by": "mouse", **odd}))
    pages.append(rows(2, moments, value))
    found = measure_evidence(tables_with(*pages))
    assert (found[2].jumps, found[2].straight) == (found[1].jumps, found[1].straight)
    assert found[2].scripted == 0


def test_steady_clicks_of_the_odd_cue_are_no_signal(mixed):
    quick = [rows(4, np.arange(1, 12) * 200.0, {"group": 1, "by": "mouse"})]
    tables = {**mixed, "events": tables_with(*quick)["events"]}
    assert excluded(tables, RULES) == {4: (MACHINE,)}
    plan = make_answer_plan("odd_cue")
    rules = options_of(plan).exclusions
    assert (rules.pauses, options_of(make_plan()).exclusions.pauses) == (False, True)
    found = select_participants(tables, AnalysisOptions(rules))
    assert 4 in found.kept
    said = " ".join(describe_machine_rules(rules.machine, rules.pauses))
    assert "of 2 respects" in said
    assert "pause" not in said
