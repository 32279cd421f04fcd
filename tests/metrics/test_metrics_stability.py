import json
from dataclasses import asdict

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import reference
from torchxnn.embeddings.matching import partial_out
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.metrics import (
    MapCovariance,
    Run,
    feature_correlation,
    functional_swap,
    match_features,
    measure_stability,
    stability_of,
)
from torchxnn.metrics.orthogonality import correlation
from torchxnn.metrics.stability import concept_values


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


def test_fewer_x_features_are_matched_with_some_of_more():
    wide = torch.tensor([[0.1, 0.9, 0.8], [0.0, 0.8, 0.1]])
    assert match_features(wide) == (2, 1)
    with pytest.raises(DataError, match="3 x-features cannot be matched with 2"):
        match_features(wide.T)


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


# --- with the logit taken out, concepts counted once, swaps


@given(seed=st.integers(0, 1000), images=st.integers(3, 9))
@settings(max_examples=30)
def test_what_is_taken_out_correlates_with_nothing_that_is_left(seed, images):
    values, logit = features(seed, images), features(seed + 1, images, 1)[:, 0]
    left = partial_out(values, logit)
    assert torch.allclose(left.mean(0), torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(logit @ left, torch.zeros(3).double(), atol=1e-12)
    taken = values - left  # linear in the logit
    slope = (taken[1] - taken[0]) / (logit[1] - logit[0])
    assert torch.allclose(taken, taken[0] + (logit - logit[0]).unsqueeze(1) * slope, atol=1e-6)


def test_an_x_feature_that_is_the_logit_is_nothing_without_it():
    logit = torch.rand(9, generator=torch.Generator().manual_seed(0)) * 20
    values = torch.stack([3 * logit + 1, torch.full((9,), 0.1), features(0, 9)[:, 0]], 1)
    left = partial_out(values.float(), logit)
    assert (left[:, :2] == 0).all()
    assert (left[:, 2] != 0).any()
    assert torch.equal(partial_out(values[:, 1:2], torch.ones(9)), torch.zeros(9, 1).double())


def test_the_logit_makes_unrelated_x_features_look_alike():
    logit = 5 * features(9, images=60, n=1)
    fits = [features(seed, images=60) + logit for seed in (0, 1)]
    assert measure_stability(fits).value > 0.9
    without = measure_stability(fits, without=logit[:, 0])
    assert without.value == pytest.approx(without.chance, abs=0.15)


def test_a_shift_and_a_scale_of_any_x_feature_change_nothing():
    logit = features(9, images=30, n=1)[:, 0]
    fits = [features(seed, images=30) for seed in (0, 1)]
    other = [fits[0], fits[1] * torch.tensor([2.0, 0.1, 7.0]) + torch.tensor([60.0, 0.0, -3.0])]
    first, second = (measure_stability(each, without=logit) for each in (fits, other))
    assert second.value == pytest.approx(first.value)
    assert second.once == pytest.approx(first.once)


def test_noisy_copies_of_one_number_count_once():
    number = features(0, images=40, n=1)
    fits = [number + 0.05 * features(seed, images=40, n=5) for seed in (1, 2)]
    found = measure_stability(fits)
    assert found.value > 0.9  # as if five concepts were found again
    assert found.concepts == (1, 1)
    other = features(3, images=40, n=5)  # five concepts, none of them found again
    assert measure_stability([other, fits[0]]).concepts == (5, 1)
    assert measure_stability([other, fits[0]]).once < 0.15  # one of five at most
    flat = torch.ones(40, 5)
    assert measure_stability([flat, fits[0]]).concepts == (0, 1)
    assert measure_stability([flat, fits[0]]).once == 0


def test_concepts_join_in_chains_and_the_dead_are_none():
    first, second, third = features(0, images=400).T - 0.5
    middle = first + 0.4 * second
    values = torch.stack([first, middle, first + 0.8 * second, torch.zeros(400), third], 1)
    table = feature_correlation(values, values)
    assert table[0, 1] > 0.9 > table[0, 2]
    assert table[1, 2] > 0.9
    concepts = concept_values(values)
    assert concepts.shape == (400, 2)
    assert feature_correlation(concepts, third.unsqueeze(1)).max() == pytest.approx(1)


def test_a_swap_by_hand():
    fitted = torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 4.0]]).double()
    seen = torch.tensor([[1.0, 0.0], [3.0, 1.0], [2.0, 5.0]]).double()
    logit = seen.sum(1) + 1
    first = Run(fitted, seen, logit)
    # the same concepts the other way round, in other units: nothing is lost
    same = Run(fitted.flip(1) * 3 - 1, seen.flip(1) * 3 - 1, logit)
    assert functional_swap(first, same, (1, 0), logit).r2_lost == pytest.approx(0)
    assert functional_swap(first, same, (1, 0), logit).r == pytest.approx(1)
    # one that does not vary is replaced by the mean of the one that goes: (2, 2)
    dead = Run(torch.zeros(3, 2), torch.ones(3, 2), logit)
    swap = functional_swap(first, dead, (0, 1), logit)
    total = float((logit - logit.mean()).square().sum())
    lost = [float((seen[:, at] - 2).square().sum()) / total for at in (0, 1)]
    assert swap.r2_lost == pytest.approx(sum(lost) / 2)
    r = [reference.pearson((logit - seen[:, at]).tolist(), logit.tolist()) for at in (0, 1)]
    assert swap.r == pytest.approx(sum(r) / 2)
    assert swap.r_lost == pytest.approx(1 - swap.r)


def test_what_is_taken_out_must_be_of_the_same_images():
    with pytest.raises(DataError, match="12 images of x-features, but 11 of what to take out"):
        measure_stability([features(0), features(1)], without=torch.ones(11))
    with pytest.raises(NonFiniteError, match="taken out of it"):
        measure_stability([features(0), features(1)], without=torch.full((12,), float("nan")))
