import gc
import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.colors import to_hex

from explanation_examples import HOSTILE, explanation, peak, photograph
from torchxnn.explanations.drawing import overlay as viz
from torchxnn.explanations.drawing.canvas import drawable
from torchxnn.explanations.drawing.figure import draw_card

maps = arrays(np.float64, (9, 12), elements=st.floats(-1, 1, width=32))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (6.314, "+6.31"),
        (-0.42, "\N{MINUS SIGN}0.42"),
        (0.0, "0"),
        (-0.0, "0"),
        (0.0034, "+0.003"),
        (-4e-5, "≈0"),
        (123.456, "+123.5"),
        (float("nan"), "nan"),
    ],
)
def test_signs_are_written_out(value, text):
    assert viz.signed(value) == text


def test_numbers_have_no_plus():
    assert viz.number(2.0) == "2.00"
    assert viz.number(-2.0) == "\N{MINUS SIGN}2.00"


def luminance(colour):
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("colour", [viz.POSITIVE, viz.NEGATIVE, viz.INK, viz.MUTED, viz.WARNING])
def test_text_colours_reach_contrast_aa_on_white(colour):
    assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_smoothing_by_hand_keeps_the_sum_and_matches_a_literal_convolution():
    heatmap = np.zeros((15, 17))
    heatmap[7, 8] = 2.0
    result = viz.smooth(heatmap, 1.0)
    weights = np.exp(-0.5 * np.arange(-3, 4) ** 2)
    weights /= weights.sum()
    assert result.sum() == pytest.approx(2.0)
    np.testing.assert_allclose(result[4:11, 5:12], 2 * np.outer(weights, weights), atol=1e-12)


def test_no_blur_changes_nothing():
    heatmap = peak()
    np.testing.assert_array_equal(viz.smooth(heatmap, 0.0), heatmap)


@given(maps, maps, st.sampled_from(["each", "shared"]))
def test_intensities_lie_in_the_unit_interval(a, b, scale):
    for intensity in viz.intensities([a, b], scale):
        assert intensity.min() >= 0
        assert intensity.max() <= 1


@given(maps, st.floats(0.01, 100))
def test_own_scale_does_not_depend_on_the_size_of_the_map_nor_on_negative_values(a, factor):
    (one,) = viz.intensities([a])
    (other,) = viz.intensities([factor * np.maximum(a, 0)])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_shared_scale_keeps_the_proportion_and_own_scale_does_not():
    big, small = peak(), 0.25 * peak()
    shared = viz.intensities([big, small], "shared", percentile=100.0)
    assert shared[0].max() == pytest.approx(1)
    assert shared[1].max() == pytest.approx(0.25)
    assert viz.intensities([big, small], "each", percentile=100.0)[1].max() == pytest.approx(1)


def test_maps_that_cannot_be_drawn_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        viz.intensities([np.full((4, 4), np.nan)])
    unchecked = getattr(viz.intensities, "__wrapped__", viz.intensities)
    with pytest.raises(ValueError, match="neither"):
        unchecked([peak()], "neither")


def test_overlay_leaves_cold_pixels_grey_and_turns_hot_ones_bright():
    intensity = np.zeros((40, 40))
    intensity[10, 10] = 1.0
    result = viz.overlay(photograph(), intensity).astype(int)
    cold = result[0, 0]
    assert cold.max() == cold.min()
    hot = result[10, 10]
    assert hot[0] > 200
    assert hot[1] > 200
    assert hot[2] < hot[0]


def test_overlay_colours_grow_lighter_steadily():
    steps = [luminance(to_hex(colour)) for colour in viz._colours()[::16]]
    assert steps == sorted(steps)
    assert steps[-1] > 5 * steps[0]


def test_cutout_shows_the_fewest_pixels_that_hold_the_share():
    heatmap = np.zeros((10, 10))
    heatmap[2:5, 2:5] = 1.0
    heatmap[7, 7] = 0.5
    picture = photograph(10, 10)
    result = viz.cutout(picture, heatmap, share=0.9, blur=0.0)
    np.testing.assert_array_equal(result[3, 3], picture[3, 3])  # inside
    assert result[2, 2].max() == 33  # outline
    assert result[7, 7].max() == result[7, 7].min()  # outside: grey
    everything = viz.cutout(picture, heatmap, share=1.0, blur=0.0)
    assert everything[7, 7].max() == 33


