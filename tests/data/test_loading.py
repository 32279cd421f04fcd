"""What loaders yield: by position, by name, and what is refused because it leaves a doubt."""

from collections import UserDict

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from conftest import make_images, make_net
from torchxnn import XNN
from torchxnn.data.activations import split_batch
from torchxnn.data.labels import settle
from torchxnn.data.loading import read_batches
from torchxnn.data.ordered_images import stack_samples
from torchxnn.data.record import cache_activations, record_activations
from torchxnn.errors import DataError
from torchxnn.models.config import OutputsConfig
from xnn_examples import make_loader, quick_fit

X, Y = torch.rand(4, 3, 8, 8), torch.tensor([0, 2, 1, 1])


@pytest.mark.parametrize(
    "batch",
    [
        (X, Y),
        [X, Y, ["a", "b", "c", "d"], torch.rand(4, 7)],
        {"pixel_values": X, "labels": Y},
        UserDict(image=X, label=Y, path=list("abcd"), index=torch.arange(4)),
        {"images": X, "targets": Y},
        {"inputs": X, "target": Y, "label": None},
        {"x": X, "y": Y},
        {"image": ["a file"], "pixel_values": X, "label": Y, "labels": Y},
    ],
)
def test_images_and_labels_are_found(batch):
    images, labels = split_batch(batch)
    assert images is X
    assert torch.equal(labels, Y)


HOT = torch.eye(3)[Y]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (Y.tolist(), Y),
        (tuple(Y.tolist()), Y),
        (Y.numpy().astype(np.uint8), Y),
        (list(Y), Y),
        (list(Y.numpy()), Y),
        (HOT, HOT),
        (HOT.tolist(), HOT),
        (HOT.double().numpy(), HOT),
        (list(HOT), HOT),
        (list(HOT.T), HOT),
        (Y.reshape(4, 1, 1), Y),
        (Y.float().tolist(), Y.float()),
    ],
    ids=range(12),
)
def test_labels_come_in_any_form(labels, wanted):
    for batch in ((X, labels), {"x": X, "label": labels}, (X.numpy(), labels)):
        images, found = split_batch(batch)
        assert torch.equal(images, X)
        assert torch.equal(found, wanted.long() if found.dtype == torch.int64 else wanted)
        assert found.is_floating_point() == wanted.is_floating_point()


@pytest.mark.parametrize("labels", [list("abca"), np.array(list("abca")), [0, [1], 2, 2]])
def test_labels_that_are_words_are_refused_by_name(labels):
    with pytest.raises(DataError, match=r"labels of shape \(B,\) .* it yields tuple of Tensor"):
        split_batch((X, labels))


@pytest.mark.parametrize("rows", [torch.eye(2), torch.eye(2).long()])
def test_one_hot_rows_for_a_single_logit_are_its_two_classes(rows):
    labels, meaning = settle(rows[torch.tensor([0, 1, 1])], 1, OutputsConfig())
    assert labels.tolist() == [0, 1, 1]
    assert meaning.outputs_are == "classes"


def test_one_hot_rows_are_classes_all_the_way():
    images, labels = make_images(32)
    net = make_net()
    plain = record_activations(net, "classifier.1", [(images, labels)])
    for form in (torch.eye(4)[labels], torch.eye(4)[labels].tolist(), labels.tolist()):
        found = record_activations(net, "classifier.1", [(images, form)])
        assert torch.equal(found.labels, plain.labels)
        assert found.meaning == plain.meaning


@pytest.mark.parametrize("batch", [X, [X], (X, None), {"img": X}, {"x": X, "label": None}])
def test_labels_may_be_missing(batch):
    images, labels = split_batch(batch)
    assert images is X
    assert labels is None


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"scan": X, "labels": Y}, r"under one of pixel_values, .* with scan \(\[4, 3, 8, 8\]\)"),
        ({}, "it yields a dict with nothing"),
        ({"image": [X], "label": Y}, r"a dict with image \(list\), label \(\[4\]\)"),
        ({"image": X, "x": 2 * X}, "hold 'image' and 'x', which may all be the images"),
        ({"x": X, "label": Y, "target": Y + 1}, "'label' and 'target', .* be the labels"),
        ({"x": X, "label": ["cat"] * 4}, r"'label' of .* \(list\) is not read as labels"),
        ({"x": X, "fine_label": Y}, r"'fine_label' .* under one of labels, label"),
        ({"x": X, "class_id": Y}, "'class_id' .* or leave it out"),
        ({"pixel_values": X, "pixel_mask": X}, "a second input of the model, 'pixel_mask'"),
        ((X, X, Y), r"labels must be \(B,\), .* got \(4, 3, 8, 8\)"),
        ({"x": X, "y": Y[:3]}, "4 images with 3 labels"),
    ],
)
def test_doubts_are_refused_by_name(batch, message):
    with pytest.raises(DataError, match=message):
        split_batch(batch)


def by_name(loader):
    return [{"pixel_values": images, "labels": labels, "id": 7} for images, labels in loader]


def test_mappings_fit_and_measure_as_pairs_do():
    results = []
    for loader in (make_loader(), by_name(make_loader())):
        xnn = XNN(make_net(), layer="classifier.1")
        report = quick_fit(xnn, loader, 1)
        results.append((report.train.r2, xnn.evaluate(loader, maps=False)))
    assert results[0] == results[1]
    assert results[1][1].positives_by == "label"


class Named(torch.utils.data.Dataset):
    """Samples by name, as data sets of Hugging Face give them."""

    def __init__(self, count):
        self.images, self.labels = make_images(count)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        return {"pixel_values": self.images[row], "label": int(self.labels[row])}


def test_caches_are_recorded_from_samples_by_name(tmp_path):
    net, named = make_net(), Named(10)
    direct = record_activations(net, "classifier.1", [(named.images, named.labels)])
    for place, data in enumerate((named, DataLoader(named, batch_size=4))):
        cache = cache_activations(net, "classifier.1", data, tmp_path / str(place))
        assert torch.equal(cache.activations("classifier.1").labels, named.labels)
        assert torch.allclose(cache.read("classifier.1"), direct.z, atol=1e-6)


def test_samples_by_name_without_images_are_named():
    with pytest.raises(DataError, match=r"with scan \(\[3, 8, 8\]\)"):
        stack_samples([{"scan": X[0]}])


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (X, r"one tensor \(4, 3, 8, 8\); give a list of batches"),
        (object(), "an? object, which yields no batches; .* train_dataloader"),
    ],
)
def test_what_is_no_loader_is_refused(loader, message):
    with pytest.raises(DataError, match=message):
        list(read_batches(loader))
