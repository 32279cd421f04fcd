"""Power of differences between arms: a literal second version, known limits, files and words."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from study_data import make_plan, make_tables
from study_plan import write_tiny_study
from torchxnn.apps.study.analysis.arm_power import (
    ArmSampleSize,
    arm_design_of,
    find_arm_sample_size,
    find_pairs,
    simulate_arms,
)
from torchxnn.apps.study.analysis.arm_power_options import ArmPowerOptions
from torchxnn.apps.study.analysis.arms import arm_pairs, compare_arms
from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.analysis.paired import holm
from torchxnn.apps.study.analysis.power import SampleSize, find_sample_size
from torchxnn.apps.study.analysis.power_options import PowerOptions
from torchxnn.apps.study.analysis.preregistration import Answers, write_preregistration
from torchxnn.apps.study.settings import COMPLEMENTARY, MAIN, Arm
from torchxnn.cli.main import main
from torchxnn.errors import DataError
from torchxnn.storage.artifact import to_json

ARMS = (MAIN, Arm(name="numbers", shows="numbers"), Arm(name="maps", shows="maps"))
MADE = ArmPowerOptions(purity=(76.0, 69.0, 62.0), arms=("main", "numbers", "maps"), runs=100)


def plan_of(*arms, keys=("birds", "cells")):
    return make_plan(keys, complementary=False, arms=arms)


def test_finds_what_the_report_finds():
    """The same purities analysed by the report's own functions, study by study."""
    made = replace(MADE, purity=(74.0, 66.0, 62.0))
    plan, purity = plan_of(*ARMS), simulate_arms(made, 24)
    found, options = find_pairs(purity, made), AnalysisOptions(resamples=100)
    for study in range(6):
        rows = [
            {"arm": arm.name, "data_set": data.key, "stage": "XNN", "purity": value}
            for place, arm in enumerate(ARMS)
            for number, data in enumerate(plan.data_sets)
            for value in purity[place, study, number]
        ]
        tests = holm(compare_arms(pd.DataFrame(rows), plan, options))
        tests = [c for c in tests if c.family and c.p is not None]
        assert len(tests) == 6
        hits = {}
        for c in tests:
            pair = c.first.split(" in ")[1], c.second.split(" in ")[1]
            good = c.p_holm < made.alpha and c.mean_difference > 0
            hits[pair] = hits.get(pair, True) and good
        expected = [hits[pair] for pair in combinations(made.arms, 2)]
        assert found[study].tolist() == expected
    assert 0 < found.mean() < 1


def test_agrees_with_an_analytic_approximation():
    """Of two arms and one data set; the test has 3 / pi of the efficiency of the t test."""
    made = ArmPowerOptions(
        arms=("a", "b"), purity=(66.0, 60.0), sd_between=6.0, sd_within=8.0, data_sets=1,
        images=1000, runs=600,
    )  # fmt: skip
    people = 40
    found = find_pairs(simulate_arms(made, people), made).mean()
    degrees, shift = 2 * people - 2, 6 / 10 * (people / 2 * 3 / np.pi) ** 0.5
    expected = stats.nct.sf(stats.t.ppf(0.975, degrees), degrees, shift)
    assert found == pytest.approx(expected, abs=0.05)


def test_people_differ_between_arms_and_not_within_one():
    """The same difference needs several times as many people as within them."""
    within = find_sample_size(PowerOptions(effect=8.0, baseline=60.0, sd_between=10.0, runs=100))
    between = find_arm_sample_size(
        ArmPowerOptions(arms=("a", "b"), purity=(68.0, 60.0), sd_between=10.0, runs=100)
    )
    assert between.participants > 2 * within.participants
    assert between.participants % 2 == 0


def test_without_a_difference_nothing_is_found():
    made = replace(MADE, purity=(60.0, 60.0, 59.999999), runs=1000, data_sets=1, images=1000)
    found = find_pairs(simulate_arms(made, 20), made)
    assert found.shape == (1000, 2)  # pairs of the same mean are no differences to find
    assert found.any(axis=1).mean() < 0.04  # of a family of three, one direction


def test_the_answer_says_every_pair_and_survives_a_file(tmp_path):
    answer = find_arm_sample_size(replace(MADE, purity=(90.0, 70.0, 50.0)))
    assert answer.participants % 3 == 0
    assert [(p.higher, p.lower) for p in answer.pairs] == list(combinations(MADE.arms, 2))
    differences = [pair.difference for pair in answer.pairs]
    assert differences[1] == pytest.approx(differences[0] + differences[2], abs=0.01)
    assert differences[0] < 20  # bounds
    assert "main above numbers" in answer.sentence()
    (tmp_path / "x.json").write_bytes(to_json(answer))
    assert ArmSampleSize.read(tmp_path / "x.json") == answer
    with pytest.raises(DataError, match="no result of `xnn study power --out`"):
        SampleSize.read(tmp_path / "x.json")
    assert ArmPowerOptions().names == ("arm 1", "arm 2", "arm 3")
    small = find_arm_sample_size(replace(MADE, purity=(60.2, 60.1, 60.0), largest=60))
    assert (small.participants, small.recruit) == (None, None)
    assert "stays below 0.8" in small.sentence()
    assert {pair.power.participants for pair in small.pairs} == {60}


