"""Rank tests, corrections, effect sizes and intervals: by hand, by enumeration, against SciPy."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.analysis.paired import (
    Question,
    cliffs_delta,
    cohens_dz,
    compare_paired,
    compare_unpaired,
    holm,
    rank_biserial,
    signed_rank,
)
from torchxnn.apps.study.analysis.resampling import participants_interval
from torchxnn.errors import DataError

FAST = AnalysisOptions(resamples=200)
QUESTION = Question("purity", "birds", "XNN", "1-Heatmap", "")


def floats(*values):
    return np.array(values, dtype=np.float64)


def enumerate_p(differences):
    """Two-sided p over all signs, literally."""
    ranks = stats.rankdata(np.abs(differences))
    observed = ranks[differences > 0].sum()
    sums = [np.dot(ranks, signs) for signs in product((0, 1), repeat=len(ranks))]
    low, high = np.mean(np.array(sums) <= observed), np.mean(np.array(sums) >= observed)
    return min(1.0, 2 * min(low, high))


def test_signed_rank_by_hand():
    test = signed_rank(floats(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    assert (test.statistic, test.nonzero, test.method) == (21, 6, "exact")
    assert test.p == pytest.approx(2 / 2**6)
    assert test.favours_first
    test = signed_rank(floats(-0.1, 0.2, 0.3))  # T+ = 5; sums >= 5 of 0 .. 6: 5 and 6
    assert (test.statistic, test.p) == (5, pytest.approx(2 * 2 / 8))
    test = signed_rank(floats(0, 0, 0.2, 0.8 - 0.6, -0.2))  # three tied ranks of 2, sums 0 2 4 6
    assert (test.statistic, test.zeros, test.nonzero, test.p) == (4, 2, 3, 1.0)
    test = signed_rank(floats(0, 0))
    assert (test.p, test.method, test.favours_first) == (1.0, "no difference", False)
    with pytest.raises(DataError, match="finite"):
        signed_rank(floats(0.1, np.nan))


@settings(max_examples=40)
@given(st.lists(st.integers(-3, 3).filter(bool), min_size=1, max_size=9))
def test_signed_rank_with_ties_is_exact(values):
    differences = np.array(values) / 10
    assert signed_rank(differences).p == pytest.approx(enumerate_p(differences))
    assert signed_rank(-differences).p == pytest.approx(signed_rank(differences).p)


def test_signed_rank_agrees_with_scipy():
    rng = np.random.default_rng(0)
    small, large = rng.normal(0.3, 1, 20), rng.normal(0.05, 1, 400)
    assert signed_rank(small).p == pytest.approx(stats.wilcoxon(small, method="exact").pvalue)
    found = signed_rank(large)
    assert found.method == "normal approximation"
    assert found.p == pytest.approx(stats.wilcoxon(large, method="asymptotic").pvalue)


def test_holm_by_family():
    made = [
        compare_paired(floats(*first), floats(*second), FAST, replace(QUESTION, family=family))
        for family, first, second in [
            ("one", [0.6, 0.7, 0.8], [0.5, 0.5, 0.5]),
            ("two", [0.6, 0.7, 0.8], [0.5, 0.5, 0.5]),
            ("one", [0.6, 0.7, 0.8], [0.5, 0.5, 0.9]),
            ("one", [np.nan], [0.5]),
            ("", [0.6, 0.7], [0.5, 0.5]),
        ]
    ]
    found = holm(made)
    assert [c.p for c in found] == pytest.approx([0.25, 0.25, 0.75, None, 0.5])
    assert [c.p_holm for c in found] == pytest.approx([0.5, 0.25, 0.75, None, None])


def test_effect_sizes_by_hand():
    differences = floats(0.1, 0.2, -0.3, 0)
    assert rank_biserial(differences) == pytest.approx((3 - 3) / 6)
    assert rank_biserial(floats(0.2, -0.1, 0.3)) == pytest.approx((5 - 1) / 6)
    assert rank_biserial(floats(0, 0)) == 0
    assert cohens_dz(floats(1, 2, 3)) == pytest.approx(2.0)
    assert np.isnan(cohens_dz(floats(0.1, 0.1)))
    # 3 > 1, 3 > 2, 2 > 1, 2 = 2: (3 - 0) / 4
    assert cliffs_delta(floats(2, 3), floats(1, 2)) == pytest.approx(0.75)
    stacked = np.stack([floats(0.2, -0.1, 0.3), floats(0, 0, 0.1)])
    assert rank_biserial(stacked) == pytest.approx([4 / 6, 1])


def test_unpaired_by_hand_and_against_scipy():
    one = compare_unpaired(floats(4, 5, 6), floats(1, 2, 3), FAST, QUESTION)
    assert (one.statistic, one.p, one.method) == (9, pytest.approx(2 / 20), "exact")
    assert (one.cliffs_delta, one.mean_difference) == (1, 3)
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 1, 30), rng.normal(0.5, 1, 14)
    large = compare_unpaired(first, second, FAST, QUESTION)
    rounded = stats.mannwhitneyu(first.round(9), second.round(9), method="asymptotic")
    assert large.method == "normal approximation"
    assert (large.statistic, large.p) == pytest.approx((rounded.statistic, rounded.pvalue))
    same = compare_unpaired(floats(1, 1), floats(1, 1, 1), FAST, QUESTION)
    assert (same.p, same.cliffs_delta, same.method) == (1.0, 0.0, "no difference")
    nobody = compare_unpaired(floats(np.nan), floats(1), FAST, QUESTION)
    assert (nobody.n_first, nobody.p, nobody.cliffs_delta) == (0, None, None)


def test_degenerate_pairs():
    one = compare_paired(floats(0.7), floats(0.5), FAST, QUESTION)
    assert (one.n, one.p, one.cohens_dz) == (1, 1.0, None)
    assert one.mean_interval.low is None
    tied = compare_paired(floats(0.7, 0.5), floats(0.7, 0.5), FAST, QUESTION)
    assert (tied.p, tied.rank_biserial, tied.cohens_dz, tied.sign_test_p) == (1.0, 0, None, 1.0)
    assert tied.mean_interval.method == "none"
    signs = compare_paired(floats(2, 3, 4, 5, 1), floats(1, 2, 3, 3, 1), FAST, QUESTION)
    assert signs.sign_test_p == pytest.approx(2 / 16)


def test_intervals_are_reproducible_and_cover():
    rng = np.random.default_rng(1)
    sample = rng.normal(0.1, 0.2, 25)
    options = AnalysisOptions(resamples=500, seed=3)
    found = participants_interval([sample], np.mean, options)
    assert found == participants_interval([sample], np.mean, options)
    assert found != participants_interval([sample], np.mean, AnalysisOptions(resamples=500, seed=4))
    assert found.method == "BCa"
    half = stats.t(24).ppf(0.975) * sample.std(ddof=1) / 5
    bounds = (sample.mean() - half, sample.mean() + half)
    assert (found.low, found.high) == pytest.approx(bounds, abs=0.25 * half)
    hits = 0
    for _ in range(60):
        one = participants_interval([rng.normal(0.1, 0.2, 25)], np.mean, FAST)
        hits += one.low <= 0.1 <= one.high
    assert hits >= 50  # of 60 at 95%: fewer would happen once in 1,000 times
    rare = participants_interval([floats(0.1, 0.1, 0.2)], cohens_dz, FAST)
    assert (rare.method, rare.undefined > 0) == ("percentile", True)
