import json

import pytest
import torch

from conftest import make_images, make_net
from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.activations import Activations
from torchxnn.data.positives import (
    find_positives,
    positives_of,
    resample,
    sample_classes,
    split_validation,
)
from torchxnn.data.record import cache_activations
from torchxnn.errors import DataError
from torchxnn.storage.artifact import digest

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


def test_positives_of_plain_numbers():
    mask, by = positives_of(LABELS, None, [2, 1], 3)
    assert (mask.tolist(), by) == ([[k == 2, k == 1] for k in LABELS.tolist()], "label")
    mask, by = positives_of(None, SINGLE, [0], 1)
    assert (mask[:, 0].tolist(), by) == ([True, False] * 4, "prediction")
    with pytest.raises(DataError, match="there are neither"):
        positives_of(None, None, [0], 3)


def test_a_cache_of_a_single_logit_predicts_two_classes(tmp_path):
    net, (images, _) = make_net(outputs=1), make_images(24)
    with torch.no_grad():
        net.classifier[3].bias -= net(images).median()
    cache = cache_activations(net, "classifier.1", images, tmp_path / "cache")
    expected = cache.activations("classifier.1").predicted
    assert set(expected.tolist()) == {0, 1}
    assert torch.equal(cache.predicted, expected)
    assert torch.equal(sample_classes(cache), expected)


def as_version(cache, version, outputs):
    """A cache in the same folder as another version of torchxnn wrote it."""
    file = cache.store.location / "manifest.json"
    manifest = json.loads(file.read_text())
    about = manifest["about"] | {"kind_version": version}
    assert about["outputs"] == outputs
    values = {name: manifest[name] for name in ("rows", "chunk_rows", "notes")} | {"about": about}
    file.write_text(json.dumps(manifest | values | {"checksum": digest(values)}))
    key = digest({name: values[name] for name in ("about", "rows", "chunk_rows")})
    for chunk in file.parent.glob("chunk-*"):
        chunk.write_bytes(chunk.read_bytes().replace(cache.store._key.encode(), key.encode()))
    return cache.store.location


@pytest.mark.parametrize("complete", [True, False])
def test_a_cache_with_the_wrong_predictions_of_version_1_is_refused(tmp_path, complete):
    data = make_images(6)[0]
    cache = cache_activations(make_net(outputs=1), "classifier.1", data, tmp_path / "cache")
    with pytest.raises(DataError, match=r"class 0 .* every image .* one output; .* record it"):
        ActivationCache.open(as_version(cache, 1, 1), complete=complete)


@pytest.mark.parametrize("version", [1, 2])
def test_a_cache_of_several_outputs_is_right_in_both_versions(tmp_path, version):
    net, data = make_net(outputs=4), make_images(6)[0]
    cache = cache_activations(net, "classifier.1", data, tmp_path / "cache")
    again = ActivationCache.open(as_version(cache, version, 4))
    assert torch.equal(again.predicted, cache.predicted)
    with pytest.raises(DataError, match=r"version 3; this torchxnn reads .* version 1 or 2"):
        ActivationCache.open(as_version(cache, 3, 4))


def test_split_keeps_the_share_of_positives():
    positives = (torch.arange(100) % 10 == 0).unsqueeze(1)
    held_out = split_validation(positives, 0.2, seed=0)
    assert int(held_out.sum()) == 20
    assert int((held_out & positives[:, 0]).sum()) == 2
    assert torch.equal(held_out, split_validation(positives, 0.2, seed=0))


def test_bootstrap_keeps_the_number_of_images_of_every_class():
    labels = torch.tensor([0, 1, 1, 1, 2, 2])
    data = Activations(torch.arange(6.0).unsqueeze(1), torch.zeros(6, 3), labels)
    seen = set()
    for seed in range(20):
        drawn = resample(data, seed)
        assert drawn.labels.bincount().tolist() == [1, 3, 2]
        assert all(labels[int(z)] == label for z, label in zip(drawn.z, drawn.labels, strict=True))
        seen |= set(drawn.z.flatten().tolist())
        assert torch.equal(drawn.z, resample(data, seed).z)
    assert seen == set(range(6))


def test_copies_are_drawn_with_their_images():
    labels = torch.tensor([0, 1, 1, 0, 1, 1, 0, 1, 1])  # three images, then two copies of each
    data = Activations(torch.arange(9.0).unsqueeze(1), torch.zeros(9, 2), labels)
    first, *copies = resample(data, 0, copies=2).z.flatten().chunk(3)
    assert first[0] == 0
    assert set(first[1:].tolist()) <= {1.0, 2.0}
    assert all(torch.equal(one, first + 3 * at) for at, one in enumerate(copies, 1))
