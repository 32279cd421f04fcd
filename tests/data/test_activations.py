import pytest
import torch

from conftest import make_images, make_net
from torchxnn.data.activations import Activations, split_batch
from torchxnn.data.record import record_activations
from torchxnn.errors import DataError, NonFiniteError


def test_recording_in_batches_equals_one_pass():
    net, (images, labels) = make_net(), make_images(10)
    seen = []
    data = record_activations(
        net, "classifier.1", zip(images.split(4), labels.split(4), strict=True), seen.append
    )
    assert seen == [4, 4, 2]
    with torch.no_grad():
        z = net.classifier[:2](torch.flatten(net.avgpool(net.features(images)), 1))
        assert torch.allclose(data.z, z, atol=1e-6)
        assert torch.allclose(data.logits, net(images), atol=1e-6)
    assert torch.equal(data.labels, labels)
    assert len(data) == 10


def test_images_alone_have_no_labels():
    data = record_activations(make_net(), "classifier.1", [make_images(3)[0]])
    assert data.labels is None
    assert data.select(torch.tensor([0, 2])).labels is None


def test_select_keeps_rows_together():
    data = Activations(torch.rand(5, 2), torch.rand(5, 3), torch.arange(5))
    part = data.select(torch.tensor([True, False, True, False, False]))
    assert part.labels.tolist() == [0, 2]
    assert torch.equal(part.z[1], data.z[2])


def test_pooled_layers_are_flattened():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    data = record_activations(net, "1", [torch.rand(2, 3, 5, 5)])
    assert data.z.shape == (2, 8)


def test_batches_that_are_no_images_are_refused():
    for batch in ("text", (1, 2), {"x": 1}, (torch.zeros(2, 3), "labels")):
        with pytest.raises(DataError, match="loader must yield"):
            split_batch(batch)


def test_overflow_in_the_logits_is_named():
    net = make_net()
    net.classifier[3].weight.data.mul_(torch.finfo(torch.float32).max)
    with pytest.raises(NonFiniteError, match="outputs"):
        record_activations(net, "classifier.1", [make_images(3)[0]])


def test_single_images_are_examined_two_at_a_time():
    seen = []
    images, _ = make_images(3)
    record_activations(make_net(), "classifier.1", images.split(1), on_first=seen.append)
    record_activations(make_net(), "classifier.1", [images], on_first=seen.append)
    other = [images[:1], torch.rand(1, 3, 16, 16)]
    record_activations(make_net(), "classifier.1", other, on_first=seen.append)
    assert [len(few) for few in seen] == [2, 3, 1]
    assert torch.equal(seen[0], images[:2])


def test_images_without_values_are_refused():
    with pytest.raises(DataError, match="rows 0 to 1: the images are on the device meta"):
        record_activations(make_net(), "classifier.1", [torch.zeros(2, 3, 12, 12, device="meta")])
