import json
import math
from dataclasses import asdict

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import reference
from torchxnn.errors import DataError, XNNWarning
from torchxnn.metrics import Faithfulness, MapCovariance, measure_faithfulness
from torchxnn.metrics.orthogonality import correlation
from torchxnn.storage.artifact import structure, to_json


def measure(reproduced, logits, target=0, positives=None, features=None, weight=None):
    logits = torch.tensor(logits)
    reproduced = torch.tensor(reproduced).reshape(-1, 1)
    features = torch.ones(len(logits), 2) if features is None else torch.tensor(features)
    weight = torch.tensor([[1.0, 1.0]]) if weight is None else torch.tensor(weight)
    if positives is None:
        positives = logits.argmax(1) == target
    positives = torch.as_tensor(positives).reshape(-1, 1)
    contributions = features.unsqueeze(1) * weight
    return measure_faithfulness(features, contributions, reproduced, logits, (target,), positives)


def test_figures_by_hand():
    logits = [[3.0, 1.0], [0.0, 2.0], [1.0, 0.5], [-1.0, 0.0]]
    result = measure([2.0, 2.5, 0.0, -1.0], logits)
    # errors 1, 2.5, 1, 0; images 1 and 2 change class; positives are images 0 and 2
    assert result.f_reg == pytest.approx(4.5 / 4)
    assert result.f_reg_positives == pytest.approx(1.0)
    assert result.f_cls == pytest.approx(0.5)
    assert result.f_cls_positives == pytest.approx(0.5)
    # logits 3, 0, 1, -1: mean 0.75, total 8.75; residual 1 + 6.25 + 1 = 8.25
    assert result.r2 == pytest.approx(1 - 8.25 / 8.75)
    assert (result.images, result.positives) == (4, 2)
    # margins 2, 2, 0.5, 1
    assert result.margin == pytest.approx(1.25)
    assert result.margin_changed == pytest.approx(1.25)


def test_margins_of_one_logit_and_of_no_change():
    same = measure([2.0, 1.5, 0.0, -1.0], [[3.0, 1.0], [0.0, 2.0], [1.0, 0.5], [-1.0, 0.0]])
    assert same.f_cls == 0.75
    assert same.margin_changed == pytest.approx(0.5)  # the near-tie
    single = measure([2.0, -4.0, 1.0, -1.0], [[3.0], [-4.0], [0.5], [-1.0]])
    assert single.margin == pytest.approx(2.125)
    assert single.margin_changed is None
    old = {k: v for k, v in asdict(single).items() if not k.startswith("margin")}
    assert structure(old, Faithfulness, "it").margin is None


def test_negatives_hide_a_fit_that_misses_every_positive():
    logits = [[5.0, 0.0]] + [[-5.0, 0.0]] * 99
    result = measure([-5.0] * 100, logits)
    assert result.f_cls == pytest.approx(0.99)
    assert result.f_cls_positives == 0.0
    assert result.degenerate


def test_single_logit_is_compared_by_sign():
    result = measure([0.5, 0.5], [[1.0], [-1.0]], positives=[True, False])
    assert result.f_cls == 0.5


def test_several_targets_are_replaced_at_once():
    logits = torch.tensor([[1.0, 0.0, 0.5]])
    reproduced = torch.tensor([[0.0, 1.0]])
    positives = torch.ones(1, 2, dtype=torch.bool)
    features = torch.ones(1, 1)
    result = measure_faithfulness(
        features, torch.ones(1, 2, 1), reproduced, logits, (0, 1), positives
    )
    assert result.f_cls == 0.0
    both = torch.tensor([[3.0, 1.0]])
    again = measure_faithfulness(features, torch.ones(1, 2, 1), both, logits, (0, 1), positives)
    assert again.f_cls == 1.0


def test_active_and_dead_features():
    # shares of the positives: 0.96, 0.04, 0
    features = [[0.96, 0.04, 0.0], [0.0, 9.0, 5.0]]
    result = measure(
        [1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], features=features, weight=[[1.0, -1.0, 1.0]]
    )
    assert (result.active, result.dead, result.n_features) == (1, 1, 3)
    assert result.share[0] == pytest.approx((0.96, 0.04, 0.0))
    assert "carries the logit alone" in result.degenerate[0]


def test_low_r2_is_degenerate_and_a_good_fit_is_not():
    logits = [[float(i), 2.0] for i in range(5)]
    good = measure([float(i) for i in range(5)], logits)
    assert good.r2 == 1.0
    assert good.degenerate == ()
    assert any("R^2" in reason for reason in measure([2.0] * 5, logits).degenerate)


