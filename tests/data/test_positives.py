import torch

from conftest import make_images, make_net
from torchxnn.data.activations import Activations
from torchxnn.data.positives import find_positives, sample_classes, split_validation
from torchxnn.data.record import cache_activations

Z = torch.zeros(8, 2)
LABELS = torch.tensor([0, 1, 1, 2, 0, 1, 2, 0])
LOGITS = torch.eye(3)[LABELS.roll(1)]
SINGLE = torch.tensor([[1.0], [-1.0]] * 4)


def test_positives_by_label_by_prediction_and_of_a_single_logit():
    mask, by = find_positives(Activations(Z, LOGITS, LABELS), [1])
    assert (mask[:, 0].tolist(), by) == ((LABELS == 1).tolist(), "label")
    mask, by = find_positives(Activations(Z, LOGITS, None), [1, 0])
    assert (mask[:, 0].tolist(), by) == ((LABELS.roll(1) == 1).tolist(), "prediction")
    assert torch.equal(mask[:, 1], LABELS.roll(1) == 0)
    mask, by = find_positives(Activations(Z, SINGLE, None), [0])
    assert (mask[:, 0].tolist(), by) == ([True, False] * 4, "prediction")
    mask, _ = find_positives(Activations(Z, SINGLE, LABELS.clamp(max=1)), [0])
    assert torch.equal(mask[:, 0], LABELS > 0)


def test_a_cache_of_a_single_logit_predicts_two_classes(tmp_path):
    net, (images, _) = make_net(outputs=1), make_images(24)
    with torch.no_grad():
        net.classifier[3].bias -= net(images).median()
    cache = cache_activations(net, "classifier.1", images, tmp_path / "cache")
    expected = cache.activations("classifier.1").predicted
    assert set(expected.tolist()) == {0, 1}
    assert torch.equal(cache.predicted, expected)
    assert torch.equal(sample_classes(cache), expected)


def test_split_keeps_the_share_of_positives():
    positives = (torch.arange(100) % 10 == 0).unsqueeze(1)
    held_out = split_validation(positives, 0.2, seed=0)
    assert int(held_out.sum()) == 20
    assert int((held_out & positives[:, 0]).sum()) == 2
    assert torch.equal(held_out, split_validation(positives, 0.2, seed=0))
