import json
import math
from dataclasses import asdict

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import reference
from torchxnn.errors import DataError, NonFiniteError, XNNWarning
from torchxnn.metrics import (
    CONTEXT,
    RelevanceHistograms,
    entropy,
    pixel_weights_masks,
    pixel_weights_points,
    pixel_weights_voronoi,
)
from torchxnn.metrics.intervals import bootstrap_counts


def parts_of(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)


def box_of(*values):
    return torch.tensor(values, dtype=torch.float32)


def measure(maps, weights, names, **options):
    histograms = RelevanceHistograms(maps.shape[1], names)
    histograms.update(maps, weights)
    return histograms.result(**options)


def random_scene(seed, parts=4, size=(7, 9)):
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    places = torch.rand(parts, 3, generator=generator) * torch.tensor([width, height, 1.0])
    places[:, 2] = (places[:, 2] > 0.3).float()
    corner = torch.rand(2, generator=generator) * 3
    extent = torch.rand(2, generator=generator) * 6
    return places, torch.cat([corner, extent]), generator


def test_entropy_closed_forms():
    rows = torch.tensor([[3.0, 3.0, 3.0], [0.0, 5.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    values = entropy(rows)
    assert values[:3].tolist() == pytest.approx([math.log(3), 0.0, math.log(2)])
    assert math.isnan(values[3])


def test_points_are_the_pixels_they_lie_on():
    parts = parts_of([2.9, 0.0, 1], [0.2, 1.99, 1], [3.0, 1.0, 0])
    weights = pixel_weights_points(parts, (2, 4))
    expected = torch.zeros(3, 2, 4, dtype=torch.float64)
    expected[0, 0, 2] = expected[1, 1, 0] = 1
    assert torch.equal(weights.dense(), expected)
    assert weights.measured.tolist() == [True, True, False]


def test_two_parts_on_one_pixel_both_have_its_probability():
    weights = pixel_weights_points(parts_of([1.0, 0, 1], [1.5, 0, 1]), (1, 2))
    result = measure(torch.tensor([[[[1.0, 3.0]]]]), [weights], ("eye", "crown"))
    assert result.histogram[0] == pytest.approx((0.75, 0.75))
    assert result.value == pytest.approx(math.log(2))


def test_pixel_level_probability_by_hand():
    parts = [parts_of([0, 0, 1], [2, 0, 1]), parts_of([1, 0, 1], [0, 0, 0])]
    maps = torch.tensor([[[[2.0, -9.0, 6.0]]], [[[1.0, 1.0, 2.0]]]])
    result = measure(maps, [pixel_weights_points(p, (1, 3)) for p in parts], ("a", "b"))
    # a: (2/8 + 1/4) / 2; b is visible in the first image alone: 6/8
    assert result.histogram[0] == pytest.approx((0.25, 0.75))
    assert result.measured == (2, 1)
    assert result.value == pytest.approx(-0.25 * math.log(0.25) - 0.75 * math.log(0.75))
    assert result.chance == pytest.approx(math.log(2))


def test_voronoi_by_hand():
    # columns 0 to 4 are in the box, 5 is context; parts at columns 1 and 4
    weights = pixel_weights_voronoi(parts_of([1, 0, 1], [4, 0, 1]), box_of(0, 0, 5, 1), (1, 6))
    # cells {0, 1, 2} with largest distance 1, and {3, 4} with 1
    assert weights.dense()[:, 0].tolist() == [
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    result = measure(torch.ones(1, 1, 1, 6), [weights], ("a", "b", CONTEXT))
    assert result.histogram[0] == pytest.approx((1 / 6, 1 / 6, 1 / 6))
    assert result.value == result.chance == pytest.approx(math.log(3))
    assert result.void_share is None


def test_distance_is_normalised_within_the_cell():
    weights = pixel_weights_voronoi(parts_of([0, 0, 1]), box_of(0, 0, 5, 1), (1, 5))
    assert weights.dense()[0, 0].tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_of_coincident_parts_the_lower_index_wins_the_cell():
    parts = parts_of([5, 5, 0], [1.2, 0.1, 1], [1.9, 0.8, 1])
    weights = pixel_weights_voronoi(parts, box_of(0, 0, 3, 1), (1, 3))
    assert weights.dense()[:, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert weights.measured.tolist() == [False, True, True, True]


def test_equally_near_parts_are_won_by_the_lower_index():
    # column 1 is one pixel from both, so it is the far end of the first cell
    weights = pixel_weights_voronoi(parts_of([2, 0, 1], [0, 0, 1]), box_of(0, 0, 3, 1), (1, 3))
    assert weights.parts.tolist() == [1, 0, 0]
    assert weights.dense()[:2, 0].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_cell_of_a_single_pixel_has_probability_one():
    weights = pixel_weights_voronoi(parts_of([1.7, 0.3, 1]), box_of(1, 0, 1, 1), (1, 3))
    assert weights.dense()[:, 0].tolist() == [[0, 1, 0], [1, 0, 1]]


def test_part_outside_the_box_owns_the_pixels_nearest_to_it():
    weights = pixel_weights_voronoi(parts_of([4, 0, 1], [0, 0, 1]), box_of(0, 0, 4, 1), (1, 5))
    # column 2 is two pixels from both; cells {2, 3} and {0, 1}
    assert weights.dense()[:, 0].tolist() == [[0, 0, 0, 0.5, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert weights.parts.tolist() == [1, 1, 0, 0, 2]


def test_without_visible_parts_only_the_context_is_measured():
    weights = pixel_weights_voronoi(parts_of([1, 0, 0]), box_of(0, 0, 2, 1), (1, 4))
    assert weights.dense()[:, 0].tolist() == [[0, 0, 0, 0], [0, 0, 1, 1]]
    assert weights.measured.tolist() == [False, True]


def test_box_over_the_whole_image_has_no_context():
    weights = pixel_weights_voronoi(parts_of([1, 0, 1]), box_of(0, 0, 4, 1), (1, 4))
    assert float(weights.dense()[1].sum()) == 0
    assert weights.measured.tolist() == [True, True]


@given(seed=st.integers(0, 2000))
@settings(max_examples=40)
def test_voronoi_equals_the_literal_algorithm(seed):
    parts, box, _ = random_scene(seed)
    weights = pixel_weights_voronoi(parts, box, (7, 9))
    expected = reference.voronoi_weights(parts.tolist(), box.tolist(), 7, 9)
    assert torch.allclose(weights.dense(), torch.tensor(expected, dtype=torch.float64), atol=1e-12)


@given(seed=st.integers(0, 2000), images=st.integers(1, 4), n=st.integers(1, 3))
@settings(max_examples=25)
def test_locality_equals_the_literal_version(seed, images, n):
    scenes = [random_scene(seed * 10 + i) for i in range(images)]
    maps = torch.randn(images, n, 7, 9, generator=scenes[0][2], dtype=torch.float64)
    if images > 2:
        maps[1, 0] = -1.0
    histograms = RelevanceHistograms(n, ("a", "b", "c", "d", CONTEXT))
    for one, (parts, box, _) in zip(maps, scenes, strict=True):
        histograms.update(one.unsqueeze(0), [pixel_weights_voronoi(parts, box, (7, 9))])
    result = histograms.result(resamples=20)
    literal = [
        reference.voronoi_weights(parts.tolist(), box.tolist(), 7, 9) for parts, box, _ in scenes
    ]
    measured = [[*(visible > 0 for _, _, visible in p.tolist()), True] for p, _, _ in scenes]
    expected = [
        reference.locality_of_feature(
            [
                reference.part_relevance(image[f].tolist(), w)
                for image, w in zip(maps, literal, strict=True)
            ],
            measured,
        )
        for f in range(n)
    ]
    assert result.per_feature == pytest.approx(expected)
    assert result.value == pytest.approx(sum(expected) / n)
    assert result.empty_maps == ((1 if images > 2 else 0), *[0] * (n - 1))
    uniform = [reference.part_relevance([[1.0] * 9] * 7, w) for w in literal]
    assert result.chance == pytest.approx(reference.locality_of_feature(uniform, measured))


@given(seed=st.integers(0, 500), scale=st.floats(1e-6, 1e6))
@settings(max_examples=25)
def test_locality_does_not_depend_on_scale_negatives_batches_or_precision(seed, scale):
    scenes = [random_scene(seed + i) for i in range(3)]
    weights = [pixel_weights_voronoi(parts, box, (7, 9)) for parts, box, _ in scenes]
    maps = torch.randn(3, 2, 7, 9, generator=scenes[0][2])
    names = ("a", "b", "c", "d", CONTEXT)
    once = measure(maps, weights, names, resamples=10)
    again = measure(maps.clamp(min=0) * scale, weights, names, resamples=10)
    assert again.value == pytest.approx(once.value, rel=1e-4)
    streamed = RelevanceHistograms(2, names)
    for one, weight in zip(maps, weights, strict=True):
        streamed.update(one.unsqueeze(0), [weight])
    assert streamed.result(resamples=10) == once
    assert measure(maps.double(), weights, names, resamples=10).value == pytest.approx(
        once.value, rel=1e-4
    )
    assert 0 <= once.value <= math.log(5) + 1e-9


def test_half_precision_maps_do_not_overflow():
    weights = pixel_weights_masks(torch.ones(300, 300, dtype=torch.long), 1)
    result = measure(torch.full((1, 1, 300, 300), 60000.0).half(), [weights], ("wall",))
    assert result.histogram[0] == pytest.approx((1.0,))


def test_maps_in_float64_are_left_as_they_were():
    maps = torch.tensor([[[[-1.0, 2.0], [3.0, -4.0]]]], dtype=torch.float64)
    kept, mask = maps.clone(), torch.zeros(2, 2, dtype=torch.int64)
    RelevanceHistograms(1, ["a"]).update(maps, [pixel_weights_masks(mask, 1)])
    assert torch.equal(maps, kept)


def test_masks_by_hand_and_void_is_left_out():
    weights = pixel_weights_masks(torch.tensor([[0, 1, 1, 3]]), 3)
    maps = torch.tensor([[[[4.0, 1.0, 2.0, 3.0]], [[0.0, 0.0, 0.0, 1.0]]]])
    result = measure(maps, [weights], ("bed", "lamp", "wall"))
    assert result.histogram[0] == pytest.approx((0.3, 0.0, 0.3))
    assert result.per_feature == pytest.approx((math.log(2), 0.0))
    assert result.value == pytest.approx(math.log(2) / 2)
    assert result.void_share == pytest.approx(0.2)
    assert result.chance_histogram == pytest.approx((0.5, 0.0, 0.25))
    assert result.chance == pytest.approx(-2 / 3 * math.log(2 / 3) - 1 / 3 * math.log(1 / 3))
    # an object that is not in the picture is measured as 0
    assert result.measured == (1, 1, 1)


def test_perfectly_local_and_perfectly_spread_maps():
    masks = torch.arange(1, 5).repeat(2, 1)
    local = torch.zeros(1, 1, 2, 4)
    local[..., 2] = 1
    weights = [pixel_weights_masks(masks, 4)]
    names = ("a", "b", "c", "d")
    assert measure(local, weights, names).value == 0
    spread = measure(torch.ones(1, 1, 2, 4), weights, names)
    assert spread.value == spread.chance == pytest.approx(math.log(4))


def test_empty_maps_are_counted_and_left_out():
    weights = [pixel_weights_masks(torch.tensor([[1, 2]]), 2)] * 2
    maps = torch.tensor([[[[0.0, -1.0]]], [[[1.0, 0.0]]]])
    result = measure(maps, weights, ("a", "b"))
    assert result.empty_maps == (1,)
    assert result.histogram[0] == (1.0, 0.0)
    assert result.value == 0
    # resamples without the second image have no figure
    assert result.interval.undefined > 100


def test_dead_features_and_features_without_relevance_are_left_out_with_a_warning():
    weights = [pixel_weights_masks(torch.tensor([[1, 2]]), 2)]
    maps = torch.tensor([[[[1.0, 1.0]], [[1.0, 0.0]], [[-1.0, 0.0]]]])
    with pytest.warns(XNNWarning, match=r"1 dead x-feature\(s\) and 1 without"):
        result = measure(maps, weights, ("a", "b"), dead=(1,))
    assert result.alive == 1
    assert result.value == pytest.approx(math.log(2))
    assert math.isnan(result.per_feature[1])
    assert math.isnan(result.per_feature[2])


def test_no_alive_feature_has_no_locality():
    weights = [pixel_weights_masks(torch.tensor([[0, 1]]), 1)] * 2
    with pytest.warns(XNNWarning):
        result = measure(-torch.ones(2, 1, 1, 2), weights, ("a",))
    assert math.isnan(result.value)
    assert math.isnan(result.interval.low)
    assert math.isnan(result.void_share)
    assert result.alive == 0


def test_context_can_be_left_out():
    weights = pixel_weights_voronoi(parts_of([0, 0, 1], [1, 0, 1]), box_of(0, 0, 2, 1), (1, 12))
    histograms = RelevanceHistograms(1, ("a", "b", CONTEXT))
    histograms.update(torch.ones(1, 1, 1, 12), [weights])
    # 1/12, 1/12, 10/12: most of a uniform map is context, which reads as very local
    assert histograms.result().chance < math.log(2)
    without = histograms.result(without=(CONTEXT,))
    assert without.value == without.chance == pytest.approx(math.log(2))
    assert len(without.histogram[0]) == 3
    with pytest.raises(DataError, match="no part 'sky'"):
        histograms.result(without=("sky",))


def test_interval_is_the_literal_bootstrap():
    scenes = [random_scene(i) for i in range(5)]
    weights = [pixel_weights_voronoi(parts, box, (7, 9)) for parts, box, _ in scenes]
    maps = torch.rand(5, 2, 7, 9, generator=scenes[0][2], dtype=torch.float64)
    histograms = RelevanceHistograms(2, ("a", "b", "c", "d", CONTEXT))
    histograms.update(maps, weights)
    result = histograms.result(resamples=40, seed=3)
    values = []
    for counts in bootstrap_counts(5, 40, 3).long():
        drawn = torch.arange(5).repeat_interleave(counts)
        again = RelevanceHistograms(2, histograms.names)
        again.update(maps[drawn], [weights[i] for i in drawn.tolist()])
        values.append(again.result(resamples=1).value)
    edges = torch.quantile(
        torch.tensor(values, dtype=torch.float64), torch.tensor([0.025, 0.975]).double()
    )
    assert (result.interval.low, result.interval.high) == pytest.approx(tuple(edges.tolist()))
    assert histograms.result(resamples=40, seed=3) == result
    assert histograms.result(resamples=40, seed=4).interval != result.interval


def test_bootstrap_in_pieces_equals_bootstrap_at_once(monkeypatch):
    scenes = [random_scene(i) for i in range(4)]
    weights = [pixel_weights_voronoi(parts, box, (7, 9)) for parts, box, _ in scenes]
    maps = torch.rand(4, 2, 7, 9)
    names = ("a", "b", "c", "d", CONTEXT)
    once = measure(maps, weights, names, resamples=30)
    monkeypatch.setattr("torchxnn.metrics.locality._RESAMPLED_VALUES", 1)
    pieces = measure(maps, weights, names, resamples=30)
    assert pieces.interval.low == pytest.approx(once.interval.low)
    assert pieces.interval.high == pytest.approx(once.interval.high)


def test_one_image_has_no_interval():
    weights = [pixel_weights_masks(torch.tensor([[1, 2]]), 2)]
    result = measure(torch.ones(1, 1, 1, 2), weights, ("a", "b"))
    assert math.isnan(result.interval.low)
    assert math.isnan(result.interval.high)


def test_per_image_histograms_and_json():
    weights = [pixel_weights_masks(torch.tensor([[1, 2]]), 2)] * 2
    histograms = RelevanceHistograms(1, ("a", "b"))
    histograms.update(torch.tensor([[[[1.0, 3.0]]], [[[1.0, 0.0]]]]), weights)
    assert histograms.per_image().tolist() == [[[0.25, 0.75]], [[1.0, 0.0]]]
    assert json.loads(json.dumps(asdict(histograms.result())))["names"] == ["a", "b"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pixel_weights_points(parts_of([4, 0, 1]), (4, 4)), r"part 0 lies at \(4.0, 0.0\)"),
        (lambda: pixel_weights_points(parts_of([0, -1, 1]), (4, 4)), "outside the image"),
        (
            lambda: pixel_weights_voronoi(parts_of([0, 0, 1]), box_of(0, 0, -1, 2), (4, 4)),
            "negative width",
        ),
        (lambda: pixel_weights_masks(torch.tensor([[0, 4]]), 3), "0 to 3, got 4"),
        (lambda: pixel_weights_masks(torch.tensor([[-1, 2]]), 3), "0 to 3, got -1"),
        (lambda: RelevanceHistograms(2, ()), "names of at least one"),
        (lambda: RelevanceHistograms(2, ("a",)).result(), "no heatmaps were given"),
    ],
)
def test_bad_input_is_an_error(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_non_finite_input_is_an_error():
    nan = float("nan")
    with pytest.raises(NonFiniteError, match="part location"):
        pixel_weights_points(parts_of([nan, 0, 1]), (4, 4))
    with pytest.raises(NonFiniteError, match="bounding box"):
        pixel_weights_voronoi(parts_of([0, 0, 1]), box_of(0, 0, nan, 1), (4, 4))
    weights = [pixel_weights_masks(torch.ones(1, 2, dtype=torch.long), 1)]
    for value in (nan, math.inf, -math.inf):
        with pytest.raises(NonFiniteError, match="heatmap"):
            RelevanceHistograms(1, ("a",)).update(torch.tensor([[[[1.0, value]]]]), weights)


def test_large_finite_maps_are_not_taken_for_infinite_ones():
    weights = [pixel_weights_masks(torch.tensor([[1, 2]]), 2)]
    maps = torch.tensor([[[[1e308, 1e308]], [[1e308, 0.0]]]], dtype=torch.float64)
    RelevanceHistograms(2, ("a", "b")).update(maps / 4, weights)


def test_mismatched_input_is_an_error():
    weights = pixel_weights_masks(torch.ones(2, 2, dtype=torch.long), 1)
    histograms = RelevanceHistograms(1, ("a",))
    with pytest.raises(DataError, match="of 1 images and pixel weights of 2"):
        histograms.update(torch.ones(1, 1, 2, 2), [weights, weights])
    with pytest.raises(DataError, match="expected maps of 1 x-features, got 2"):
        histograms.update(torch.ones(1, 2, 2, 2), [weights])
    with pytest.raises(DataError, match="2 x 2 pixels and heatmaps of 4 x 1"):
        histograms.update(torch.ones(1, 1, 4, 1), [weights])
    with pytest.raises(DataError, match="1 parts, but 2 have a name"):
        RelevanceHistograms(1, ("a", "b")).update(torch.ones(1, 1, 2, 2), [weights])
    histograms.update(torch.ones(1, 1, 2, 2), [weights])
    with pytest.raises(DataError, match="no x-feature 1 among 1"):
        histograms.result(dead=(1,))
