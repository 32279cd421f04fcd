import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

import reference
from torchxnn.embeddings.linear import group_moments, second_moments, weighted_mean
from torchxnn.training import losses


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(seed=st.integers(0, 10_000), count=st.integers(2, 6), dims=st.integers(2, 4))
def test_all_terms_equal_the_literal_versions(seed, count, dims):
    a, b, weights = draw(seed, count, dims), draw(seed + 1, count, dims), draw(seed + 2, count)
    weights = weights.abs() + 0.1
    w = weights.tolist()
    q = 7.0
    assert float(losses.faithfulness(a, b, weights)) == pytest.approx(
        reference.faithfulness(a.tolist(), b.tolist(), w)
    )
    errors = losses.reconstruction_errors(a, b, weights)
    assert float(losses.sparse_reconstruction(errors, q)) == pytest.approx(
        reference.sparse_reconstruction(a.tolist(), b.tolist(), w, q)
    )
    features = a.relu()
    moments = second_moments(features, weights)
    assert float(losses.pull_away(moments)) == pytest.approx(
        reference.pull_away(features.tolist(), w, centred=False)
    )


@given(seed=st.integers(0, 10_000), count=st.integers(3, 8), features=st.integers(2, 4))
def test_centred_pull_away_equals_the_literal_version(seed, count, features):
    e, weights = draw(seed, count, features), draw(seed + 1, count).abs() + 0.1
    moments, mean = second_moments(e, weights), weighted_mean(e, weights)
    assert float(losses.pull_away(moments, mean.unsqueeze(0))) == pytest.approx(
        reference.pull_away(e.tolist(), weights.tolist(), centred=True), rel=1e-6
    )


@given(seed=st.integers(0, 10_000), count=st.integers(6, 10), features=st.integers(2, 4))
def test_pull_away_within_groups_is_that_of_the_residuals(seed, count, features):
    e, weights = draw(seed, count, features), draw(seed + 1, count).abs() + 0.1
    group = torch.arange(count) % 2
    groups = torch.nn.functional.one_hot(group).double()
    residuals = e.clone()
    for g in range(2):
        residuals[group == g] -= weighted_mean(e[group == g], weights[group == g])
    value = losses.pull_away(
        second_moments(e, weights),
        group_moments(e, groups, weights),
        weights @ groups / weights.sum(),
    )
    expected = reference.pull_away(residuals.tolist(), weights.tolist(), centred=False)
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_features_that_share_the_positives_are_orthogonal_within_them():
    # both active on the positives only, and there they vary on their own
    e = torch.tensor([[1.0, 1.0], [1.0, 3.0], [3.0, 1.0], [3.0, 3.0], [0.0, 0.0], [0.0, 0.0]])
    groups = torch.tensor([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 2)
    moments, one = second_moments(e), torch.ones(6, 1)
    within = losses.pull_away(moments, group_moments(e, groups), torch.tensor([4 / 6, 2 / 6]))
    overall = losses.pull_away(moments, group_moments(e, one))
    assert float(within) == pytest.approx(0, abs=1e-6)
    assert float(overall) == pytest.approx((8 / 14) ** 2, rel=1e-5)
    assert float(losses.pull_away(moments)) > float(overall)


def test_tiny_features_neither_overflow_nor_divide_by_zero():
    e = (torch.rand(8, 3) * torch.tensor([1.0, 1e-25, 1e-5])).requires_grad_()
    losses.pull_away(second_moments(e)).backward()
    assert bool(torch.isfinite(e.grad).all())


def test_faithfulness_by_hand():
    reproduced, logits = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [5.0]])
    assert float(losses.faithfulness(reproduced, logits)) == 5.0  # (1 + 9) / 2
    assert float(losses.faithfulness(reproduced, logits, torch.tensor([3.0, 1.0]))) == 3.0


def test_sparse_reconstruction_by_hand():
    errors = torch.tensor([0.0, math.e - 1])
    assert float(losses.sparse_reconstruction(errors, 1.0)) == pytest.approx(0.5)


def test_log_penalty_becomes_the_autoencoder_loss_as_q_vanishes():
    errors = torch.tensor([0.2, 3.0, 11.0], dtype=torch.float64)
    q = 1e-9
    assert float(losses.sparse_reconstruction(errors, q) / q) == pytest.approx(
        float(errors.mean()), rel=1e-6
    )


def test_pull_away_by_hand():
    # columns (1, 0), (0, 1), (1, 1): cosines 0, 1/sqrt 2, 1/sqrt 2
    features = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    assert float(losses.pull_away(second_moments(features))) == pytest.approx(1 / 3)


def test_dead_feature_counts_as_cosine_one():
    features = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    moments = second_moments(features)
    assert float(losses.pull_away(moments)) == pytest.approx(4 / 6)  # 4 of 6 ordered pairs
    constant = torch.tensor([[1.0, 0.3], [2.0, 0.3], [4.0, 0.3]])
    moments, mean = second_moments(constant), constant.mean(0, keepdim=True)
    assert float(losses.pull_away(moments, mean)) == 1.0  # a constant is dead once centred


def test_one_feature_has_nothing_to_pull_away():
    assert float(losses.pull_away(second_moments(torch.ones(3, 1)))) == 0.0


def test_gradient_of_a_dead_feature_is_finite():
    features = torch.tensor([[1.0, 0.0], [2.0, 0.0]], requires_grad=True)
    losses.pull_away(second_moments(features), features.mean(0, keepdim=True)).backward()
    assert bool(torch.isfinite(features.grad).all())


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
def test_pull_away_does_not_depend_on_scale_or_weight_scale(scale, seed):
    e = draw(seed, 5, 3).relu() + 0.01
    scaled = e * torch.tensor([scale, 1.0, 2.0], dtype=torch.float64)
    weights = draw(seed, 5).abs() + 0.1
    assert float(losses.pull_away(second_moments(e, weights))) == pytest.approx(
        float(losses.pull_away(second_moments(scaled, weights * scale)))
    )


def test_uniform_weights_change_nothing():
    e = draw(0, 6, 3)
    assert torch.allclose(second_moments(e), second_moments(e, torch.full((6,), 9.0).double()))
    assert torch.allclose(weighted_mean(e), weighted_mean(e, torch.full((6,), 9.0).double()))


def test_losses_backpropagate_through_a_module():
    layer = nn.Linear(3, 2)
    e = layer(torch.randn(8, 3)).relu()
    loss = losses.pull_away(second_moments(e), e.mean(0, keepdim=True))
    loss.backward()
    assert layer.weight.grad is not None
