"""Kinds of models in which no layer can be watched, and what to give instead of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from torchxnn.errors import ModelError

_QUANTISED = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.sparse.quantized",
    "torch.nn.quantized",
    "torchao.",
    "bitsandbytes.",
)
"""Packages whose modules and parameters hold weights that were rounded and packed."""


def check_explainable(model: Any, what: str = "the model") -> None:
    """Refuse a model that is no network of Python modules with floating point weights.

    `what` is the model, for messages.

    Raises:
        ModelError: it is TorchScript, exported, quantised, made under `torch.inference_mode` or no
            `nn.Module` at all; the message names the place and what to give instead.
    """
    if isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        raise _script(what)
    if type(model).__module__.startswith("torch.export"):
        raise _exported(what)
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{what} is a {type(model).__name__}, not an nn.Module; give the PyTorch network "
            "itself, or that from which it was made"
        )
    for name, module in model.named_modules():
        part = f"{name!r} of {what}" if name else what
        if isinstance(module, torch.jit.ScriptModule):
            raise _script(part)
        if isinstance(module, fx.GraphModule) and _is_exported(module):
            raise _exported(part)
        _check_gradients_pass(module, part)
        if _is_quantised(module):
            raise ModelError(
                f"{part} ({type(module).__name__}) is quantised: its weights are rounded and "
                "packed, and no relevance passes it; give the network in floating point, as it was "
                "before it was quantised"
            )


def _check_gradients_pass(module: nn.Module, part: str) -> None:
    for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
        if tensor is None or nn.parameter.is_lazy(tensor):  # without values yet
            continue
        if tensor.is_inference():
            raise ModelError(
                f"{name!r} of {part} was made under torch.inference_mode(), so that no gradient "
                "passes the model; build and load it outside of inference_mode"
            )


def _script(what: str) -> ModelError:
    return ModelError(
        f"{what} is TorchScript, whose layers cannot be watched; give the nn.Module that it was "
        "scripted or traced from: build it and load its state dict"
    )


def _exported(what: str) -> ModelError:
    return ModelError(
        f"{what} was exported (torch.export), and its layers are gone; give the nn.Module that "
        "it was exported from: build it and load its state dict"
    )


def _is_exported(module: fx.GraphModule) -> bool:
    """Whether a graph calls operations below modules, and no module that has weights."""
    nodes = module.graph.nodes
    called = [module.get_submodule(str(n.target)) for n in nodes if n.op == "call_module"]
    core = any(isinstance(node.target, torch._ops.OpOverload) for node in nodes)
    return core and not any(True for owner in called for _ in owner.parameters())


def _is_quantised(module: nn.Module) -> bool:
    tensors = [*module._parameters.values(), *module._buffers.values()]
    owners = [type(module), *(type(tensor) for tensor in tensors if tensor is not None)]
    packed = any(f"{owner.__module__}.".startswith(_QUANTISED) for owner in owners)
    return packed or any(tensor is not None and tensor.is_quantized for tensor in tensors)
