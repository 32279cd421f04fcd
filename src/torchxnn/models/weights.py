"""State dicts from files, read without running code and loaded strictly; and their fingerprint."""

import hashlib
import pickle
import weakref
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from torchxnn.errors import ModelError
from torchxnn.models.hidden_state import hidden_state
from torchxnn.models.layers import unwrap

_SHOWN = 4  # keys that a mismatch error names, of each kind
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a state dict; no code in the file is ever run.

    Raises:
        ModelError: if the file is missing, broken, of another kind, or holds NaN or infinity.
    """
    if not file.is_file():
        raise ModelError(f"there is no weights file {file}")
    try:
        match file.suffix.lower():
            case ".safetensors":
                state: Any = load_file(file)
            case ".pt" | ".pth" | ".bin":
                state = torch.load(file, map_location="cpu", weights_only=True)
            case suffix:
                raise ModelError(f"weights are .safetensors, .pt or .pth, not {suffix!r}: {file}")
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors (or is broken); save model.state_dict()"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"cannot read the weights {file}: {error}") from error
    state = _unwrap(state)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{file} holds no state dict (names and tensors)")
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ModelError(f"{file}: {name} holds NaN or infinity")
    return state


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a state dict strictly; values take the types of the network's own tensors.

    Raises:
        ModelError: that names the first missing, unexpected and differently shaped keys.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    parts = [
        f"{len(keys)} {kind}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
        for kind, keys in kinds.items()
        if keys
    ]
    if parts:
        raise ModelError(f"the weights {origin} do not fit the network; {'; '.join(parts)}")
    model.load_state_dict(dict(state), strict=True)


def _unwrap(state: Any) -> dict[str, Any]:
    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        return {}
    if state and all(str(name).startswith("module.") for name in state):  # nn.DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)


_State = tuple[Any, ...]
_known: weakref.WeakKeyDictionary[nn.Module, tuple[_State, str]] = weakref.WeakKeyDictionary()


def fingerprint(model: nn.Module, hidden: bool = True) -> str:
    """SHA-256 over names, shapes, types and values of all parameters and buffers.

    Weights that a model keeps beside them enter too, unless `hidden` is False, as it was in files
    of earlier versions; see `models.hidden_state`. It does not depend on the device, the memory
    layout or the order in which modules were added. It is remembered until the model is changed:
    whoever asks again for the same model pays for a checksum of its weights, which takes a third of
    the time.

    Raises:
        ModelError: if a parameter has no values yet (lazy or meta), or a state cannot be read.
    """
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    for name, tensor in tensors.items():
        if nn.parameter.is_lazy(tensor) or tensor.is_meta:
            raise ModelError(
                f"parameter {name} has no values yet; run the network once, then retry"
            )
    beside = hidden_state(unwrap(model)) if hidden else {}
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
        if value is not twin and not torch.equal(_as_bytes(value), _as_bytes(twin)):
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


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _bytes_of(tensor: Tensor) -> memoryview:
    return _as_bytes(tensor).numpy().data


def _state_of(tensor: Tensor) -> _State:
    """What differs once a tensor was written to, replaced or moved.

    PyTorch counts the writes to a tensor, but not those through `tensor.data`; hence the checksum.
    A sum would be no faster, and does not see that values changed places or signs.
    """
    version = None if tensor.is_inference() else tensor._version
    where = (tensor.data_ptr(), str(tensor.device), tensor.dtype, tensor.shape)
    return (version, *where, zlib.crc32(_bytes_of(tensor)))
