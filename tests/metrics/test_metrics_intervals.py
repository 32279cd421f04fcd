import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from statsmodels.stats.multitest import multipletests

import reference
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.metrics import (
    bootstrap_counts,
    bootstrap_interval,
    bootstrap_mean,
    holm_adjust,
    paired_wilcoxon,
)
from torchxnn.metrics.intervals import percentile_interval


def test_counts_are_resamples_with_replacement():
    counts = bootstrap_counts(7, 4000, seed=1)
    assert counts.shape == (4000, 7)
    assert (counts.sum(1) == 7).all()
    # the count of one item is binomial with mean 1 and variance 1 - 1/7
    assert float(counts.mean()) == pytest.approx(1)
    assert float(counts[:, 0].var()) == pytest.approx(1 - 1 / 7, rel=0.1)
    assert torch.equal(counts, bootstrap_counts(7, 4000, seed=1))
    assert not torch.equal(counts, bootstrap_counts(7, 4000, seed=2))


def test_percentiles_by_hand():
    interval = percentile_interval(torch.arange(101.0), level=0.9)
    assert (interval.low, interval.high) == pytest.approx((5, 95))
    assert (interval.resamples, interval.undefined) == (101, 0)


def test_undefined_resamples_are_left_out_and_counted():
    interval = percentile_interval(torch.tensor([1.0, float("nan"), 3.0]), level=0.5)
    assert (interval.low, interval.high) == pytest.approx((1.5, 2.5))
    assert (interval.resamples, interval.undefined) == (2, 1)
    nothing = percentile_interval(torch.full((3,), float("nan")))
    assert math.isnan(nothing.low)
    assert nothing.undefined == 3


def test_interval_of_a_mean_is_the_normal_one_for_many_items():
    values = torch.linspace(-1, 1, 400, dtype=torch.float64)
    interval = bootstrap_mean(values, resamples=4000)
    half = 1.96 * float(values.std()) / math.sqrt(400)
    assert interval.low == pytest.approx(-half, rel=0.08)
    assert interval.high == pytest.approx(half, rel=0.08)


def test_interval_of_a_constant_is_the_constant():
    interval = bootstrap_mean(torch.full((5,), 2.0))
    assert (interval.low, interval.high) == (2.0, 2.0)


def test_any_statistic_uses_the_same_resamples():
    values = torch.tensor([1.0, 4.0, 2.0, 8.0], dtype=torch.float64)
    fast = bootstrap_mean(values, resamples=50, seed=5)
    slow = bootstrap_interval(lambda drawn: float(values[drawn].mean()), 4, resamples=50, seed=5)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high))


def test_one_item_has_no_interval():
    assert math.isnan(bootstrap_mean(torch.tensor([1.0])).low)
    assert math.isnan(bootstrap_interval(lambda drawn: 1.0, 1, resamples=3).high)


def test_bad_bootstraps_are_errors():
    with pytest.raises(DataError, match="no values"):
        bootstrap_mean(torch.zeros(0))
    with pytest.raises(NonFiniteError, match="number 1"):
        bootstrap_mean(torch.tensor([1.0, float("nan")]))
    with pytest.raises(DataError, match=r"got 1\.0"):
        bootstrap_mean(torch.ones(3), level=1.0)
    for items, resamples in ((0, 5), (5, 0)):
        with pytest.raises(DataError, match="at least 1 item"):
            bootstrap_counts(items, resamples)


def test_wilcoxon_by_hand():
    # three negative differences: 1 of the 8 assignments of signs has a sum as low
    test = paired_wilcoxon([0.1, 0.2, 0.3], [0.2, 0.4, 0.6], "less")
    assert test.p == pytest.approx(1 / 8)
    assert test.statistic == 0
    assert test.median_difference == pytest.approx(-0.2)
    assert paired_wilcoxon([0.1, 0.2, 0.3], [0.2, 0.4, 0.6], "greater").p == 1
    assert paired_wilcoxon([0.1, 0.2, 0.3], [0.2, 0.4, 0.6]).p == pytest.approx(1 / 4)


@given(
    differences=st.lists(st.sampled_from([-4.0, -2.0, -1.0, 0.0, 1.0, 3.0]), min_size=1, max_size=8)
)
@settings(max_examples=50)
def test_wilcoxon_equals_all_assignments_of_signs(differences):
    test = paired_wilcoxon(differences, [0.0] * len(differences), "less")
    assert test.p == pytest.approx(reference.signed_rank_p_less(differences))
    assert test.zeros == differences.count(0.0)
    assert test.pairs == len(differences)


def test_no_difference_at_all_is_no_evidence():
    test = paired_wilcoxon([1.0, 2.0], [1.0, 2.0], "less")
    assert (test.p, test.zeros, test.pairs, test.median_difference) == (1.0, 2, 2, 0.0)


def test_many_ties_take_the_normal_approximation_without_a_warning():
    first = [0.0] * 30 + [1.0] * 10
    test = paired_wilcoxon(first, [1.0] * 30 + [0.0] * 10, "less")
    assert 0 < test.p < 0.01


def test_bad_pairs_are_errors():
    with pytest.raises(DataError, match="got 1 and 2"):
        paired_wilcoxon([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="got 0 and 0"):
        paired_wilcoxon([], [])
    with pytest.raises(NonFiniteError, match="second figure of pair"):
        paired_wilcoxon([1.0, 2.0], [1.0, float("nan")])


def test_holm_by_hand_and_against_statsmodels():
    assert holm_adjust([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm_adjust([0.9, 0.8]) == [1.0, 1.0]
    for values in np.random.default_rng(0).uniform(0, 0.3, (2, 5)):
        assert holm_adjust(values.tolist()) == pytest.approx(
            multipletests(values, method="holm")[1]
        )