def test_a_pair_is_easier_than_all_and_harder_with_more_tests():
    purity = simulate_arms(MADE, 40)
    every, some = (join(find_pairs(purity, MADE), axis=1).mean() for join in (np.all, np.any))
    assert every < some
    more = find_pairs(purity, replace(MADE, others=20)).mean()
    assert more < find_pairs(purity, MADE).mean()


def test_the_design_of_a_study_tells_the_family():
    told = arm_design_of(plan_of(*ARMS))
    assert told == {
        "arms": ("main", "numbers", "maps"), "others": 0, "data_sets": 2, "images": 10, "groups": 4
    }  # fmt: skip
    assert [pair.check for pair in arm_pairs(plan_of(*ARMS))] == [
        *(True, True, False),  # NoVis and 1-Heatmap show the same, XNN does not
        *(True, True, False),
        False,
    ]
    # 1-Heatmap by another method, and XNN against it
    assert arm_design_of(plan_of(*ARMS, COMPLEMENTARY))["others"] == 2 * 2
    with pytest.raises(DataError, match="no arms that differ in what the stage XNN shows"):
        arm_design_of(plan_of(MAIN, COMPLEMENTARY))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"purity": (70.0, 60.0)}, "arms must be as many names as means"),
        ({"purity": (70.0, 70.0, 70.0)}, "purity must differ between two arms"),
        ({"purity": (70.0, 60.0, 100.0)}, "purity must be above 0 and below 100"),
        ({"arms": ("a", "a", "b")}, "arms must have different names"),
        ({"others": -1}, "others must be 0 or more, got -1"),
    ],
)
def test_senseless_assumptions(changed, said):
    with pytest.raises(DataError, match=said):
        replace(MADE, **changed)


def test_preregistered_beside_the_other_power(tmp_path):
    plan, options = plan_of(*ARMS), AnalysisOptions()
    arms = find_arm_sample_size(replace(MADE, purity=(90.0, 70.0, 50.0)))
    power = find_sample_size(PowerOptions(effect=30.0, runs=100))
    out = tmp_path / "plan.md"
    write_preregistration(plan, options, Answers(), out, "2026", power, arms)
    text = out.read_text("utf-8")
    each = -(-arms.recruit // 3)
    assert f"Recruiting for the arm numbers ends at {each} participants." in text
    largest = max(each, power.recruit)
    assert f"Recruiting for the arm main ends at {largest} participants." in text
    assert "in all arms together, between arms" in text
    wrong = replace(arms, options=replace(arms.options, others=4))
    with pytest.raises(DataError, match=r"\(others 4\); run .* power-arms` with --others 0"):
        write_preregistration(plan, options, Answers(), tmp_path / "b", "2026", power, wrong)


@pytest.mark.slow
def test_by_the_command_line(tmp_path, capsys):
    folder = tmp_path / "study"
    write_tiny_study(folder, arms=ARMS)
    out = tmp_path / "power.json"
    common = ["study", "power-arms", "--study", str(folder), "--runs", "100"]
    assert main([*common, "--purity", "90", "70", "50", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Assumed (from the study: arms, " in said
    assert json.loads(out.read_text())["options"]["arms"] == ["main", "numbers", "maps"]
    assert main([*common, "--purity", "70", "60"]) == 2
    assert "3 arms with XNN (main, numbers, maps): give as many means" in capsys.readouterr().err


@pytest.mark.slow
def test_predicts_how_often_whole_studies_find_the_difference():
    """Pictures are placed knowingly or at random; power is asked for the purity that follows."""
    plan = plan_of(MAIN, Arm(name="maps", shows="maps"), keys=("birds",))
    skills = {"main": 0.75, "maps": 0.67}
    studies = people = 30
    hits, purities = 0, {name: [] for name in skills}
    for seed in range(studies):
        scores = pd.concat([_scores(arm, skill, people, seed) for arm, skill in skills.items()])
        for name in skills:
            chosen = (scores["arm"] == name) & (scores["stage"] == "XNN")
            purities[name].append(scores.loc[chosen, "purity"])
        tests = holm(compare_arms(scores, plan, AnalysisOptions(resamples=100)))
        hits += next(c.p_holm for c in tests if c.family) < 0.05
    means = tuple(100 * float(pd.concat(purities[name]).mean()) for name in skills)
    spread = np.mean([100 * float(pd.concat(purities[name]).std()) for name in skills])
    made = ArmPowerOptions(
        arms=tuple(skills), purity=means, sd_between=0.0, sd_within=float(spread), data_sets=1
    )
    expected = float(find_pairs(simulate_arms(made, people), made).mean())
    assert 0.2 < expected < 0.9, "neither is sure to be found nor to be missed"
    assert hits / studies == pytest.approx(expected, abs=0.2), (hits, expected, means, spread)


def _scores(arm, skill, people, seed):
    from torchxnn.apps.study.analysis.purity import score_trials

    known = {"birds": {"NoVis": 0.3, "1-Heatmap": 0.4, "XNN": skill}}
    tables = make_tables(people, 0, skill=known, seed=1000 * seed + (arm == "maps"))
    return score_trials(tables["trials"], tables["placements"]).assign(arm=arm)
