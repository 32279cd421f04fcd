from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch

from conftest import SmallNet
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.layers import record_layers
from torchxnn.models.outputs import (
    as_logits,
    check_class_names,
    check_targets,
    class_margins,
    class_of_target,
    class_probabilities,
    count_classes,
    predicted_classes,
)

SINGLE = torch.tensor([[2.0], [-1.0], [0.0]])
SEVERAL = torch.tensor([[1.0, 4.0, 3.0], [0.5, 0.0, -2.0]])


def test_outputs_that_are_not_logits_are_refused(images):
    class Maps(SmallNet):
        def forward(self, x):
            self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
            return self.features(x)

    with pytest.raises(DataError, match="logits"):
        record_layers(Maps(), ["classifier.1"], images[:2])


def test_a_single_logit_without_dimension_becomes_a_column(images):
    class Flat(SmallNet):
        def forward(self, x):
            return super().forward(x)[:, 0]

    assert record_layers(Flat(), ["classifier.1"], images[:2])[1].shape == (2, 1)


def test_a_single_logit_speaks_for_class_1_of_two():
    assert count_classes(1) == count_classes(2) == 2
    assert class_of_target(0, 1) == 1
    assert predicted_classes(SINGLE).tolist() == [1, 0, 0]
    assert torch.equal(class_probabilities(SINGLE), SINGLE.sigmoid())
    assert class_margins(SINGLE).tolist() == [2.0, 1.0, 0.0]


def test_two_logits_say_what_their_difference_as_a_single_one_says():
    """The known limit: softmax over (0, x) is the sigmoid of x."""
    both = torch.cat([torch.zeros_like(SINGLE), SINGLE], 1)
    assert torch.equal(predicted_classes(both), predicted_classes(SINGLE))
    assert torch.allclose(class_probabilities(both)[:, 1:], class_probabilities(SINGLE))
    assert torch.equal(class_margins(both), class_margins(SINGLE))


def test_the_largest_of_several_logits_counts():
    assert count_classes(3) == 3
    assert class_of_target(2, 3) == class_of_target(2, None) == 2
    assert predicted_classes(SEVERAL).tolist() == [1, 0]
    assert class_margins(SEVERAL).tolist() == [1.0, 0.5]


@pytest.mark.parametrize("wrong", [-1, 3])
def test_targets_without_an_output_are_named(wrong):
    check_targets([0, 2], 3)
    with pytest.raises(DataError, match=rf"target {wrong} is out of range: .* so 0 to 2"):
        check_targets([0, wrong], 3)


def test_a_second_class_of_a_single_logit_is_no_output():
    with pytest.raises(DataError, match="output 0 speaks for class 1"):
        check_targets([1], 1)


def test_class_names_are_as_many_as_classes():
    for names, outputs in ((None, 4), ("abcd", 4), ("no", 1), (["age"], 1)):
        check_class_names(names, outputs)
    for names, outputs in (("abc", 4), ("abcde", 4), ("abc", 1), ((), 1)):
        with pytest.raises(DataError, match=f"{len(names)} class name.* and {outputs} output"):
            check_class_names(names, outputs)


LOGITS = torch.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"loss": None, "logits": LOGITS},
        OrderedDict(logits=LOGITS, hidden_states=(LOGITS,)),
        SimpleNamespace(logits=LOGITS, loss=torch.zeros(())),
        (LOGITS, None),
        [LOGITS, torch.rand(3, 8, 2, 2)],
        (LOGITS, LOGITS + 1),  # as Inception's auxiliary logits
    ],
)
def test_logits_are_found_in_what_a_model_returns(output):
    assert torch.equal(as_logits(output), LOGITS)


@pytest.mark.parametrize("output", [LOGITS[0], {"logits": LOGITS[0]}])
def test_a_named_single_logit_becomes_a_column(output):
    assert torch.equal(as_logits(output), LOGITS[0][:, None])


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ((), "a tuple of nothing"),
        (None, "a NoneType"),
        ((torch.tensor(0.3), LOGITS), r"a tuple of \(\), \(3, 4\)"),  # a loss comes first
        ((LOGITS[0], LOGITS), r"a tuple of \(4,\), \(3, 4\)"),
        ({"out": LOGITS}, r"a dict of out \(3, 4\)"),
        ({"logits": LOGITS[None]}, r"a dict of logits \(1, 3, 4\)"),
        (SimpleNamespace(last_hidden_state=LOGITS), "a SimpleNamespace"),
        ([LOGITS[None]] * 7, r"a list of \(1, 3, 4\), .*, \.\.\.;"),
    ],
)
def test_what_holds_no_logits_is_named(output, what):
    with pytest.raises(DataError, match=f"it returns {what}.* forward returns its logits alone"):
        as_logits(output)


def test_complex_numbers_are_no_logits():
    with pytest.raises(DataError, match=r"complex numbers, which are no logits; .*\.real"):
        as_logits(LOGITS.to(torch.complex64))


def test_features_before_the_logits_give_a_warning():
    with pytest.warns(XNNWarning, match="k of 24, 4: the first counts as its 24 logits; if it is"):
        as_logits((torch.ones(3, 24), LOGITS))


def test_tensors_of_which_any_may_be_the_logits_are_named():
    with pytest.warns(XNNWarning, match="k of 4, 2: the first counts as its 4 logits"):
        assert torch.equal(as_logits((LOGITS, LOGITS[:, :2])), LOGITS)
