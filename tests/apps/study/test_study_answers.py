"""Studies of answers: known effects are found, no effect is not, intervals cover, and the words."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from study_answers import CLASSES, make_answer_plan, make_answer_tables
from torchxnn.apps.study.analysis.answers.compare import compare_stages, fit_odds_model
from torchxnn.apps.study.analysis.answers.power import (
    AnswerSampleSize,
    estimate_power,
    find_answer_sample_size,
    simulate_answers,
    with_design,
)
from torchxnn.apps.study.analysis.answers.power_options import AnswerPowerOptions
from torchxnn.apps.study.analysis.answers.report import write_answers_report
from torchxnn.apps.study.analysis.answers.results import compute_answers
from torchxnn.apps.study.analysis.answers.scores import score_answers
from torchxnn.apps.study.analysis.evidence import evidence_table
from torchxnn.apps.study.analysis.exclusions import RULE_OFF, RULE_PLANNED, RULE_STRICT
from torchxnn.apps.study.analysis.models import Unavailable
from torchxnn.apps.study.analysis.options import STAGES, AnalysisOptions, options_of
from torchxnn.apps.study.analysis.preregistration import Answers, write_preregistration
from torchxnn.errors import DataError
from torchxnn.storage.artifact import to_json

SYNTHETIC = AnalysisOptions(include_synthetic=True, resamples=200)
EFFECT = {"NoVis": 0.5, "1-Heatmap": 0.6, "XNN": 0.85}
NULL = dict.fromkeys(EFFECT, 0.6)
PAIR = ("XNN", "1-Heatmap")


def test_answers_are_scored_by_what_the_network_says():
    plan = make_answer_plan()
    tables = make_answer_tables(plan, EFFECT, participants=6)
    rows = score_answers(tables, plan, [1, 2])
    assert set(rows["participant"]) == {1, 2}
    placed = tables["placements"]
    placed = placed[placed["participant"].isin([1, 2])].reset_index(drop=True)
    right = placed["group"] == placed["predicted"].map(lambda name: CLASSES.index(name) + 1)
    assert rows["right"].tolist() == right.astype(float).tolist()
    assert rows["errs"].tolist() == (placed["predicted"] != placed["label"]).astype(float).tolist()


def test_a_known_effect_is_found_and_none_is_not():
    plan = make_answer_plan()
    found, _ = compute_answers(make_answer_tables(plan, EFFECT, 36), plan, SYNTHETIC)
    primary = found.contrasts[0]
    assert (primary.people.first, primary.people.second) == PAIR
    assert primary.people.p_holm < 0.01
    assert primary.people.mean_difference == pytest.approx(0.25, abs=0.08)
    assert primary.both.low > 0
    assert primary.both.high - primary.both.low > (
        primary.people.mean_interval.high - primary.people.mean_interval.low
    )
    stages = {each.stage: each for each in found.stages}
    assert stages["NoVis"].utility is None
    assert stages["XNN"].utility == pytest.approx(
        stages["XNN"].right.mean / stages["NoVis"].right.mean
    )
    assert stages["XNN"].utility_interval.low > 1
    assert found.label_follower == pytest.approx(0.5)
    odds = found.model.contrasts[0]
    assert odds.name == "XNN - 1-Heatmap"
    assert odds.low > 0
    nothing, _ = compute_answers(make_answer_tables(plan, NULL, 36, seed=1), plan, SYNTHETIC)
    assert all(c.people.p_holm > 0.05 for c in nothing.contrasts)
    assert nothing.model.contrasts[0].p > 0.05


@pytest.mark.slow
def test_error_rates_and_coverage():
    """100 studies without an effect but with pictures that suit one stage by chance."""
    plan = make_answer_plan()
    quick = AnalysisOptions(include_synthetic=True, resamples=200)
    people = both = odds = 0
    studies = 100
    for seed in range(studies):
        tables = make_answer_tables(plan, NULL, 45, sd_people=0.6, sd_suits=0.8, seed=seed)
        rows = score_answers(tables, plan, range(1, 46))
        c = compare_stages(rows, "right", PAIR, "primary", quick)
        people += c.people.p < 0.05
        both += c.both.low > 0 or c.both.high < 0
        odds += fit_odds_model(rows, STAGES, [PAIR], quick).contrasts[0].p < 0.05
    said = f"significant of {studies}: people {people}, odds {odds}, people and pictures {both}"
    assert both <= 10, said
    assert people > both, said  # other pictures are another question


def test_power_rises_and_the_error_rate_holds():
    made = AnswerPowerOptions(effect=12.0, largest=120, runs=200, answers=20)
    first, second = simulate_answers(made, 40)
    assert 100 * (first.mean() - second.mean()) == pytest.approx(12, abs=1)
    powers = [estimate_power(first[:, :n], second[:, :n], made).power for n in (6, 12, 24, 40)]
    assert powers == sorted(powers)
    assert powers[0] < 0.4 < 0.8 < powers[-1]
    again, _ = simulate_answers(AnswerPowerOptions(effect=1e-9, runs=200, seed=1), 20)
    null = estimate_power(again, second[:, :20], made)
    assert null.low < 0.15
    answer = find_answer_sample_size(made)
    assert answer.participants % 3 == 0
    assert answer.recruit >= answer.participants
    assert "12 percentage points more" in answer.sentence()


def test_wrong_assumptions_are_one_line(tmp_path):
    with pytest.raises(DataError, match="baseline and effect together must be below 100"):
        AnswerPowerOptions(effect=40.0)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(DataError, match="power-answers --out"):
        AnswerSampleSize.read(tmp_path / "x.json")


def test_alike_answers_have_no_odds():
    plan = make_answer_plan()
    rows = score_answers(make_answer_tables(plan, EFFECT, 30), plan, range(1, 31))
    rows.loc[rows["stage"] == "XNN", "right"] = 1.0
    model = fit_odds_model(rows, STAGES, [PAIR], SYNTHETIC)
    assert isinstance(model, Unavailable)
    assert "all answers with XNN are alike" in model.reason


def test_report_and_preregistration(tmp_path):
    plan = make_answer_plan()
    tables = make_answer_tables(plan, EFFECT, 30)
    results = write_answers_report(tables, plan, SYNTHETIC, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("Utility", "who always answers the truth", "no finding", "network errs", "Owen"):
        assert words in page
    numbers = json.loads((tmp_path / "out" / "results.json").read_text())
    assert numbers["contrasts"][0]["people"]["first"] == "XNN"
    assert len(pd.read_csv(tmp_path / "out" / "scores.csv")) == 30 * 12
    assert len(pd.read_csv(tmp_path / "out" / "evidence.csv")) == 30
    assert "The main answers with and without the rule" in page
    assert results.banner
    power = find_answer_sample_size(AnswerPowerOptions(effect=25.0, runs=100, answers=12))
    (tmp_path / "power.json").write_bytes(to_json(power))
    power = AnswerSampleSize.read(tmp_path / "power.json")
    out = tmp_path / "plan.md"
    write_preregistration(plan, AnalysisOptions(), Answers(), out, "2026", power)
    text = out.read_text()
    assert "Primary: the share of pictures whose answer by the network was predicted" in text
    assert "Forward simulation" in text
    wrong = find_answer_sample_size(AnswerPowerOptions(effect=25.0, runs=100, answers=7))
    with pytest.raises(DataError, match="xnn study power-answers"):
        write_preregistration(plan, AnalysisOptions(), Answers(), tmp_path / "b", "2026", wrong)


def test_nobody_is_no_traceback():
    plan = make_answer_plan()
    tables = make_answer_tables(plan, EFFECT, 3)
    found, rows = compute_answers(tables, plan, AnalysisOptions())
    assert rows.empty
    assert found.stages == ()
    assert np.isnan([c.people.p or np.nan for c in found.contrasts]).all()


def test_pictures_until_the_cue_are_found_as_often_as_answers_are_right():
    """Literally: at each picture a draw with the same probability, until it is found."""
    made = AnswerPowerOptions(
        effect=20.0, baseline=50.0, answers=4, images=8, sd_between=0.0, sd_items=0.0, runs=400
    )
    right, _ = simulate_answers(made, 30)
    seen, second = simulate_answers(replace(made, measure="seen"), 30)
    assert right.mean() == pytest.approx(0.7, abs=0.01)
    rng = np.random.default_rng(3)
    at_each = 1 - 0.3 ** (1 / 8)
    found = rng.random((20_000, 8)) < at_each
    literal = np.where(found.any(1), found.argmax(1) + 1, 9)
    assert seen.mean() == pytest.approx(literal.mean(), abs=0.06)
    power = estimate_power(seen, second, replace(made, measure="seen"))
    assert power.power > 0.7  # fewer pictures are better
    assert estimate_power(seen, second, made).power == 0
    answer = find_answer_sample_size(replace(made, measure="seen", runs=100))
    assert answer.effect < 0
    assert "fewer pictures seen" in answer.sentence()


def test_secondary_comparisons_need_more_people():
    made = AnswerPowerOptions(effect=12.0, runs=300, answers=20)
    first, second = simulate_answers(made, 30)
    primary = estimate_power(first, second, made)
    secondary = estimate_power(first, second, replace(made, compare="secondary"))
    halved = estimate_power(first, second, replace(made, alpha=0.025))
    assert secondary.power == halved.power < primary.power
    assert (
        "than with NoVis"
        in find_answer_sample_size(
            replace(made, compare="secondary", effect=30.0, runs=100)
        ).sentence()
    )


def test_pictures_seen_are_of_the_odd_cue_alone():
    plan = make_answer_plan()
    with pytest.raises(DataError, match="measure 'seen' is of the task odd_cue"):
        with_design(AnswerPowerOptions(measure="seen"), plan)
    cue = make_answer_plan("odd_cue", ("a", "b", "c"), images=8)
    found = with_design(AnswerPowerOptions(measure="seen"), cue)
    assert (found.answers, found.images, found.stages) == (3, 8, 3)


@pytest.mark.parametrize("task", ["forward_simulation", "odd_cue"])
def test_the_main_answers_stand_with_and_without_the_rule(task):
    """Two people of XNN were away most of the time and pasted: only the rule leaves them out."""
    plan = make_answer_plan(task)
    tables = make_answer_tables(plan, EFFECT, 24)
    people = tables["participants"].assign(kind="participant", comments="words", pasted=0)
    xnn = sorted(set(tables["trials"].query("stage == 'XNN'")["participant"]))
    people.loc[people["participant"].isin(xnn[:2]), "pasted"] = 5
    events = pd.DataFrame(
        [
            {"participant": number, "position": 1, "at": 0.0, "client_ms": ms, "type": kind,
             "image": None, "value": value}
            for number in xnn[:3]  # the third one is away and does not paste: one signal
            for ms, kind, value in [(0, "open", "{}"), (10, "focus", '{"on": false}'),
                                    (1000, "focus", '{"on": true}')]
        ]
    )  # fmt: skip
    tables = {**tables, "participants": people, "events": events}
    found, _ = compute_answers(tables, plan, replace(options_of(plan), resamples=200))
    sizes = {name: {c.n_first for c in each} for name, each in found.by_rule.items()}
    assert sizes == {RULE_OFF: {8}, RULE_PLANNED: {6}, RULE_STRICT: {5}}
    measures = [c.measure for c in found.by_rule[RULE_OFF]]
    assert measures == (["right"] if task == "forward_simulation" else ["right", "seen"])
    by_rule = found.by_rule[RULE_PLANNED][0]
    assert by_rule.mean_difference == found.contrasts[0].people.mean_difference
    table = evidence_table(found.evidence, found.options.exclusions.machine, pauses=False)
    assert list(table.columns) == ["participant", "acts", "away", "pasted", "signals"]
    assert table.set_index("participant").loc[xnn[0], "signals"] == "away pasted"
    assert table.set_index("participant").loc[xnn[2], "signals"] == "away"
