"""Power: known limits, an analytic approximation, and what pilots tell."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from study_data import make_plan, make_tables
from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.analysis.power import (
    SampleSize,
    assumptions_from_pilots,
    design_of,
    estimate_power,
    find_sample_size,
    simulate_differences,
)
from torchxnn.apps.study.analysis.power_options import PowerOptions
from torchxnn.errors import DataError
from torchxnn.storage.artifact import to_json

# bounds and steps hardly matter: many pictures, purity in the middle
SMOOTH = PowerOptions(
    effect=5.0, baseline=60.0, sd_between=3.0, sd_within=8.0, data_sets=1, images=1000, groups=4,
    largest=60, runs=400,
)  # fmt: skip


def power_at(options, participants):
    return estimate_power(simulate_differences(options)[:, :, :participants], options)


def test_agrees_with_an_analytic_approximation():
    """Wilcoxon's test of normal differences has 3 / pi of the efficiency of the t test."""
    for participants in (20, 40):
        shift = 5 / (8 * 2**0.5) * (participants * 3 / np.pi) ** 0.5
        critical = stats.t.ppf(0.975, participants - 1)
        expected = stats.nct.sf(critical, participants - 1, shift)
        found = power_at(SMOOTH, participants)
        assert found.power == pytest.approx(expected, abs=0.06)
        assert found.low < found.power < found.high


def test_rises_with_participants_and_effect():
    made = [power_at(SMOOTH, n).power for n in (6, 12, 24, 48)]
    assert made == sorted(made)
    assert made[0] < 0.3 < 0.8 < made[-1]
    larger = replace(SMOOTH, effect=8.0)
    assert power_at(larger, 24).power > power_at(SMOOTH, 24).power


def test_five_pairs_are_never_enough():
    certain = replace(SMOOTH, effect=30.0, sd_within=2.0)
    assert power_at(certain, 5).power == 0  # 2 / 2^5 > .05
    assert power_at(certain, 6).power == 1  # 2 / 2^6 < .05, all differences positive
    assert find_sample_size(certain).participants == 6


def test_without_effect_it_is_half_of_alpha():
    """Only significance in favour of XNN counts; the exact test is a little conservative."""
    nothing = replace(SMOOTH, effect=1e-9, runs=1500)
    assert power_at(nothing, 30).power == pytest.approx(0.025, abs=0.012)


def test_all_data_sets_need_more_than_any():
    two = replace(SMOOTH, data_sets=2)
    every, some = power_at(two, 24), power_at(replace(two, need="any"), 24)
    assert every.power < power_at(SMOOTH, 24).power < some.power


def test_the_smallest_number_is_found():
    answer = find_sample_size(SMOOTH)
    tried = {one.participants: one for one in answer.curve}
    assert tried[answer.participants].low >= 0.8
    assert tried[answer.participants - 1].low < 0.8
    assert list(tried) == sorted(tried)
    assert answer.recruit == int(np.ceil(answer.participants / 0.9))
    assert answer.effect == pytest.approx(5, abs=0.2)
    assert f"{answer.participants} analysed participants" in answer.sentence()
    exact = find_sample_size(replace(SMOOTH, effect=9.0, lost=0.0, runs=100))
    assert exact.recruit == exact.participants
    assert exact == find_sample_size(exact.options)


def test_tiny_effects_have_no_answer():
    answer = find_sample_size(replace(SMOOTH, effect=0.1, runs=100))
    assert (answer.participants, answer.recruit) == (None, None)
    assert "stays below 0.8" in answer.sentence()


def test_bounds_make_the_effect_smaller():
    high = replace(SMOOTH, baseline=98.0, effect=10.0)
    differences = simulate_differences(high)
    assert 0 < differences.mean() < 0.06
    coarse = replace(SMOOTH, images=10)
    steps = simulate_differences(coarse) * 10
    assert np.allclose(steps, np.round(steps))


def test_file_keeps_everything(tmp_path):
    answer = find_sample_size(replace(SMOOTH, effect=30.0, runs=100), "somewhere")
    path = tmp_path / "power.json"
    path.write_bytes(to_json(answer))
    assert SampleSize.read(path) == answer
    path.write_text("{}")
    with pytest.raises(DataError, match="no result of `xnn study power"):
        SampleSize.read(path)
    with pytest.raises(DataError, match="no result of `xnn study power"):
        SampleSize.read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("name", "value"), [("effect", 0.0), ("lost", 1.0), ("runs", 10), ("largest", 1)]
)
def test_senseless_assumptions(name, value):
    with pytest.raises(DataError, match=f"{name} must be .* got {value}"):
        replace(SMOOTH, **{name: value})


def test_pilots_tell_standard_deviations():
    skill = {"birds": {"NoVis": 0.3, "1-Heatmap": 0.5, "XNN": 0.7}}
    plan, options = make_plan(("birds",), complementary=False), AnalysisOptions()
    tables = make_tables(40, 0, skill=skill, images=20, kind="pilot")
    found = assumptions_from_pilots(tables, plan, options)
    by_hand = 100 * _purity(tables, "1-Heatmap")
    assert found["baseline"] == pytest.approx(by_hand.mean(), abs=0.05)
    assert 5 < found["sd_within"] < 16
    assert 0 <= found["sd_between"] < 12
    with pytest.raises(DataError, match="0 pilots do not tell"):
        assumptions_from_pilots(make_tables(5, 0, skill=skill), plan, options)
    assert design_of(make_plan()) == {"data_sets": 2, "images": 10, "groups": 4}


def _purity(tables, stage):
    rows = tables["placements"].query("stage == @stage")
    counts = rows.groupby(["participant", "group", "predicted"]).size()
    best = counts.groupby(["participant", "group"]).max().groupby("participant").sum()
    return (best / rows.groupby("participant").size()).to_numpy()
