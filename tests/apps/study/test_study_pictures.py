"""Whether differences carry over to other pictures: formulas, and simulated studies."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from torchxnn.apps.study.analysis.paired import Question, holm, signed_rank
from torchxnn.apps.study.analysis.pictures import carry_over

PAIR = "XNN", "1-Heatmap"
QUESTION = Question("purity", "birds", *PAIR, "primary")
PERF = Path(__file__).parents[3] / "perf"


def simulated(generator, *, people=60, batches=5, suits=0.08, effect=0.0):
    """A study in which every batch suits each stage by chance; nobody sees a batch twice."""
    suited = generator.normal(0, suits, (2, batches))
    rows = []
    for person in range(people):
        level, first = generator.normal(0.65, 0.06), person % batches
        seen = first, (first + 1 + person // batches % (batches - 1)) % batches
        for stage, batch in enumerate(seen):
            value = level + suited[stage, batch] + effect * (stage == 0)
            rows.append((person, "birds", PAIR[stage], batch, value + generator.normal(0, 0.13)))
    columns = ["participant", "data_set", "stage", "set", "purity"]
    return pd.DataFrame(rows, columns=columns)


def rejections(runs=120, **about):
    """How often the signed-rank test over participants, and min F', are significant at .05."""
    generator = np.random.default_rng(1)
    old, new = 0, 0
    for _ in range(runs):
        trials = simulated(generator, **about)
        wide = trials.pivot(index="participant", columns="stage", values="purity")
        old += signed_rank((wide[PAIR[0]] - wide[PAIR[1]]).to_numpy()).p < 0.05
        new += carry_over(trials, QUESTION).p_both < 0.05
    return old / runs, new / runs


def test_pictures_that_suit_a_stage_by_chance_are_no_difference_of_the_stages():
    """The participant was the only random factor, so p said nothing of other pictures."""
    old, new = rejections()
    assert old > 0.15
    assert new < 0.10


def test_a_difference_on_all_pictures_is_found():
    assert rejections(runs=40, suits=0.01, effect=0.2)[1] > 0.9


def test_min_f_by_hand():
    rows = []
    values = {(0, "XNN", 0): 0.9, (0, "1-Heatmap", 1): 0.5, (1, "XNN", 1): 0.8,
              (1, "1-Heatmap", 0): 0.7, (2, "XNN", 0): 0.7, (2, "1-Heatmap", 1): 0.6,
              (3, "XNN", 1): 0.5}  # fmt: skip
    for (person, stage, batch), value in values.items():
        rows.append((person, "birds", stage, batch, value))
    trials = pd.DataFrame(rows, columns=["participant", "data_set", "stage", "set", "purity"])
    found = carry_over(trials, QUESTION)
    people = stats.ttest_1samp([0.4, 0.1, 0.1], 0)  # the fourth lacks a stage
    batches = stats.ttest_1samp([0.8 - 0.7, 0.8 - 0.55], 0)
    one, two = people.statistic**2, batches.statistic**2
    assert (found.participants, found.batches) == (3, 2)
    assert (found.f_participants, found.f_batches) == pytest.approx((one, two))
    assert (found.p_participants, found.p_batches) == pytest.approx((people.pvalue, batches.pvalue))
    assert found.f_both == pytest.approx(one * two / (one + two))
    assert found.df_both == pytest.approx((one + two) ** 2 / (one**2 / 1 + two**2 / 2))
    assert found.p_both == pytest.approx(stats.f.sf(found.f_both, 1, found.df_both))
    assert found.difference == pytest.approx(0.2)
    errors = 0.03 / 3, 0.01125 / 2  # variances of the differences by hand, over their number
    df = sum(errors) ** 2 / (errors[0] ** 2 / 2 + errors[1] ** 2 / 1)
    half = stats.t.ppf(0.975, df) * sum(errors) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half))
    twice = holm([found, found, carry_over(trials.iloc[:0], QUESTION)])
    assert [one.p_holm for one in twice] == [pytest.approx(min(1, 2 * found.p))] * 2 + [None]


def test_too_little_to_test_is_said():
    trials = simulated(np.random.default_rng(0), people=1)
    found = carry_over(trials, QUESTION)
    assert (found.participants, found.batches) == (1, 0)
    assert found.p_both is found.f_participants is None
    assert carry_over(trials.iloc[:0], QUESTION).participants == 0


@pytest.fixture(scope="module")
def perf():
    return runpy.run_path(str(PERF / "study_statistics.py"))


def test_the_simulation_prints_errors_and_coverage(perf, capsys, tmp_path):
    out = tmp_path / "figures.json"
    asked = perf["Check"](
        runs=2, participants=(10,), batches=(5,), effects=(0.0,), suits=(0.06,), json=out
    )
    perf["main"](asked)
    said = capsys.readouterr().out
    assert "10 participants, 5 batches, difference 0.000" in said
    for method in perf["METHODS"]:
        assert method in said
        assert f'"method": "{method}"' in out.read_text()


@pytest.mark.slow
def test_the_model_with_both_random_keeps_its_promise(perf):
    """A small version of `perf/study_statistics.py`; docs/study_analysis.md has its figures."""
    truth = perf["Truth"](participants=30, batches=5)
    null = perf["check"](truth, 60, seed=5)
    crossed, ranks = null[perf["CROSSED"]], null[perf["RANKS"]]
    assert np.mean(crossed.found) <= 0.12  # 5% and more than two standard errors
    assert np.mean(crossed.held) >= 0.90
    assert np.mean(ranks.held) < np.mean(crossed.held)  # it speaks of these pictures alone
    effect = perf["check"](perf["Truth"](participants=30, batches=5, effect=0.2), 20, seed=6)
    assert np.mean(effect[perf["CROSSED"]].found) > 0.8


def test_true_difference_is_the_mean_of_a_large_study(perf):
    truth = perf["Truth"](participants=400, batches=50, effect=0.3, suits_sd=0.01, batch_sd=0.01)
    study = perf["draw"](perf["design"](truth), truth, np.random.default_rng(0))
    means = study.groupby("stage")["purity"].mean()
    assert means["XNN"] - means["1-Heatmap"] == pytest.approx(
        perf["true_difference"](truth), abs=0.02
    )
