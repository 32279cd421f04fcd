"""Starting points: what sees no target is computed once per activations."""

import torch

from torchxnn.training import initialise
from torchxnn.training.config import Split, TrainConfig
from torchxnn.training.initialise import VectorStarter, pretrain_greedily
from training_examples import make_data

CONFIG = TrainConfig(hidden=(16, 8), batch_size=32, pretrain_epochs=2)


def split(data, target):
    weights = torch.full((len(data),), 1 / len(data))
    positives = (data.labels == target).unsqueeze(1)
    return Split(data, data.logits[:, [target]], positives, weights)


def begin(data, target, config=CONFIG, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embedding = VectorStarter(split(data, target), 3, config, generator).embedding
    return embedding.state_dict(), generator.get_state()


def count_pretraining(monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return pretrain_greedily(*arguments)

    monkeypatch.setattr(initialise, "pretrain_greedily", counted)
    return calls


def test_shared_pretraining_changes_nothing(monkeypatch):
    """The second fit to the same activations is the fit to a copy of them, bit for bit."""
    calls = count_pretraining(monkeypatch)
    data = make_data()
    begin(data, 1)
    weights, state = begin(data, 2)
    assert len(calls) == 1
    expected, expected_state = begin(make_data(), 2)
    assert len(calls) == 2
    assert torch.equal(state, expected_state)
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name


def test_other_settings_seeds_and_sizes_are_pretrained_anew(monkeypatch):
    calls = count_pretraining(monkeypatch)
    data = make_data()
    begin(data, 1)
    begin(data, 1, seed=1)
    begin(data, 1, TrainConfig(hidden=(16, 8), batch_size=32, pretrain_epochs=3))
    begin(data, 1, TrainConfig(hidden=(12, 8), batch_size=32, pretrain_epochs=2))
    assert len(calls) == 4


def test_what_is_kept_is_not_what_is_trained():
    data = make_data()
    first, _ = begin(data, 1)
    for value in first.values():
        value.fill_(7)
    second, _ = begin(data, 1)
    expected, _ = begin(make_data(), 1)
    assert all(torch.equal(second[name], value) for name, value in expected.items())
