"""The mixed model with participants and pictures as crossed random factors."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.regression.mixed_linear_model import VCSpec

from torchxnn.apps.study.analysis.crossed import CROSSED, Restricted, fit_purity_model
from torchxnn.apps.study.analysis.models import MIXED, Unavailable
from torchxnn.apps.study.analysis.options import ASSISTED, AnalysisOptions
from torchxnn.apps.study.design import draw_trials
from torchxnn.apps.study.settings import MAIN, StudySettings

OPTIONS = AnalysisOptions()
SETS = ("birds", "cells")


def study(people=20, batches=5, participant=0.08, batch=0.06, suits=0.06, noise=0.1, seed=0):
    """Trials of a study, with deviations of participants, batches, and batches in stages."""
    settings, rng = StudySettings(title="x", sets=batches), np.random.default_rng(seed)
    rows = [
        (person, t.position, t.stage, t.data_set, t.set)
        for person in range(people)
        for t in draw_trials(settings, MAIN, SETS, person)
    ]
    found = pd.DataFrame(rows, columns=["participant", "position", "stage", "data_set", "set"])
    value = 0.6 + rng.normal(0, noise, len(found))
    for sd, of in (
        (participant, ["participant"]), (batch, ["data_set", "set"]),
        (suits, ["data_set", "set", "stage"]),
    ):  # fmt: skip
        level = found.groupby(of).ngroup().to_numpy()
        value += rng.normal(0, sd, level.max() + 1)[level]
    return found.assign(purity=value)


@pytest.mark.filterwarnings("ignore:Maximum Likelihood", "ignore:The MLE may be")
def test_likelihood_and_estimates_are_those_of_statsmodels():
    trials = study()
    levels = [trials["participant"], trials["data_set"] + trials["set"].astype(str)]
    matrix = np.column_stack([np.ones(len(trials)), trials["position"]])
    outcome = trials["purity"].to_numpy()
    ours = Restricted(outcome, matrix, [one.to_numpy() for one in levels]).best()
    dummies = [pd.get_dummies(one).to_numpy(float) for one in levels]
    names = [[[str(column) for column in range(one.shape[1])]] for one in dummies]
    spec = VCSpec(["people", "batches"], names, [[one] for one in dummies])
    theirs = sm.MixedLM(outcome, matrix, groups=np.ones(len(trials)), exog_vc=spec).fit(
        method=["lbfgs", "powell"]
    )
    assert ours.criterion == pytest.approx(-2 * theirs.llf, abs=1e-3)
    assert ours.values == pytest.approx(theirs.fe_params, rel=1e-3)
    assert ours.variances == pytest.approx(theirs.vcomp, rel=0.02)
    assert ours.residual == pytest.approx(theirs.scale, rel=0.02)
    errors = np.sqrt(np.diag(ours.covariance))
    assert errors == pytest.approx(theirs.bse_fe, rel=0.01)


def test_a_balanced_table_has_the_variances_of_its_mean_squares():
    """Every person with every batch: closed forms of a two-way layout without interaction."""
    rng = np.random.default_rng(3)
    people, batches = 12, 7
    table = rng.normal(0, 1, (people, 1)) + rng.normal(0, 0.7, batches) + rng.normal(0, 0.5, (people, batches))  # fmt: skip # noqa: E501
    row, column = np.indices(table.shape)
    ones = np.ones((table.size, 1))
    found = Restricted(table.ravel(), ones, [row.ravel(), column.ravel()]).best()
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    error = (rest**2).sum() / ((people - 1) * (batches - 1))
    assert found.residual == pytest.approx(error, rel=1e-3)
    expected = [
        table.mean(1).var(ddof=1) - error / batches, table.mean(0).var(ddof=1) - error / people
    ]  # fmt: skip
    assert found.variances == pytest.approx(expected, rel=1e-3)
    assert found.values == pytest.approx([table.mean()])


def test_degrees_of_freedom_are_those_of_the_stratum():
    model = fit_purity_model(study(), ASSISTED, SETS, OPTIONS)
    assert (model.estimator, model.reason, model.trials) == (CROSSED, "", 80)
    df = {term.term: term.df_residual for term in model.terms}
    # 2 data sets of 5 batches in 2 stages: 20 cells - 10 batches - 2 differences of stages
    assert (df["stage"], df["stage x data set"], df["data set"]) == (8, 8, 8)
    assert df["order"] > 30
    one = model.contrasts[0]
    half = stats.t.ppf(0.975, 8) * one.standard_error
    assert (one.low, one.high) == pytest.approx((one.value - half, one.value + half))
    assert {c.name for c in model.contrasts} == {"XNN - 1-Heatmap"}


def test_more_people_do_not_make_up_for_few_batches():
    few, many = (fit_purity_model(study(n), ASSISTED, SETS, OPTIONS) for n in (20, 60))
    errors = [model.contrasts[0].standard_error for model in (few, many)]
    assert errors[1] > 0.7 * errors[0]  # of participants alone it would be 0.58
    more = fit_purity_model(study(60, batches=20), ASSISTED, SETS, OPTIONS)
    assert more.contrasts[0].standard_error < 0.8 * errors[1]


def test_variances_of_0_are_named():
    model = fit_purity_model(study(batch=0, suits=0, seed=1), ASSISTED, SETS, OPTIONS)
    assert model.estimator == CROSSED
    assert (model.suits_sd, model.participant_sd > 0) == (0, True)
    assert model.reason == "the variance of batches in each stage is estimated as 0"


@pytest.mark.parametrize("change", ["one batch", "no fit"])
def test_participants_alone_take_the_place_and_it_is_said(monkeypatch, change):
    trials = study()
    if change == "one batch":
        trials["set"] = 1
    else:
        monkeypatch.setattr(Restricted, "best", lambda _: None)
    model = fit_purity_model(trials, ASSISTED, SETS, OPTIONS)
    assert (model.estimator, model.suits_sd) == (MIXED, None)
    assert model.reason.startswith("pictures are no random factor, as ")
    assert ("too few batches" in model.reason) == (change == "one batch")


def test_degenerate_data_have_no_model():
    for trials, reason in (
        (study(people=1), "at least 2 participants"),
        (study().assign(purity=0.7), "the same purity"),
        (study().iloc[:0], "at least 2 participants"),
    ):
        model = fit_purity_model(trials, ASSISTED, SETS, OPTIONS)
        assert isinstance(model, Unavailable)
        assert reason in model.reason
