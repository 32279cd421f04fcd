"""Purity, adjusted Rand index and chance level: by hand, against scikit-learn, by enumeration."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from study_data import make_tables
from torchxnn.apps.study.analysis.purity import (
    adjusted_rand_index,
    expected_purity,
    purity,
    score_trials,
)
from torchxnn.errors import DataError

groupings = st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abcd")), min_size=1, max_size=10)


def split(pairs):
    return [g for g, _ in pairs], [c for _, c in pairs]


def test_by_hand():
    groups, classes = [1, 1, 1, 2, 2, 3], list("aabbba")
    assert purity(groups, classes) == pytest.approx(5 / 6)  # 2 + 2 + 1
    # pairs: S = 1 + 1, A = 3 + 1, B = 3 + 3, T = 15
    assert adjusted_rand_index(groups, classes) == pytest.approx((2 - 24 / 15) / (5 - 24 / 15))
    assert purity([1] * 4, list("abcd")) == 0.25
    assert purity([1, 2, 3, 4], list("aaaa")) == 1
    assert adjusted_rand_index([1, 1, 2, 2], list("aabb")) == 1
    assert adjusted_rand_index([1, 1], list("aa")) == 1
    # groups of 2 from 2 + 2: one of three pairings is pure
    assert expected_purity([1, 1, 2, 2], list("aabb")) == pytest.approx((1 + 0.5 + 0.5) / 3)


@settings(max_examples=60)
@given(groupings)
def test_invariants(pairs):
    groups, classes = split(pairs)
    value, chance = purity(groups, classes), expected_purity(groups, classes)
    least = max(classes.count(c) for c in classes) / len(classes)
    assert least <= value <= 1
    assert least - 1e-12 <= chance <= 1
    renamed = [f"group {7 - g}" for g in groups]
    assert purity(renamed, classes) == value
    assert expected_purity(renamed, classes) == pytest.approx(chance)
    index = adjusted_rand_index(groups, classes)
    assert adjusted_rand_index(classes, groups) == pytest.approx(index)
    if len(groups) > 1:
        assert index == pytest.approx(adjusted_rand_score(classes, groups), abs=1e-12)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from("abc")), min_size=1, max_size=6))
def test_chance_level_is_the_mean_over_all_arrangements(pairs):
    groups, classes = split(pairs)
    every = [purity(groups, order) for order in permutations(classes)]
    assert expected_purity(groups, classes) == pytest.approx(np.mean(every))


def test_wrong_lengths():
    for measure in (purity, adjusted_rand_index, expected_purity):
        with pytest.raises(DataError, match="0 groups and 1 classes"):
            measure([], ["a"])
        with pytest.raises(DataError, match="0 groups and 0 classes"):
            measure([], [])


def test_trials_are_scored_by_predictions_and_by_labels():
    tables = make_tables(2, 0, skill={"birds": {"NoVis": 1.0, "1-Heatmap": 1.0, "XNN": 1.0}},
                         participant_sd=0)  # fmt: skip
    scores = score_trials(tables["trials"], tables["placements"])
    assert len(scores) == 6
    assert (scores["purity"] == 1).all()
    assert (scores["ari"] == 1).all()
    assert (scores["purity_labels"] < 1).all()  # one label of ten is not the prediction
    one = score_trials(tables["trials"], tables["placements"], [2])
    assert set(one["participant"]) == {2}
    placements = tables["placements"]
    unlabelled = placements.assign(label=placements["label"].where(placements.index > 0))
    scores = score_trials(tables["trials"], unlabelled)
    assert scores["purity_labels"].isna().sum() == 1
    assert scores["purity"].notna().all()


def test_broken_tables_are_named():
    tables = make_tables(1, 0)
    trials, placements = tables["trials"], tables["placements"]
    lacking = placements.assign(group=placements["group"].where(placements.index > 0))
    with pytest.raises(DataError, match="has no group"):
        score_trials(trials, lacking)
    with pytest.raises(DataError, match="is twice"):
        score_trials(trials, placements.iloc[[0, *range(len(placements))]])
    with pytest.raises(DataError, match="no row in the table of trials"):
        score_trials(trials.iloc[1:], placements)
