"""Weights beside parameters and buffers: they tell models apart, and nothing else changes."""

import functools
import io
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from conftest import make_images, make_net
from torchxnn.errors import ModelError
from torchxnn.models.examination import examine_model
from torchxnn.models.hidden_state import hidden_state
from torchxnn.models.weights import fingerprint


@dataclass
class Packed:
    values: torch.Tensor
    scale: float = 0.5


class Keeps(nn.Module):
    """A network that keeps something beside its parameters."""

    def __init__(self, kept):
        super().__init__()
        self.net, self.kept, self.eps = make_net(), kept, 1e-5

    def forward(self, images):
        return self.net(images)


def numbers(last):
    return torch.tensor([1, 2, last], dtype=torch.int8)


def linear(last):
    layer = nn.Linear(2, 1)
    nn.init.constant_(layer.weight, last)
    nn.init.zeros_(layer.bias)
    return layer


def calling(layer):
    return lambda x: layer(x)


KEPT = {
    "a tensor": numbers,
    "an array": lambda last: numbers(last).numpy(),
    "an array in Fortran's order": lambda last: np.asfortranarray(np.full((2, 3), last)),
    "in a list": lambda last: [numbers(0), numbers(last)],
    "in a tuple": lambda last: (numbers(last), "name"),
    "in nested dictionaries": lambda last: {"a": {"b": [numbers(last)]}},
    "in a dataclass": lambda last: Packed(numbers(last)),
    "its scale": lambda last: Packed(numbers(0), last / 10),
    "in a namespace": lambda last: SimpleNamespace(weight=numbers(last)),
    "a module in a list": lambda last: [linear(last)],
    "in a function": lambda last: calling(linear(last)),
    "around a function": lambda last: functools.partial(torch.add, other=numbers(last)),
    "quantised": lambda last: torch.quantize_per_tensor(torch.ones(3), last / 10, 0, torch.qint8),
    "quantised by channel": lambda last: torch.quantize_per_channel(
        torch.ones(1, 3), torch.tensor([last / 10]), torch.tensor([0]), 0, torch.qint8
    ),
    "sparse": lambda last: torch.sparse_coo_tensor([[0]], [float(last)], (3,)),
    "in half precision": lambda last: numbers(last).bfloat16(),
    "without a dimension": lambda last: torch.tensor(last),
    "in a list of numbers": lambda last: [*range(1, 8), 0.5 * last] + [0.25] * 8,
    "empty, and another": lambda last: [torch.zeros(0), numbers(last)],
}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks", "ignore:.*quant")
@pytest.mark.parametrize("keep", KEPT.values(), ids=KEPT)
def test_what_a_module_keeps_tells_models_apart(keep):
    one, same, other = Keeps(keep(3)), Keeps(keep(3)), Keeps(keep(4))
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(other)
    plain = {fingerprint(model, hidden=False) for model in (one, other)}
    assert len(plain) == 1
    assert fingerprint(one) not in plain


class Slots:
    __slots__ = ("values",)

    def __init__(self, values):
        self.values = values


class Shares(nn.Module):
    values = numbers(3)


class SharesOther(Shares):
    values = numbers(4)


def scaled(last):
    layer = linear(1)
    layer.weight.state, layer.weight.known = SimpleNamespace(code=numbers(last)), True
    return layer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: Keeps(Slots(numbers(3))), lambda: Keeps(Slots(numbers(4)))),
        (lambda: scaled(3), lambda: scaled(4)),
        (Shares, SharesOther),
    ],
    ids=["in slots", "on a parameter", "of the class"],
)
def test_tensors_in_less_usual_places_tell_models_apart(one, other):
    assert fingerprint(one()) == fingerprint(one()) != fingerprint(other())
    assert len(hidden_state(one())) >= 1


def test_a_change_in_place_is_seen():
    model = Keeps(numbers(3))
    before = fingerprint(model)
    model.kept[0] = 7
    assert fingerprint(model) != before
    model.kept[0] = 1
    assert fingerprint(model) == before


def test_numbers_count_beside_tensors_alone():
    assert hidden_state(Keeps({"rate": 0.1, "names": ["a", "b"]})) == {}
    assert hidden_state(Keeps(list(range(20)))) == {}
    found = hidden_state(Keeps(numbers(1)))
    assert set(found) == {"kept", "eps"}
    assert found["eps"] == "1e-05"


class ExtraState(nn.Linear):
    def __init__(self, state):
        super().__init__(2, 2)
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        self.read = lambda: state

    def get_extra_state(self):
        return self.read()

    def set_extra_state(self, state):
        self.read = lambda: state


@pytest.mark.parametrize("make", [numbers, lambda last: {"w": numbers(last)}])
def test_a_state_of_its_own_tells_models_apart(make):
    one, other = (nn.Sequential(ExtraState(make(last))) for last in (1, 2))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one) == fingerprint(nn.Sequential(ExtraState(make(1))))


def test_bytes_are_a_state_too():
    assert fingerprint(ExtraState(io.BytesIO(b"1"))) != fingerprint(ExtraState(io.BytesIO(b"2")))
    assert fingerprint(ExtraState(b"1")) == fingerprint(ExtraState(b"1"))
    assert fingerprint(ExtraState(b"1")) != fingerprint(ExtraState(b"2"))


def test_a_state_that_cannot_be_read_is_refused_by_name():
    with pytest.raises(ModelError, match=r"the 0.extra_state of ExtraState holds a object"):
        fingerprint(nn.Sequential(ExtraState(object())))


def test_weights_in_a_state_dict_alone_are_read():
    class Opaque(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.handle = object()
            self.last = last

        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            destination[f"{prefix}packed"] = (numbers(self.last), None)

    assert fingerprint(nn.Sequential(Opaque(1))) != fingerprint(nn.Sequential(Opaque(2)))


def old_style(net):
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(net)


ORDINARY = {
    "convolutions": make_net,
    "recurrent": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "attention": lambda: nn.TransformerEncoderLayer(8, 2, batch_first=True),
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),
    "pruned": lambda: prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5),
    "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    "tied": lambda: nn.Sequential(*[nn.Linear(4, 4)] * 2),
    "weight norm": lambda: old_style(nn.Linear(4, 4)),
}


@pytest.mark.parametrize("make", ORDINARY.values(), ids=ORDINARY)
def test_fingerprints_of_ordinary_models_stay_what_they_were(make):
    model = make()
    assert hidden_state(model) == {}
    assert fingerprint(model) == fingerprint(model, hidden=False)


def test_a_module_that_knows_its_parent_ends():
    parent = nn.Sequential(nn.Linear(2, 2))
    parent[0].__dict__["parent"] = parent
    parent[0].loop = [parent[0].__dict__]
    assert hidden_state(parent) == {}


class Stores(nn.Module):
    """Keeps its last activations, as many networks do whose maps are drawn."""

    def __init__(self, packed=None):
        super().__init__()
        self.net, self.last, self.calls, self.packed = make_net(), None, 0, packed

    def forward(self, images):
        self.last, self.calls = images.mean((1, 2, 3)), self.calls + 1
        return self.net(images)


@pytest.mark.parametrize("packed", [None, numbers(2)])
def test_stored_activations_are_no_weights(packed):
    images = make_images(8)[0]
    fresh, used = Stores(packed), Stores(packed)
    with torch.no_grad():
        used(images)
    examine_model(used, images)
    known = hidden_state(used)
    assert set(known) == (set() if packed is None else {"packed"})
    examine_model(fresh, images)
    assert fingerprint(used) == fingerprint(fresh)
