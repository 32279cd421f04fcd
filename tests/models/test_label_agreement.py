import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchxnn.models.label_agreement import ENOUGH_IMAGES, label_agreement

indices = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(indices)
def test_chance_is_the_agreement_of_all_pairs(pairs):
    predicted, labels = torch.tensor(pairs).T
    found = label_agreement(predicted, labels, 4)
    every = (predicted.unsqueeze(1) == labels).double().mean()
    assert abs(found.chance - float(every)) < 1e-12
    assert found.agreeing == sum(one == other for one, other in pairs)
    assert not found.near_chance  # too few images to say so


def test_near_chance_takes_many_images_and_no_agreement():
    labels = torch.arange(ENOUGH_IMAGES) % 10
    shifted, constant, half = (labels + 1) % 10, torch.zeros_like(labels), labels.clone()
    half[::2] = shifted[::2]
    near = [label_agreement(each, labels, 10).near_chance for each in (shifted, constant, half)]
    assert near == [True, True, False]
    text = "the model predicts the label of 0% of 50 image(s) (chance 10%)"
    assert label_agreement(shifted, labels, 10).text == text
    assert not label_agreement(shifted[:-1], labels[:-1], 10).near_chance


def test_a_single_logit_tells_two_classes_apart():
    labels = torch.arange(60) % 2
    assert label_agreement(labels, labels, 1).doubt == ""
    assert "order of the classes" in label_agreement(1 - labels, labels, 1).doubt


def test_labels_that_are_no_class_are_named():
    labels = torch.arange(8) % 4
    found = label_agreement(labels, labels + 1, 4)
    assert (found.foreign, found.share) == (2, 0.0)
    assert found.doubt.startswith("2 of 8 labels are no class of the model")


def test_classes_in_another_order_are_seen_though_some_are_in_place():
    labels = torch.arange(96) % 12
    natural = [f"class_{k}" for k in range(12)]
    order = torch.tensor([sorted(natural).index(name) for name in natural])
    found = label_agreement(labels, order[labels], 12)
    assert not found.near_chance
    assert len(found.displaced) == 10
    assert "17% of 96" in found.doubt
    assert "10 classes" in found.doubt
    assert "label 2 as 10, " in found.doubt


@pytest.mark.parametrize("most", [[0, 0, 0, 0], [0, 1, 3, 3], [1, 1, 1, 3]])
def test_classes_that_are_taken_for_others_are_not_displaced(most):
    labels = torch.arange(80) % 4
    found = label_agreement(torch.tensor(most)[labels], labels, 4)
    assert found.displaced == ()
