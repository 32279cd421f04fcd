"""Means, intervals and paired tests over classes of which some lack a figure."""

import math

import pytest

from torchxnn.apps.benchmark.over_classes import interval_of_mean, mean, paired_test, with_holm


def test_a_class_without_a_figure_is_left_out():
    assert mean([1.0, None, 3.0, math.inf]) == 2.0
    assert mean([None]) is None
    assert interval_of_mean([2.0, None]) is None
    assert interval_of_mean([2.0, None, 2.0]) == [2.0, 2.0]


def test_pairs_are_the_classes_that_have_both_figures():
    tested = paired_test([1, 2, None, 5, 7], [2, 4, 1, None, 10])
    assert tested == {"p": 0.25, "median_difference": -2.0, "classes": 3, "higher": 0, "lower": 3}
    assert paired_test([1, None], [None, 2]) is None
    with pytest.raises(ValueError, match="shorter"):
        paired_test([1.0, 2.0], [1.0])


def test_holm_is_over_the_whole_family():
    tests = with_holm([{"figure": "r2", "p": 0.04}, {"figure": "o1", "p": 0.01}])
    assert [test["p_holm"] for test in tests] == pytest.approx([0.04, 0.02])
    assert [test["figure"] for test in tests] == ["r2", "o1"]
    assert with_holm([]) == []