def test_constant_logit_has_no_r2():
    result = measure([1.0, 1.0], [[1.0, 0.0], [1.0, 0.0]])
    assert math.isnan(result.r2)
    assert result.degenerate


def test_no_images_and_no_positives_are_errors():
    with pytest.raises(DataError, match="no positives"):
        measure([0.0], [[0.0, 1.0]])
    with pytest.raises(DataError, match="no images"):
        measure_faithfulness(
            torch.zeros(0, 1),
            torch.zeros(0, 1, 1),
            torch.zeros(0, 1),
            torch.zeros(0, 2),
            (0,),
            torch.zeros(0, 1, dtype=torch.bool),
        )


def test_faithfulness_survives_json():
    result = measure([2.0, 2.5], [[3.0, 1.0], [0.0, 2.0]])
    assert structure(json.loads(to_json(result)), Faithfulness, "it") == result


@given(seed=st.integers(0, 1000), images=st.integers(1, 4), n=st.integers(1, 4))
def test_streamed_covariance_equals_the_literal_version(seed, images, n):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(images, n, 3, 2, generator=generator, dtype=torch.float64)
    covariance = MapCovariance(n)
    for one in maps:
        covariance.update(one.unsqueeze(0))
    expected = reference.map_covariance([[m.flatten().tolist() for m in im] for im in maps])
    assert torch.allclose(covariance.covariance(), torch.tensor(expected, dtype=torch.float64))


def maps_of(*rows):
    return torch.tensor(rows).reshape(1, len(rows), 1, -1)


def test_uncorrelated_maps_are_orthogonal():
    covariance = MapCovariance(2)
    covariance.update(maps_of([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]))
    result = covariance.result()
    assert result.o1 == pytest.approx(0, abs=1e-12)
    assert result.o2 == pytest.approx(0, abs=1e-12)
    assert result.mean_squared_correlation == pytest.approx(0)


def test_orthogonality_by_hand():
    # maps (1, 0) and (0, 1) have correlation -1 over their two pixels; take three: -1/2
    covariance = MapCovariance(2)
    covariance.update(maps_of([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]))
    result = covariance.result()
    assert result.mean_squared_correlation == pytest.approx(0.25)
    assert result.o1 == pytest.approx(math.sqrt(2.5) - math.sqrt(2))
    assert result.o2 == pytest.approx(-math.log(0.75))


def test_negative_relevance_is_clipped():
    clipped, plain = MapCovariance(2), MapCovariance(2)
    clipped.update(maps_of([1.0, -5.0, 0.0], [0.0, 1.0, -2.0]))
    plain.update(maps_of([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]))
    assert torch.equal(clipped.covariance(), plain.covariance())


def test_dead_features_are_left_out_counted_and_warned_about():
    covariance = MapCovariance(3)
    covariance.update(maps_of([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]))
    with pytest.warns(XNNWarning, match="1 dead"):
        result = covariance.result(dead=(2,))
    assert (result.alive, result.n_features) == (2, 3)
    assert result.o1 == pytest.approx(0, abs=1e-12)
    assert result.mean_squared_correlation == pytest.approx(4 / 6)


def test_identical_maps_have_infinite_o2():
    covariance = MapCovariance(2)
    covariance.update(maps_of([1.0, 0.0], [1.0, 0.0]))
    result = covariance.result()
    assert result.o2 == math.inf
    assert result.mean_squared_correlation == pytest.approx(1)


def test_no_maps_is_an_error():
    with pytest.raises(DataError, match="no heatmaps"):
        MapCovariance(2).result()


def test_a_map_of_zeros_is_uncorrelated():
    matrix = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    assert torch.equal(correlation(matrix), torch.eye(2, dtype=torch.float64))


def test_coinciding_maps_never_look_orthogonal_whatever_the_rounding():
    for seed in range(20):
        one, other = torch.rand(2, 50, generator=torch.Generator().manual_seed(seed))
        covariance = MapCovariance(4)
        covariance.update(torch.stack([one, 2 * one, 3.3 * one, other]).reshape(1, 4, 5, 10))
        assert covariance.result().o2 > 20


def test_empty_maps_do_not_make_a_fit_look_orthogonal():
    covariance = MapCovariance(3)
    covariance.update(maps_of([1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.0] * 4))
    with pytest.warns(XNNWarning, match="1 with empty maps"):
        result = covariance.result()
    assert result.alive == 2
    assert result.mean_squared_correlation == pytest.approx(4 / 6)


def test_several_targets_with_one_feature_each_are_degenerate():
    eye = torch.eye(2)
    result = measure_faithfulness(
        eye, eye.unsqueeze(1) * torch.eye(2), eye, eye, (0, 1), eye.bool()
    )
    assert result.active == 2
    assert "target number 1, 2" in result.degenerate[0]
