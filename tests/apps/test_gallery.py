import io

import numpy as np
import pytest
import torch
from PIL import Image

from torchxnn.apps.gallery import (
    FeatureImages,
    choose_examples,
    choose_for_feature,
    choose_typical,
    evenly_spaced,
    largest,
    ranked,
)
from torchxnn.explanations.drawing.encode import encode, shrink

COUNTS = 3, 3, 3
ACTIVATION = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.0])
ALL = torch.ones(6, dtype=torch.bool)
SOME = torch.tensor([True, False, True, True, False, False])


def choose(activation, contribution, positives=ALL, predicted=ALL, repeat=False):
    return choose_for_feature(activation, contribution, positives, predicted, COUNTS, repeat=repeat)


def test_evenly_spaced_keeps_the_ends():
    assert evenly_spaced([1, 2, 3], None) == [1, 2, 3]
    assert evenly_spaced(range(10), 4) == [0, 3, 6, 9]
    assert evenly_spaced("abc", 1) == ["a"]
    assert evenly_spaced([1, 2, 3], 0) == evenly_spaced([], 3) == []


def test_examples_are_spaced_positives_and_the_nearest_other_image():
    logits = torch.tensor([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0])
    positives = torch.tensor([True, True, True, True, True, False, False])
    assert choose_examples(logits, positives, 4) == (0, 2, 4, 5)
    assert choose_examples(logits, positives, 1) == (0,)
    assert choose_examples(logits, positives, 0) == ()
    assert choose_examples(logits, positives, 20) == (0, 1, 2, 3, 4, 5)
    assert choose_examples(torch.tensor([1.0, 2.0]), torch.tensor([True, True]), 3) == (1, 0)


def test_the_typical_image_is_recognised_if_any_is():
    assert choose_typical(ACTIVATION, ALL, SOME) == 2
    assert choose_typical(ACTIVATION, ~SOME, SOME) == 4


def test_largest_are_by_value_and_never_inactive():
    activations = torch.tensor([0.0, 3.0, 1.0, 0.0, 2.0])
    assert largest(activations, 2) == (1, 4)
    assert largest(activations, 5) == (1, 4, 2)
    assert largest(activations, 5, activations < 3) == (4, 2)
    assert largest(torch.zeros(3), 2) == ()
    assert largest(torch.tensor([float("nan"), 1.0]), 2) == (1,)


def test_equal_values_keep_the_order_of_the_data():
    same = torch.ones(200)
    assert ranked(same) == tuple(range(200))
    assert largest(same, 3) == (0, 1, 2)
    assert choose_examples(same, same > 0, 2) == (0, 199)


def test_images_of_an_x_feature_by_hand():
    found = choose(ACTIVATION, ACTIVATION)
    assert found == FeatureImages(top=(0, 1, 2), spaced=(3, 4), against=())
    assert choose(ACTIVATION, ACTIVATION, repeat=True).spaced == (0, 2, 4)
    assert choose(ACTIVATION, ACTIVATION, positives=SOME).spaced == (3,)
    assert choose(ACTIVATION, ACTIVATION, positives=SOME, repeat=True).spaced == (0, 2, 3)
    assert choose(ACTIVATION, ACTIVATION, predicted=SOME, repeat=True).against == (1, 4)
    assert choose(ACTIVATION, -ACTIVATION, predicted=SOME, repeat=True).against == (0, 2, 3)
    assert choose(ACTIVATION, ACTIVATION, SOME, SOME).against == (4,)
    assert choose(ACTIVATION, -ACTIVATION, ~SOME, SOME).against == (3,)
    assert choose(0 * ACTIVATION, ACTIVATION) == FeatureImages((), (), ())


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_encoded_images_keep_their_proportions(kind):
    pixels = np.full((40, 80, 3), 200, np.uint8)
    image = Image.open(io.BytesIO(encode(pixels, 80, 20, kind)))
    assert (image.format, image.size) == (kind.upper(), (20, 10))
    assert Image.open(io.BytesIO(encode(pixels, 80))).size == (80, 40)
    assert shrink(pixels, 80) is pixels
