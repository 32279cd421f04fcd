"""Weights from files: read without running code, found in whatever a trainer wrote around them.

A state dict may lie deep in a checkpoint, its names may carry prefixes of the module that trained
it (`model.`, `module.`, `net.`, several of them), and `torch.compile` leaves parts in the middle.
All that is undone only where it then fits the network name for name, and one reading alone does.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from torchxnn.errors import ModelError, XNNError
from torchxnn.models.compiled import plain_name

_SHOWN = 4  # keys that a message names, of each kind
_DEPTH = 4  # mappings in mappings that a checkpoint is searched through

_BROKEN = struct.error, LookupError, ValueError, TypeError, AttributeError
"""What PyTorch's reader without code raises for bytes that are no pickle at all."""

State = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A weights file as it was read.

    Attributes:
        file: where it lies.
        states: every state dict in it, by its place: "" is the file itself, "ema.state_dict" the
            entry of that name of its entry "ema".
    """

    file: Path
    states: Mapping[str, State]

    def fitted_to(self, names: Collection[str]) -> FittedState:
        """The state dict that has the given names, or else the one that is most like them.

        Raises:
            ModelError: several that differ fit.
        """
        found = [fit for place in self.states for fit in self._fits(place, names)]
        for other in found[1:]:
            if not _equal(found[0].state, other.state):
                raise ModelError(
                    f"{self.file} holds several sets of weights that fit the network, "
                    f"{found[0].where} and {other.where}; save the one you mean in a file of its "
                    "own (torch.save) and give that"
                )
        return found[0] if found else self._nearest(names)

    def _fits(self, place: str, names: Collection[str]) -> Iterator[FittedState]:
        state = {plain_name(key): value for key, value in self.states[place].items()}
        own = {plain_name(name): name for name in names}
        if state.keys() == own.keys():
            yield FittedState({own[key]: state[key] for key in own}, place)
            return
        if not own:
            return
        longest = max(own, key=len)
        for key in state:
            prefix = key.removesuffix(longest)
            below = {k.removeprefix(prefix) for k in state if k.startswith(prefix)}
            if prefix.endswith(".") and key.endswith(longest) and below == own.keys():
                values = {own[name]: state[prefix + name] for name in own}
                others = tuple(k for k in state if not k.startswith(prefix))
                yield FittedState(values, place, prefix, others)

    def _nearest(self, names: Collection[str]) -> FittedState:
        """What a message about weights that do not fit is best about."""
        best, most = FittedState(next(iter(self.states.values()))), -1
        for place, state in self.states.items():
            prefix = _common_prefix(state)
            for part in dict.fromkeys(("", prefix)):
                named = {plain_name(key.removeprefix(part)): value for key, value in state.items()}
                shared = len(named.keys() & {plain_name(name) for name in names})
                if shared > most:
                    best, most = FittedState(named, place, part), shared
        return best


@dataclass(frozen=True, eq=False)
class FittedState:
    """A state dict by the network's own names.

    Attributes:
        state: names and tensors.
        place: where it lies in its file, as `Checkpoint.states` has it.
        prefix: what its names began with.
        others: names that did not begin so, and are left out.
    """

    state: State
    place: str = ""
    prefix: str = ""
    others: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The place in its file, for people."""
        parts = [repr(self.place)] if self.place else []
        if self.prefix:
            parts.append(f"the names that begin with {self.prefix!r}")
        return ", ".join(parts) or "the file itself"

    @property
    def note(self) -> str:
        """What was undone, for a description of the network; empty if nothing was."""
        left = f", leaving out {first_names(self.others)}" if self.others else ""
        return f" ({self.where}{left})" if self.place or self.prefix else ""


def read_checkpoint(file: Path) -> Checkpoint:
    """Read a weights file; no code in it is ever run.

    Raises:
        ModelError: if the file is missing, broken, of another kind, or holds no state dict.
    """
    if not file.is_file():
        raise ModelError(f"there is no weights file {file}")
    try:
        match file.suffix.lower():
            case ".safetensors":
                content: Any = load_file(file)
            case ".pt" | ".pth" | ".bin" | ".ckpt" | ".tar":
                content = torch.load(file, map_location="cpu", weights_only=True)
            case suffix:
                raise ModelError(
                    f"weights are .safetensors, .pt, .pth or .ckpt, not {suffix!r}: {file}; save "
                    "model.state_dict() of the network in PyTorch"
                )
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors (or is broken); save model.state_dict()"
        ) from error
    except XNNError:
        raise
    except (SafetensorError, RuntimeError, EOFError, OSError, *_BROKEN) as error:
        if "TorchScript" in str(error):
            raise ModelError(
                f"{file} is TorchScript; save its weights alone: torch.save(torch.jit.load(...)"
                ".state_dict(), NEW)"
            ) from error
        reason = str(error) or "it is empty or cut off"
        raise ModelError(f"cannot read the weights {file}: {reason}") from error
    states = dict(_states(content))
    if not states:
        raise ModelError(f"{file} holds no state dict (names and tensors)")
    return Checkpoint(file, states)


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint) -> str:
    """Load what a file holds for a network, strictly; returns what was undone, for people.

    Raises:
        ModelError: it does not fit, or several sets of weights do.
    """
    found = checkpoint.fitted_to(model.state_dict().keys())
    load_state(model, found.state, str(checkpoint.file))
    return found.note


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a state dict strictly; values take the types of the network's own tensors.

    Raises:
        ModelError: that names the first missing, unexpected and differently shaped keys, or a
            tensor with NaN or infinity.
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
    parts = [f"{len(keys)} {kind}: {first_names(keys)}" for kind, keys in kinds.items() if keys]
    if parts:
        raise ModelError(f"the weights {origin} do not fit the network; {'; '.join(parts)}")
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ModelError(f"{origin}: {name} holds NaN or infinity")
    model.load_state_dict(dict(state), strict=True)


def _states(content: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, State]]:
    """Every mapping of names to tensors in what a file holds, with its place."""
    if not isinstance(content, Mapping) or not content or depth > _DEPTH:
        return
    named = all(isinstance(name, str) for name in content)
    if named and all(isinstance(value, Tensor) for value in content.values()):
        yield place, dict(content)
        return
    for name, value in content.items():
        yield from _states(value, f"{place}.{name}" if place else str(name), depth + 1)


def _equal(first: State, second: State) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def _common_prefix(names: Collection[str]) -> str:
    """The dotted beginning that all names share, with its last dot."""
    first, last = min(names).split("."), max(names).split(".")
    shared = 0
    while shared < min(len(first), len(last)) - 1 and first[shared] == last[shared]:
        shared += 1
    return "".join(f"{part}." for part in first[:shared])


def first_names(names: Collection[str]) -> str:
    """The first few names, for a message."""
    shown = list(names)[:_SHOWN]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
