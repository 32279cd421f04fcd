import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import make_images, make_net
from torchxnn.data.examined import agreement_with_labels
from torchxnn.data.labels import class_indices
from torchxnn.data.record import record_activations
from torchxnn.errors import DataError

TYPES = (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.float64)


@given(st.lists(st.integers(0, 200), min_size=1), st.sampled_from(TYPES))
def test_whole_numbers_of_every_type_are_class_indices(labels, dtype):
    wanted = [int(bool(label)) for label in labels] if dtype == torch.bool else labels
    found = class_indices(torch.tensor(labels, dtype=dtype))
    assert (found.tolist(), found.dtype) == (wanted, torch.int64)


@pytest.mark.parametrize("value", [0.5, 2.25, float("inf")])
def test_measured_values_are_refused_by_name(value):
    images, labels = make_images(4)
    measured = labels.float()
    measured[2] = value
    with pytest.raises(DataError, match=f"label {value:.4g} is no class index"):
        record_activations(make_net(), "classifier.1", [(images, measured)])


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_labels_of_minus_one_and_one_are_refused(dtype):
    images, labels = make_images(20)
    signs = (2 * (labels % 2) - 1).to(dtype)
    with pytest.raises(DataError, match="labels are -1 and 1: give 0 and 1"):
        record_activations(make_net(1), "classifier.1", [(images, signs)])


def test_labels_of_classes_that_are_nan_are_not_known():
    images, labels = make_images(20)
    known = labels.float()
    known[:3] = float("nan")
    found = record_activations(make_net(), "classifier.1", [(images, known)])
    assert found.labels.tolist() == [-1, -1, -1, *labels[3:].tolist()]
    agreement = agreement_with_labels(found)
    assert (agreement.images, agreement.foreign) == (17, 0)
