"""Plain settings of a network's modules: what it computes with beside weights, such as a stride.

Two networks of one architecture may hold the same weights and differ in a temperature that is a
number among a module's attributes, in a stride or in an activation function. The settings are kept
with what rests on a model, by name, and compared where both sides have them.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from numbers import Number
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.loss import _Loss

from torchxnn.models.compiled import plain_name
from torchxnn.models.hidden_state import Group, changing_attributes, values_by_module
from torchxnn.models.layers import unwrap

_LIBRARIES = ("torch", "torchvision", "timm", "transformers", "lightning", "pytorch_lightning",
    "torchmetrics")  # fmt: skip
"""Their modules keep much that is no setting: of them the arguments of the constructor count."""

_NO_SETTING = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, _DropoutNd, _Loss)
"""Modules whose kind says nothing of what is computed in evaluation mode."""

_OF_DEPTH = re.compile("Drop|StochasticDepth")
"""Kinds of modules that leave out parts of a network in training alone."""

_IMPLIED = frozenset(
    {"in_channels", "out_channels", "in_features", "out_features", "num_features", "num_channels",
     "normalized_shape", "embed_dim", "num_embeddings", "embedding_dim"}
)  # fmt: skip
"""Arguments that the shapes of weights tell."""

_OF_TRAINING = re.compile(
    r"(^|_|\.)(training|lr|learning|weight_decay|momentum|inplace|epochs?|steps?|iters?"
    r"|iterations?|batch_size|num_batches|batches|count|counter|counts|calls|seed|verbose|debug"
    r"|loss|losses|acc|accuracy|best|metrics?|drop\w*|p_drop|stochastic_depth\w*|devices?|dtype"
    r"|names?|paths?|file|filename|folder|dir|root|log|logger|logging|checkpointing|checkpoint"
    r"|time|timer|history|optimizer|scheduler|hooks?|rank|workers|cached?|track_running_stats)"
    r"(?=$|_|\.)"
)
"""Names of what training, logging and machines need and the outputs do not depend on."""

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|meta)(:\d+)?|torch\..*")


def plain_settings(model: nn.Module) -> dict[str, str]:
    """The settings of a network as texts, by dotted name; the same in every process.

    Of a module of PyTorch it is its kind with all arguments that are not the usual ones, under its
    own name (`4`: "LeakyReLU(negative_slope=0.2)"); of modules of other libraries these arguments;
    of all others their numbers, strings and flags, also in containers, and the names of functions.
    What a forward pass changes (see `note_changing`) is none, nor what only training needs.
    """
    inner, found = unwrap(model), dict[str, str]()
    changing = changing_attributes(inner)
    for name, module, groups in values_by_module(inner):
        place = plain_name(name)
        if type(module).__module__.startswith("torch.nn.modules."):
            if not isinstance(module, _NO_SETTING):
                found[place] = f"{_kind(module)}({', '.join(_arguments(module).values())})"
            continue
        if _in_library(type(module)):
            own = {} if _OF_DEPTH.match(type(module).__name__) else _arguments(module)
        else:
            own = _own_values(name, module, groups, changing)
        found |= {f"{place}.{key}" if place else key: text for key, text in own.items()}
    return found


def differing_setting(kept: Mapping[str, str], model: nn.Module) -> str | None:
    """What differs first between settings that were kept and those of a model; None if nothing.

    A setting that one side does not have is not known there: some modules set attributes at their
    first pass, and other versions of libraries have others.
    """
    found = plain_settings(model) if kept else {}
    for name, text in kept.items():
        now = found.get(name, text)
        if now != text:
            return f"{name!r} is {now} and was {text}" if name else f"it is {now} and was {text}"
    return None


def _kind(module: nn.Module) -> str:
    """Its class; all batch norms are one, since synchronised ones compute the same."""
    return "BatchNorm" if isinstance(module, _BatchNorm) else type(module).__name__


def _arguments(module: nn.Module) -> dict[str, str]:
    """The constructor's arguments that a module keeps and that are not the usual ones."""
    found = {}
    for name, default in _parameters(type(module)).items():  # type: ignore[arg-type]
        value = vars(module).get(name, default)
        if _is_plain(value) and not _is_usual(value, default) and not _OF_TRAINING.search(name):
            found[name] = f"{name}={value!r}"
    return found


def _is_usual(value: Any, default: Any) -> bool:
    """Whether a value is a default, or a tuple or list like it, or holds nothing else."""
    if isinstance(value, tuple | list):
        if isinstance(default, tuple | list):
            return _is_plain(default) and list(value) == list(default)
        return bool(value) and all(_is_usual(each, default) for each in value)
    plain = default is None or isinstance(default, Number | str)
    return plain and bool(value == default)


def _is_plain(value: Any) -> bool:
    inside = value if isinstance(value, tuple | list) else (value,)
    return all(each is None or isinstance(each, Number | str) for each in inside)


@cache
def _parameters(kind: Callable[..., Any]) -> dict[str, Any]:
    """The names of a constructor's arguments, with the usual values."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):  # none that can be read
        return {}
    return {each.name: each.default for each in parameters if each.name not in _IMPLIED}


def _own_values(
    place: str, module: nn.Module, groups: Iterable[Group], changing: frozenset[str]
) -> dict[str, str]:
    """Numbers, strings, flags and names of functions among somebody's own attributes."""
    prefix = f"{place}." if place else ""
    inherits = any(_in_library(base) and base is not nn.Module for base in type(module).__mro__)
    values: list[tuple[str, Any]] = [
        (name.removeprefix(prefix), value)
        for key, group in groups
        if key not in changing
        for name, value in group
        if isinstance(value, Number | str)
    ]
    return {
        name: repr(value)
        for name, value in [*values, *_functions(module)]
        if not _OF_TRAINING.search(name)
        and not (inherits and name.startswith("_"))
        and not (isinstance(value, str) and (os.sep in value or _DEVICE.fullmatch(value)))
    }


def _functions(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Functions among the attributes of a module, such as an activation, by their names."""
    for key, value in vars(module).items():
        function = value.func if isinstance(value, partial) else value
        called = getattr(function, "__name__", None)
        if callable(function) and called and not isinstance(value, nn.Module | type):
            yield key, called


def _in_library(kind: type) -> bool:
    """Whether a class is one of a library, which keeps things of its own in its modules."""
    return issubclass(kind, nn.Module) and kind.__module__.partition(".")[0] in _LIBRARIES
