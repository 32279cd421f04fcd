"""Kinds of models that cannot be explained are refused in one line that says what to give."""

import copy
import warnings

import pytest
import torch
from torch import nn

from torchxnn import XNN
from torchxnn.errors import ModelError
from torchxnn.models.load import load_model
from torchxnn.models.refused import check_explainable

IMAGES = torch.rand(2, 3, 8, 8)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    ).eval()


def dynamic(model):
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def static(model):
    parts = [torch.ao.quantization.QuantStub(), model, torch.ao.quantization.DeQuantStub()]
    whole = nn.Sequential(*parts).eval()
    whole.qconfig = torch.ao.quantization.get_default_qconfig("x86")
    prepared = torch.ao.quantization.prepare(whole)
    prepared(IMAGES)
    return torch.ao.quantization.convert(prepared)


def exported(model):
    return torch.export.export(model, (IMAGES,))


KINDS = {
    "scripted": (torch.jit.script, "the model is TorchScript.* scripted or traced from"),
    "traced": (lambda m: torch.jit.trace(m, IMAGES), "the model is TorchScript"),
    "a traced part": (
        lambda m: nn.Sequential(nn.Identity(), torch.jit.trace(m, IMAGES)),
        "'1' of the model is TorchScript",
    ),
    "exported": (exported, "the model was exported .* that it was exported from"),
    "an exported module": (lambda m: exported(m).module(), "the model was exported"),
    "unflattened": (lambda m: torch.export.unflatten(exported(m)), "the model was exported"),
    "dynamic": (dynamic, r"'4' of the model \(Linear\) is quantised.* floating point"),
    "static": (static, r"'0' of the model \(Quantize\) is quantised"),
    "inference": (
        lambda m: torch.inference_mode()(copy.deepcopy)(m),
        r"'weight' of '0' of the model was made under torch\.inference_mode.*outside of",
    ),
    "a function": (lambda m: m.forward, "is a method, not an nn.Module; give the PyTorch network"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_the_line_says_what_to_give_instead(kind):
    make, message = KINDS[kind]
    try:
        model = make(network())
    except RuntimeError:
        if kind == "unflattened":
            pytest.skip("this PyTorch unflattens no plain sequence of modules")
        raise
    with pytest.raises(ModelError, match=message) as caught:
        check_explainable(model)
    assert "\n" not in str(caught.value)
    if isinstance(model, nn.Module):
        with pytest.raises(ModelError, match=message):
            XNN(model, layer="4")


@pytest.mark.parametrize(
    "model",
    [
        network(),
        torch.fx.symbolic_trace(network()),
        torch.ao.quantization.QuantStub(),
        copy.deepcopy(network()).double(),
        nn.Module(),
    ],
)
def test_networks_of_modules_are_taken(model):
    check_explainable(model)


def scripted_network():
    """Factory of a network that a person has compiled."""
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.script(network())


def test_factories_are_asked_too(monkeypatch):
    monkeypatch.setattr("network_examples.constant", scripted_network)
    with pytest.raises(ModelError, match="what network_examples:constant returned is TorchScript"):
        load_model("network_examples:constant")


@pytest.mark.filterwarnings("ignore")
def test_weights_in_torchscript_are_named(tmp_path):
    scripted_network().save(tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"net\.pt is TorchScript; save its weights alone"):
        load_model("network_examples:small", tmp_path / "net.pt")
