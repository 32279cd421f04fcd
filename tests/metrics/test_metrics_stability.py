import json
from dataclasses import asdict

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import reference
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.metrics import (
    MapCovariance,
    feature_correlation,
    match_features,
    measure_stability,
    stability_of,
)
from torchxnn.metrics.orthogonality import correlation


def features(seed, images=12, n=3):
    return torch.rand(images, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=st.integers(0, 1000), images=st.integers(1, 6))
@settings(max_examples=30)
def test_correlation_equals_the_literal_version(seed, images):
    first, second = features(seed, images), features(seed + 1, images)
    first[:, 1] = 0.1
    expected = [
        [reference.pearson(a, b) if i != 1 else 0.0 for b in second.T.tolist()]
        for i, a in enumerate(first.T.tolist())
    ]
    result = feature_correlation(first, second)
    assert torch.allclose(result, torch.tensor(expected, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e30])
def test_feature_that_does_not_vary_correlates_with_nothing(constant):
    first = torch.full((3, 1), constant)
    assert feature_correlation(first, first).item() == 0


@given(seed=st.integers(0, 1000), n=st.integers(1, 5))
@settings(max_examples=30)
def test_matching_equals_the_best_of_all_permutations(seed, n):
    similarity = torch.randn(n, n, generator=torch.Generator().manual_seed(seed)).double()
    match = match_features(similarity)
    assert sorted(match) == list(range(n))
    mean = sum(float(similarity[row, column]) for row, column in enumerate(match)) / n
    assert mean == pytest.approx(reference.matched_similarity(similarity.tolist()))


def test_greedy_matching_would_be_worse():
    assert match_features(torch.tensor([[0.9, 0.8], [0.8, 0.1]])) == (1, 0)


def test_permuted_and_scaled_refit_is_perfectly_stable():
    first = features(0)
    second = first[:, [2, 0, 1]] * torch.tensor([3.0, 0.5, 2.0])
    result = measure_stability([first, second])
    assert result.value == pytest.approx(1)
    assert result.matches == ((1, 2, 0),)
    assert result.chance < 0.7
    assert result.fits == ((0, 1),)


def test_opposite_feature_is_not_the_same_concept():
    first = torch.tensor([[0.0], [1.0], [2.0]])
    assert measure_stability([first, 2 - first]).value == pytest.approx(-1)


def test_mean_over_all_pairs_of_refits_with_a_dead_feature():
    alive = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 4.0]])
    dead = alive * torch.tensor([1.0, 0.0])
    result = measure_stability([alive, alive, dead])
    # the dead x-feature correlates with nothing: 1, 1 | 1, 0 | 1, 0
    assert result.per_pair == pytest.approx((1, 0.5, 0.5))
    assert result.value == pytest.approx(2 / 3)
    assert result.dead == ((), (), (1,))
    assert result.fits == ((0, 1), (0, 2), (1, 2))
    assert json.loads(json.dumps(asdict(result)))["dead"] == [[], [], [1]]


def test_unrelated_fits_are_at_the_chance_level_above_zero():
    result = measure_stability([features(i, images=30, n=5) for i in range(4)])
    assert result.chance > 0.1
    assert result.value == pytest.approx(result.chance, abs=0.1)
    assert measure_stability([features(i, 30, 5) for i in range(4)]) == result


def test_fits_can_be_matched_by_their_maps():
    maps = torch.rand(2, 3, 4, 4)
    covariance = MapCovariance(6)
    covariance.update(torch.cat([maps, maps[:, [1, 2, 0]]], dim=1))
    result = stability_of([correlation(covariance.covariance())[:3, 3:]])
    assert result.value == pytest.approx(1)
    assert result.matches == ((2, 0, 1),)
    assert result.chance is None


def test_given_similarities_must_be_those_of_all_pairs():
    one = torch.eye(2)
    assert stability_of([one] * 3).fits == ((0, 1), (0, 2), (1, 2))
    for count in (2, 4, 5):
        with pytest.raises(DataError, match=f"{count} similarities"):
            stability_of([one] * count)
    with pytest.raises(DataError, match="0 similarities"):
        stability_of([])


def test_bad_input_is_an_error():
    with pytest.raises(DataError, match="at least 2 fits"):
        measure_stability([features(0)])
    with pytest.raises(DataError, match=r"\[2, 3\]"):
        measure_stability([features(0), features(0, n=2)])
    with pytest.raises(DataError, match="got 12 and 11"):
        measure_stability([features(0), features(0, images=11)])
    with pytest.raises(DataError, match="no x-features"):
        match_features(torch.zeros(0, 0))
    with pytest.raises(NonFiniteError, match="similarity"):
        match_features(torch.tensor([[float("nan")]]))
    with pytest.raises(NonFiniteError, match="x-feature of a fit"):
        feature_correlation(features(0) / 0, features(0))
