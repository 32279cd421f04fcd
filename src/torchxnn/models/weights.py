"""The fingerprint of a network: a hash of all its weights."""

import hashlib
import weakref
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchxnn.errors import ModelError
from torchxnn.models.compiled import plain_name
from torchxnn.models.hidden_state import as_bytes, hidden_state
from torchxnn.models.layers import unwrap

_State = tuple[Any, ...]
_known: weakref.WeakKeyDictionary[nn.Module, tuple[_State, str]] = weakref.WeakKeyDictionary()


def fingerprint(model: nn.Module, hidden: bool = True) -> str:
    """SHA-256 over names, shapes, types and values of all parameters and buffers.

    Weights that a model keeps beside them enter too, unless `hidden` is False, as it was in files
    of earlier versions; see `models.hidden_state`. It does not depend on the device, the memory
    layout, the order in which modules were added or what is compiled. It is remembered until the
    model is changed: whoever asks again for the same model pays for a checksum of its weights,
    which takes a third of the time.

    Raises:
        ModelError: if a parameter has no values yet (lazy or meta), or a state cannot be read.
    """
    inner = unwrap(model)
    parameters = inner.named_parameters(remove_duplicate=False)
    buffers = inner.named_buffers(remove_duplicate=False)
    tensors = {plain_name(name): tensor for name, tensor in (*parameters, *buffers)}
    for name, tensor in tensors.items():
        if nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise ModelError(
                f"parameter {name} has no values yet; run the network once, then retry"
            )
    beside = hidden_state(inner) if hidden else {}
    state = *((name, *_state_of(tensor)) for name, tensor in sorted(tensors.items())), beside
    known, answer = _known.get(model, (None, ""))
    if known != state:
        answer = _hash(tensors, beside)
        _known[model] = state, answer
    return answer


def differing_weight(one: nn.Module, other: nn.Module) -> str | None:
    """Name of the first weight, hidden or not, in which two models differ; None if all agree.

    A parameter without values yet counts as one that differs, since it will be drawn.
    """
    tensors = dict(other.named_parameters()) | dict(other.named_buffers())
    for name, value in [*one.named_parameters(), *one.named_buffers()]:
        twin = tensors.get(name)
        if nn.parameter.is_lazy(value) or twin is None or value.shape != twin.shape:
            return name
        if value is not twin and not torch.equal(as_bytes(value), as_bytes(twin)):
            return name
    hidden, twins = hidden_state(one), hidden_state(other)
    return next((name for name, text in hidden.items() if twins.get(name) != text), None)


def _hash(tensors: Mapping[str, Tensor], beside: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name]
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        digest.update(_bytes_of(values))
    for name, text in sorted(beside.items()):
        digest.update(f"{name} {text}\n".encode())
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    return as_bytes(tensor).numpy().data


def _state_of(tensor: Tensor) -> _State:
    """What differs once a tensor was written to, replaced or moved.

    PyTorch counts the writes to a tensor, but not those through `tensor.data`; hence the checksum.
    A sum would be no faster, and does not see that values changed places or signs.
    """
    version = None if tensor.is_inference() else tensor._version
    where = (tensor.data_ptr(), str(tensor.device), tensor.dtype, tensor.shape)
    return (version, *where, zlib.crc32(_bytes_of(tensor)))
