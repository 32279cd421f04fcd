import random
from collections import Counter
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from torchxnn.apps.study.design import all_cells, draw_cell, draw_order, draw_sets, draw_trials
from torchxnn.apps.study.settings import COMPLEMENTARY, MAIN, Arm, StudySettings
from torchxnn.errors import DataError

KEYS = ("birds", "cells")


def settings(**changes):
    return StudySettings(**({"title": "A study", "seed": 5} | changes))


@given(st.integers(0, 500), st.integers(0, 10), st.sampled_from(["blocks", "simple"]))
def test_every_session_has_the_form_of_the_paper(place, seed, randomisation):
    trials = draw_trials(settings(seed=seed, randomisation=randomisation), MAIN, KEYS, place)
    assert [trial.position for trial in trials] == [1, 2, 3, 4, 5, 6]
    assert [trial.stage for trial in trials[:2]] == ["NoVis", "NoVis"]
    assert {trial.stage for trial in trials[2:]} == {"1-Heatmap", "XNN"}
    # data sets alternate
    assert all(a.data_set != b.data_set for a, b in pairwise(trials))
    assert len({trial.data_set for trial in trials[::2]}) == 1
    # each data set once per stage, never the same set twice
    assert len({(trial.stage, trial.data_set) for trial in trials}) == 6
    for key in KEYS:
        sets = [trial.set for trial in trials if trial.data_set == key]
        assert len(set(sets)) == 3
        assert set(sets) <= {1, 2, 3, 4, 5}


@given(st.integers(0, 200), st.integers(0, 5))
def test_complementary_arm_has_two_stages_with_its_own_method(place, seed):
    trials = draw_trials(settings(seed=seed), COMPLEMENTARY, KEYS, place)
    assert [trial.stage for trial in trials] == ["NoVis", "NoVis", "1-Heatmap", "1-Heatmap"]
    assert [trial.method for trial in trials] == ["none", "none", "deep_lift", "deep_lift"]


@given(st.integers(0, 50), st.integers(0, 20))
def test_blocks_hold_every_order_once(block, seed):
    made = settings(seed=seed)
    cells = [draw_cell(made, MAIN, KEYS, 4 * block + row) for row in range(4)]
    assert Counter(cells) == Counter(all_cells(MAIN, KEYS))


@given(st.integers(0, 50), st.integers(0, 20), st.sampled_from([3, 5, 6]))
def test_blocks_show_every_set_once_in_every_stage(block, seed, sets):
    made = settings(seed=seed, sets=sets)
    places = range(sets * block, sets * (block + 1))
    shown = Counter(
        (trial.stage, trial.data_set, trial.set)
        for place in places
        for trial in draw_trials(made, MAIN, KEYS, place)
    )
    expected = product(MAIN.all_stages, KEYS, range(1, sets + 1))
    assert shown == Counter(expected)


def test_simple_randomisation_is_not_balanced_by_force():
    made = settings(randomisation="simple")
    blocks = [{draw_cell(made, MAIN, KEYS, 4 * b + row) for row in range(4)} for b in range(20)]
    assert any(len(block) < 4 for block in blocks)
    counts = Counter(draw_cell(made, MAIN, KEYS, place) for place in range(2000))
    assert all(400 < count < 600 for count in counts.values())


def test_draws_depend_on_seed_arm_and_place_alone():
    first, second = settings(seed=1), settings(seed=2)
    draw = [draw_trials(first, MAIN, KEYS, place) for place in range(40)]
    assert draw == [draw_trials(first, MAIN, KEYS, place) for place in range(40)]
    assert draw != [draw_trials(second, MAIN, KEYS, place) for place in range(40)]
    other = MAIN.model_copy(update={"name": "other"})
    assert draw != [draw_trials(first, other, KEYS, place) for place in range(40)]


GOLDEN = [
    ("NoVis", "birds", 5),
    ("NoVis", "cells", 4),
    ("1-Heatmap", "birds", 2),
    ("1-Heatmap", "cells", 2),
    ("XNN", "birds", 4),
    ("XNN", "cells", 5),
]
GOLDEN_ORDER = "fjgceaidhb"


def test_draws_stay_as_they_were_when_the_first_studies_ran():
    """A change here would make running studies draw something else after an update."""
    made = settings(seed=7)
    shown = [(t.stage, t.data_set, t.set) for t in draw_trials(made, MAIN, KEYS, 2)]
    assert shown == GOLDEN
    assert draw_order(made, 12, 3, list("abcdefghij")) == list(GOLDEN_ORDER)


def test_pictures_of_a_batch_come_in_another_order_for_everybody():
    made, items = settings(), list(range(10))
    orders = {tuple(draw_order(made, number, 1, items)) for number in range(50)}
    assert len(orders) == 50
    assert all(sorted(order) == items for order in orders)


@given(st.lists(st.integers(0, 3), min_size=50, max_size=200), st.booleans(), st.integers(0, 1000))
def test_sets_are_disjoint_and_complete(classes, balanced, seed):
    sets = draw_sets(classes, 5, 10, balanced, random.Random(seed))
    drawn = [index for batch in sets for index in batch]
    assert [len(batch) for batch in sets] == [10] * 5
    assert len(set(drawn)) == 50
    assert set(drawn) <= set(range(len(classes)))


@given(st.integers(0, 1000))
def test_balanced_sets_hold_every_class_two_or_three_times(seed):
    classes = [0] * 20 + [1] * 30 + [2] * 15 + [3] * 40
    for batch in draw_sets(classes, 5, 10, True, random.Random(seed)):
        counts = Counter(classes[index] for index in batch)
        assert sorted(counts.values()) == [2, 2, 3, 3]


def test_a_rare_class_is_spread_over_the_sets():
    classes = [0] * 4 + [1] * 60
    sets = draw_sets(classes, 4, 8, True, random.Random(0))
    assert [sum(classes[i] == 0 for i in batch) for batch in sets] == [1, 1, 1, 1]


def test_too_few_pictures_are_named():
    with pytest.raises(DataError, match=r"need 50 pictures, there are 49"):
        draw_sets([0] * 49, 5, 10, True, random.Random(0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sets": 2}, "sets must be at least 3"),
        ({"arms": (MAIN, MAIN)}, "same name"),
        ({"title": ""}, "at least 1 character"),
        ({"colour": "red"}, "Extra inputs"),
        ({"recruitment": {"completion_url": "javascript:alert(1)"}}, "http"),
        ({"recruitment": {"parameters": ["a b"]}}, "must be 1 to 40"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


def test_an_arm_needs_different_stages():
    with pytest.raises(ValidationError, match="different stages"):
        Arm(name="twice", stages=("XNN", "XNN"))
