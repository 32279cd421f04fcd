"""The mixed and the ordinal model: closed forms, statsmodels' own example, degenerate data."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels
from statsmodels.miscmodels.ordinal_model import OrderedModel
from statsmodels.stats.anova import AnovaRM

from torchxnn.apps.study.analysis.design_matrix import build_design
from torchxnn.apps.study.analysis.models import (
    FIXED,
    MIXED,
    ORDINARY,
    Unavailable,
    fit_linear_model,
)
from torchxnn.apps.study.analysis.options import STAGES, AnalysisOptions
from torchxnn.apps.study.analysis.ordinal import fit_ordinal_model

OPTIONS = AnalysisOptions()
SETS = ("birds", "cells")


def table(values, stages=STAGES, sets=SETS, ordered=False, measure="purity"):
    """Trials from (participants, stages, sets) values; without order all positions are 0."""
    rows = []
    for person, of_person in enumerate(np.asarray(values)):
        for s, stage in enumerate(stages):
            for d, key in enumerate(sets):
                place = s * len(sets) + d
                turned = place if person % 2 else len(stages) * len(sets) - 1 - place
                rows.append((person, turned if ordered else 0, stage, key, of_person[s][d]))
    return pd.DataFrame(rows, columns=["participant", "position", "stage", "data_set", measure])


def simulated(people=12, sd=0.1, effect=0.1, seed=0):
    rng = np.random.default_rng(seed)
    own = rng.normal(0, sd, (people, 1, 1))
    means = np.array([[0.5, 0.6], [0.6, 0.6], [0.6 + effect, 0.7]])
    return means + own + rng.normal(0, 0.08, (people, 3, 2))


def test_statsmodels_example_of_repeated_measures(monkeypatch):
    """Its test of AnovaRM, whose figures are R's: F(1, 7) = 22.4, p = .002125452.

    Participants correlate negatively there, which no variance between them can say: REML ends at 0.
    """
    at = Path(statsmodels.__path__[0], "stats/tests/results/anova-rm-test-data.csv")
    if not at.is_file():
        pytest.skip("this statsmodels comes without the data of its tests")
    data = pd.read_csv(at).iloc[:16]
    names = dict(zip(sorted(data["B"].unique()), ("NoVis", "XNN"), strict=True))
    scores = pd.DataFrame(
        {"participant": data["id"], "position": 0, "stage": data["B"].map(names),
         "data_set": "birds", "purity": data["DV"].astype(float)}
    )  # fmt: skip
    reml = fit_linear_model(scores, STAGES, SETS, OPTIONS)
    assert reml.estimator == ORDINARY
    assert reml.terms[0].statistic == pytest.approx(29.8666667)  # of the pooled t test, 14 df
    monkeypatch.setattr(
        "torchxnn.apps.study.analysis.models._fit_mixed", lambda *_: (None, "no fit")
    )
    model = fit_linear_model(scores, STAGES, SETS, OPTIONS)
    (term,) = model.terms
    assert (term.term, term.df, term.df_residual) == ("stage", 1, 7)
    assert term.statistic == pytest.approx(22.4, rel=1e-4)
    assert term.p == pytest.approx(0.002125452, rel=1e-3)


def test_balanced_model_is_the_repeated_measures_anova():
    scores = table(simulated()[:, :, :1], sets=("birds",))
    model = fit_linear_model(scores, STAGES, SETS, OPTIONS)
    anova = AnovaRM(scores, "purity", "participant", within=["stage"]).fit().anova_table
    (term,) = model.terms
    assert (model.estimator, model.participants, model.trials) == (MIXED, 12, 36)
    assert term.statistic == pytest.approx(anova["F Value"].iloc[0], rel=1e-4)
    assert (term.df, term.df_residual) == (2, 22)
    assert term.p == pytest.approx(anova["Pr > F"].iloc[0], rel=1e-3)
    assert model.dropped == ("order (these trials cannot tell it from the other terms)",)
    # variance components of the balanced case: mean squares
    wide = simulated()[:, :, 0]
    residual = wide - wide.mean(0) - wide.mean(1, keepdims=True) + wide.mean()
    within = (residual**2).sum() / 22
    between = (wide.mean(1).var(ddof=1) * 3 - within) / 3
    assert model.residual_sd == pytest.approx(within**0.5, rel=1e-4)
    assert model.participant_sd == pytest.approx(between**0.5, rel=1e-3)


def test_contrasts_are_differences_of_means():
    values = simulated()
    model = fit_linear_model(table(values), STAGES, SETS, OPTIONS)
    means = values.mean(0)
    found = {(c.data_set, c.name): c.value for c in model.contrasts}
    assert len(found) == 2  # NoVis has none: it comes first for everybody
    for d, key in enumerate(SETS):
        assert found[key, "XNN - 1-Heatmap"] == pytest.approx(means[2, d] - means[1, d])
    assert [t.term for t in model.terms] == ["stage", "data set", "stage x data set"]
    assert [t.df_residual for t in model.terms] == [55] * 3
    shifted = fit_linear_model(table(values + 0.1), STAGES, SETS, OPTIONS)
    assert [t.statistic for t in shifted.terms] == pytest.approx(
        [t.statistic for t in model.terms], rel=1e-3
    )


def test_order_is_estimated():
    values = simulated(people=40)
    scores = table(values, ordered=True)
    scores["purity"] += 0.03 * scores["position"]
    model = fit_linear_model(scores, STAGES, SETS, OPTIONS)
    slope = next(c for c in model.coefficients if c.name == "order")
    assert slope.low < 0.03 < slope.high
    assert slope.p < 1e-6
    contrast = model.contrasts[0]
    assert contrast.low < 0.1 < contrast.high


def test_no_variance_between_participants_is_ordinary_least_squares():
    values = simulated()
    values -= values.mean((1, 2), keepdims=True)  # less than chance would give: estimated as 0
    model = fit_linear_model(table(values), STAGES, SETS, OPTIONS)
    assert (model.estimator, model.participant_sd) == (ORDINARY, 0.0)
    assert "estimated as 0" in model.reason


def test_fixed_intercepts_take_the_place_of_a_failed_fit(monkeypatch):
    module = "torchxnn.apps.study.analysis.models._fit_mixed"
    scores = table(simulated()[:, :, :1], sets=("birds",))
    mixed = fit_linear_model(scores, STAGES, SETS, OPTIONS)
    monkeypatch.setattr(module, lambda *_: (None, "the mixed model did not converge"))
    fixed = fit_linear_model(scores, STAGES, SETS, OPTIONS)
    assert (fixed.estimator, fixed.participant_sd) == (FIXED, None)
    assert fixed.terms[0].statistic == pytest.approx(mixed.terms[0].statistic, rel=1e-4)
    assert fixed.contrasts[0].value == pytest.approx(mixed.contrasts[0].value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (simulated(people=1), "at least 2 participants, got 1"),
        (np.full((5, 3, 2), 0.7), "the same purity"),
        (simulated(people=3)[:, :1, :1], "nothing to compare"),
        (np.tile(simulated(people=1), (4, 1, 1)), "fits every trial exactly"),
    ],
)
def test_degenerate_data_have_no_model(values, reason):
    stages, sets = STAGES[: values.shape[1]], SETS[: values.shape[2]]
    model = fit_linear_model(table(values, stages, sets), STAGES, SETS, OPTIONS)
    assert isinstance(model, Unavailable)
    assert reason in model.reason


def answers(counts, stages=("1-Heatmap", "XNN")):
    """One answer per participant and stage; `counts[stage]` are (answer, how many)."""
    columns = [np.repeat(*zip(*pairs, strict=True)) for pairs in counts]
    values = np.stack(columns, 1)[:, :, None]
    return table(values, stages, ("birds",), measure="confidence")


def test_two_groups_and_two_answers_are_the_odds_ratio():
    scores = answers([[(1, 14), (7, 6)], [(1, 5), (7, 15)]])
    model = fit_ordinal_model(scores, STAGES, SETS, OPTIONS)
    (one,) = model.contrasts
    assert one.value == pytest.approx(np.log(15 * 14 / (5 * 6)), rel=1e-4)
    assert (model.levels, one.p_holm) == ((1, 7), one.p)
    # chi squared of one contrast is its z squared
    assert model.terms[0].statistic == pytest.approx((one.value / one.standard_error) ** 2)


def test_ordinal_model_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    values = np.clip(np.round(rng.normal([[3], [4], [5]], 1.2, (30, 3, 1))), 1, 7).astype(int)
    scores = table(values, sets=("birds",), measure="confidence")
    model = fit_ordinal_model(scores, STAGES, SETS, OPTIONS)
    design = build_design(scores, STAGES, SETS, intercept=False)
    endog = pd.Series(pd.Categorical(scores["confidence"], ordered=True))
    plain = OrderedModel(endog, design.matrix, distr="logit").fit(method="bfgs", disp=False)
    weights = design.contrast("birds", "XNN", "1-Heatmap")
    expected = weights @ plain.params.to_numpy()[: len(weights)]
    assert model.contrasts[0].value == pytest.approx(expected, rel=1e-3)
    assert model.contrasts[0].value == pytest.approx(1 / (1.2 * 3**0.5 / np.pi), abs=0.8)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([[(3, 5)], [(4, 5)]], "at least 10 participants, got 5"),
        ([[(3, 12)], [(3, 12)]], "every answer is the same"),
        ([[(2, 12)], [(6, 12)]], "odds ratios are infinite|did not converge|no covariance"),
    ],
)
def test_degenerate_answers_have_no_model(counts, reason):
    model = fit_ordinal_model(answers(counts), STAGES, SETS, OPTIONS)
    assert isinstance(model, Unavailable)
    assert re.search(reason, model.reason)
