"""State dicts out of whatever trainers wrote around them, where one reading alone fits."""

import argparse

import pytest
import torch
from torch import nn

from network_examples import small
from torchxnn.errors import ModelError
from torchxnn.models.checkpoints import load_checkpoint, read_checkpoint
from torchxnn.models.load import load_model
from torchxnn.models.weights import fingerprint

FACTORY = "network_examples:small"


@pytest.fixture
def trained():
    torch.manual_seed(1)
    return small(6).eval()


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


WRAPPED = {
    "lightning": lambda s: {
        "state_dict": prefixed(s, "model."),
        "epoch": 3,
        "callbacks": {"EarlyStopping": {"best_score": torch.tensor(0.3)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}],
        "hyper_parameters": {"lr": 1e-3},
    },
    "compiled in parallel": lambda s: prefixed(s, "_orig_mod.module."),
    "compiled inside": lambda s: {n.replace("1.", "1._orig_mod."): v for n, v in s.items()},
    "several": lambda s: prefixed(s, "module.net.backbone."),
    "deep": lambda s: {"trainer": {"ema": {"weights": s}}, "best": 0.9},
    "odd prefix": lambda s: {"weights": prefixed(s, "student.0.")},
    "twice the same": lambda s: {"model": s, "ema": s},
}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("suffix", [".ckpt", ".pth.tar"])
def test_what_is_around_is_undone(kind, suffix, trained, tmp_path):
    file = tmp_path / f"w{suffix}"
    torch.save(WRAPPED[kind](trained.state_dict()), file)
    loaded = load_model(FACTORY, file)
    assert fingerprint(loaded.model) == fingerprint(trained)
    assert loaded.description.startswith(f"{FACTORY}, weights w{suffix}")


def test_the_description_says_what_was_undone(trained, tmp_path):
    state = prefixed(trained.state_dict(), "model.") | {"criterion.weight": torch.ones(6)}
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    expected = (
        f"{FACTORY}, weights w.ckpt ('state_dict', the names that begin with 'model.', leaving out "
        "criterion.weight)"
    )
    assert load_model(FACTORY, tmp_path / "w.ckpt").description == expected


def test_a_compiled_network_takes_plain_weights(trained, tmp_path):
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    model = small(6)
    model[1] = torch.compile(model[1], backend="eager")
    assert load_checkpoint(model, read_checkpoint(tmp_path / "w.pt")) == ""
    assert fingerprint(model.eval()) == fingerprint(trained)


@pytest.mark.parametrize(
    ("around", "message"),
    [
        (lambda a, b: {"state_dict": a, "state_dict_ema": b}, "'state_dict' and 'state_dict_ema'"),
        (
            lambda a, b: {**prefixed(a, "student."), **prefixed(b, "teacher.")},
            "begin with 'student.' and the names that begin with 'teacher.'",
        ),
    ],
)
def test_two_that_fit_are_refused_by_name(around, message, trained, tmp_path):
    torch.save(around(trained.state_dict(), small(6).state_dict()), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=f"several sets of weights .*{message}; save the one"):
        load_model(FACTORY, tmp_path / "w.pt")


def test_only_what_then_fits_is_undone(trained, tmp_path):
    state = prefixed(trained.state_dict(), "model.")
    del state["model.1.bias"]
    torch.save({"state_dict": state}, tmp_path / "w.ckpt")
    with pytest.raises(ModelError, match=r"do not fit the network; 1 missing: 1\.bias$"):
        load_model(FACTORY, tmp_path / "w.ckpt")


def test_names_beside_the_networks_own_are_no_prefix(trained, tmp_path):
    torch.save({**trained.state_dict(), "more.weight": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"1 unexpected: more\.weight"):
        load_model(FACTORY, tmp_path / "w.pt")


def test_code_is_never_run(trained, tmp_path):
    torch.save(
        {"state_dict": trained.state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "w.ckpt"
    )
    with pytest.raises(ModelError, match="holds more than tensors"):
        read_checkpoint(tmp_path / "w.ckpt")


def test_nan_in_what_is_not_loaded_does_not_matter(trained, tmp_path):
    torch.save(
        {"model": trained.state_dict(), "best": {"loss": torch.tensor(torch.nan)}},
        tmp_path / "w.pt",
    )
    load_model(FACTORY, tmp_path / "w.pt")


def test_a_network_without_weights_takes_none(tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="1 unexpected: a"):
        load_checkpoint(nn.ReLU(), read_checkpoint(tmp_path / "w.pt"))