@pytest.mark.parametrize("heatmap", [np.zeros((8, 8)), -np.ones((8, 8))])
def test_a_map_without_positive_relevance_is_all_grey(heatmap):
    (intensity,) = viz.intensities([heatmap])
    for result in (viz.overlay(photograph(8, 8), intensity), viz.cutout(photograph(8, 8), heatmap)):
        assert np.ptp(result, axis=-1).max() == 0


def texts(figure):
    return [text.get_text() for text in figure.texts]


def colours(figure):
    return {text.get_text(): to_hex(text.get_color()) for text in figure.texts}


def test_figure_shows_contributions_in_order_with_signs_and_colours():
    figure = explanation().plot()
    shown = [t for t in texts(figure) if t[0] in "+\N{MINUS SIGN}"]
    assert shown == ["\N{MINUS SIGN}2.00", "+1.00", "+0.50", "\N{MINUS SIGN}0.15"]  # last: logit
    assert colours(figure)["\N{MINUS SIGN}2.00"] == viz.NEGATIVE
    assert colours(figure)["+1.00"] == viz.POSITIVE
    names = [t for t in texts(figure) if t.startswith("x-feature")]
    assert names == ["x-feature 2", "x-feature 1", "x-feature 3"]


def test_figure_names_logits_certificate_and_scale():
    for scale, words in (("each", "own colour scale"), ("shared", "share one colour scale")):
        said = " ".join(texts(explanation().plot(scale=scale)))
        assert words in said
        assert "smoothed for drawing only" in said
        assert "99.5th percentile" in said
        assert "half of the positive part after twice that smoothing" in said
        assert ("the logit's has its own" in said) == (scale == "shared")
        assert "the network gives \N{MINUS SIGN}0.15" in said
        assert "reproduce \N{MINUS SIGN}0.25" in said
        assert "F_reg 0.2" in said
        assert "conservation error 3.0e-07" in said
        assert "3 of 3 active, 0 dead" in said
        assert "Predicted: bird 4" in said
        assert "True class: bird 4" in said


def test_inactive_features_are_greyed_with_a_note():
    figure = explanation(((1.0, 0.0, -3.0),)).plot()
    assert texts(figure).count("inactive here") == 1
    assert "inactive here" not in texts(explanation().plot())


def test_figure_with_several_targets_has_a_row_for_each():
    figure = explanation(((1.0, -2.0), (3.0, 0.5), (0.0, 4.0))).plot()
    for text in ("+1.00", "\N{MINUS SIGN}2.00", "+3.00", "+0.50", "+4.00", "bird 4", "bird 5"):
        assert text in texts(figure)
    one = explanation(((1.0, -2.0), (3.0, 0.5))).plot(target=5)
    assert "+3.00" in texts(one)
    assert "\N{MINUS SIGN}2.00" not in texts(one)


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("size", [(40, 40), (30, 90), (90, 20)])
def test_any_number_of_features_and_shape_of_picture_can_be_drawn(n, size):
    values = (tuple(float(i - n / 2) for i in range(n)),)
    figure = explanation(values, size=size).plot()
    width, height = figure.get_size_inches()
    boxes = [axes.get_position() for axes in figure.axes]
    assert len(boxes) >= 2 * n + 3
    assert all(b.x0 >= 0 and b.x1 <= 1 and b.y0 >= 0 and b.y1 <= 1 for b in boxes)
    assert 3 < width < 40
    assert 3 < height < 20


def test_text_stays_on_the_page(tmp_path):
    names = tuple(f"a very long name of a concept, number {i}" for i in range(3))
    example = explanation(feature_names=names, path="folder/" * 60 + "picture.jpg")
    figure = example.plot()
    figure.savefig(tmp_path / "figure.png")
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert box.y0 >= 0
        assert box.y1 <= figure.bbox.y1


def test_hostile_names_are_drawn_as_text_without_a_warning(tmp_path):
    example = explanation(target_names=(HOSTILE,), predicted_name=HOSTILE, path=HOSTILE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        example.plot().savefig(tmp_path / "figure.png")
    assert drawable("a\x07") == "a?"


def test_no_figure_is_left_behind():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    figures = [weakref.ref(explanation(((1.0,),)).plot()) for _ in range(2)]
    assert pyplot.get_fignums() == before
    gc.collect()
    assert [figure() for figure in figures] == [None, None]


def test_the_card_is_all_that_a_drawing_needs():
    card = replace(explanation().card(), sentence="Because I say so")
    assert texts(draw_card(card))[0] == "Because I say so"
