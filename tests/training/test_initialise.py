"""Starting points: what sees no target is computed once, and kept no longer than the run."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from torchxnn.training import initialise
from torchxnn.training.config import ManyConfig, TrainConfig
from torchxnn.training.fit import fit_embedding
from torchxnn.training.initialise import SharedStarts, VectorStarter, pretrain_greedily
from torchxnn.training.many import fit_many
from torchxnn.training.split import Split
from training_examples import make_data

CONFIG = TrainConfig(hidden=(16, 8), batch_size=32, pretrain_epochs=2)


def split(data, target):
    weights = torch.full((len(data),), 1 / len(data))
    positives = (data.labels == target).unsqueeze(1)
    return Split(data, data.logits[:, [target]], positives, weights)


def begin(data, target, starts=None, config=CONFIG, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embedding = VectorStarter(split(data, target), 3, config, generator, starts).embedding
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
    data, starts = make_data(), SharedStarts()
    begin(data, 1, starts)
    weights, state = begin(data, 2, starts)
    assert len(calls) == 1
    expected, expected_state = begin(make_data(), 2, starts)
    assert len(calls) == 2
    assert torch.equal(state, expected_state)
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name


def test_other_settings_seeds_and_sizes_are_pretrained_anew(monkeypatch):
    calls = count_pretraining(monkeypatch)
    data, starts = make_data(), SharedStarts()
    begin(data, 1, starts)
    begin(data, 1, starts, seed=1)
    begin(data, 1, starts, TrainConfig(hidden=(16, 8), batch_size=32, pretrain_epochs=3))
    begin(data, 1, starts, TrainConfig(hidden=(12, 8), batch_size=32, pretrain_epochs=2))
    assert len(calls) == 4


def test_what_is_kept_is_not_what_is_trained():
    data, starts = make_data(), SharedStarts()
    first, _ = begin(data, 1, starts)
    for value in first.values():
        value.fill_(7)
    second, _ = begin(data, 1, starts)
    expected, _ = begin(make_data(), 1)
    assert all(torch.equal(second[name], value) for name, value in expected.items())


QUICK = replace(CONFIG, epochs=1, trials=1, minimum_positives=1, subspace=3)


@pytest.fixture
def made(monkeypatch):
    """Weak references to everything that fits share, as it is computed."""
    found = []
    for name in ("pretrain_greedily", "principal_subspace"):
        original = getattr(initialise, name)

        def watched(*arguments, original=original, name=name):
            result = original(*arguments)
            found.append(weakref.ref(arguments[0] if name == "pretrain_greedily" else result))
            return result

        monkeypatch.setattr(initialise, name, watched)
    return found


@pytest.mark.filterwarnings("ignore::torchxnn.errors.DegenerateFitWarning")
def test_nothing_that_fits_share_outlives_their_run(made):
    """It once stayed in memory as long as the caller's activations did."""
    data = make_data(outputs=4)
    fit_embedding(data, data, [1], 3, QUICK)
    assert len(made) == 2
    fit_many(data, [1, 2], validation=data, config=QUICK, n_features=3, many=ManyConfig(block=1))
    assert len(made) == 4  # both blocks share them
    gc.collect()
    assert [reference() for reference in made] == [None] * 4


@pytest.mark.filterwarnings("ignore::torchxnn.errors.DegenerateFitWarning")
def test_fits_to_the_same_activations_may_share_their_start(made):
    data, starts = make_data(), SharedStarts()
    shared = [fit_embedding(data, data, [t], 3, QUICK, starts=starts)[0] for t in (1, 2)]
    assert len(made) == 2
    alone = fit_embedding(data, data, [2], 3, QUICK)[0].state_dict()
    assert all(torch.equal(value, alone[key]) for key, value in shared[1].state_dict().items())
    del starts
    gc.collect()
    assert [reference() for reference in made] == [None] * 4
