"""State dicts from files, read without running code and loaded strictly."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from torchxnn.errors import ModelError

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
