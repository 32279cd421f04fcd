"""What a model keeps beside its parameters and buffers, and computes with all the same.

Quantised layers keep packed integers as plain attributes, others keep tensors in lists or
dictionaries, arrays of NumPy, modules that are registered nowhere, what functions hold, or a state
of their own (`get_extra_state`). Models without anything of the kind have no hidden state.
"""

from __future__ import annotations

import hashlib
import io
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from itertools import chain
from numbers import Number
from types import CellType, FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchxnn.errors import ModelError

_OWN = frozenset(vars(nn.Module()))
"""Attributes that every module has."""

_DERIVED = ("_g", "_v", "_orig", "_bar")
"""Ends of the parameters that weight norm, spectral norm and pruning compute a weight from."""

_ARRAYS = (Tensor, np.ndarray)

_TABLE = 8
"""So many floating point numbers in one list are weights, and fewer are settings."""

_Leaf = tuple[str, Any]
"""The name of a value and the value: a tensor, or something plain."""

Group = tuple[str, list[_Leaf]]
"""The name of an attribute and the values in it."""

_changing: weakref.WeakKeyDictionary[nn.Module, frozenset[str]] = weakref.WeakKeyDictionary()


def note_changing(model: nn.Module, names: Iterable[str]) -> None:
    """Remember attributes that a forward pass changes: activations or counters and no weights."""
    _changing[model] = frozenset(names)


def changing_attributes(model: nn.Module) -> frozenset[str]:
    """What `note_changing` was told of a model."""
    return _changing.get(model, frozenset())


def hidden_state(model: nn.Module) -> dict[str, str]:
    """A text for every hidden value that counts as a weight, by its dotted name; mostly none.

    Numbers count where their module has hidden tensors or bytes, since they may be scales of these,
    or a list of many of them; what `note_changing` was told does not count.

    Raises:
        ModelError: a state of a kind that cannot be read as numbers; the message names it.
    """
    changing = changing_attributes(model)
    found: dict[str, str] = {}
    for _, _, attributes in values_by_module(model):
        groups = [group for name, group in attributes if name not in changing]
        leaves = [each for group in groups for each in group]
        if any(map(_has_weights, groups)):
            found |= {name: _text(name, value) for name, value in leaves}
    return found


def _has_weights(group: list[_Leaf]) -> bool:
    places = [name.rpartition(".") for name, value in group if isinstance(value, float)]
    lists = Counter(place for place, _, entry in places if entry.isdigit())
    tensors = any(isinstance(value, Tensor | bytes) for _, value in group)
    return tensors or max(lists.values(), default=0) >= _TABLE


def attribute_texts(model: nn.Module) -> dict[str, list[str]]:
    """Texts for all hidden values of each attribute, weights or not, to see which change."""
    return {
        name: [_text(*leaf) for leaf in group]
        for _, _, attributes in values_by_module(model)
        for name, group in attributes
    }


def values_by_module(model: nn.Module) -> Iterator[tuple[str, nn.Module, list[Group]]]:
    """For every module its name and the attributes that hold values, with these values."""
    known = {*map(id, model.modules()), *map(id, model.parameters()), *map(id, model.buffers())}
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        values = chain(_attributes(module), _of_the_class(module), _on_tensors(module))
        attributes = _groups(prefix, values, known)
        yield name, module, [*attributes, *_groups(prefix, _own_state(module), None)]


def _groups(
    prefix: str, values: Iterable[tuple[str, Any]], known: set[int] | None
) -> Iterator[Group]:
    """Names and leaves without those that are `known`; strict where nothing is."""
    for key, value in values:
        leaves = _leaves(value, prefix + key, known or set(), strict=known is None)
        yield prefix + key, list(leaves)


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Plain attributes, without weights that the module computes from its parameters."""
    parameters = module._parameters
    for key, value in vars(module).items():
        if key not in _OWN and not any(key + end in parameters for end in _DERIVED):
            yield key, value


def _of_the_class(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Tensors and arrays that a class keeps for all its modules, but for those with their own."""
    found: dict[str, Any] = {}
    for kind in reversed(type(module).__mro__):
        found |= vars(kind)
    for key, value in found.items():
        if isinstance(value, _ARRAYS) and key not in vars(module):
            yield key, value


def _on_tensors(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Tensors that hang on parameters and buffers, such as scales in a state of quantisation."""
    for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
        for key, value in vars(tensor).items() if tensor is not None else ():
            inside = {"": value} if isinstance(value, _ARRAYS) else _arrays_of(value)
            for part, array in inside.items():
                yield ".".join(filter(None, (name, key, part))), array


def _arrays_of(value: Any) -> dict[str, Any]:
    """Tensors and arrays among the attributes of any object, also those in its slots."""
    if isinstance(value, type):
        return {}
    names = set(getattr(value, "__dict__", ()))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        names |= {slots} if isinstance(slots, str) else set(slots)
    found = {name: getattr(value, name, None) for name in sorted(names)}
    return {name: array for name, array in found.items() if isinstance(array, _ARRAYS)}


def _own_state(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a module puts into its state dict by methods of its own."""
    kind = type(module)
    if kind.get_extra_state is not nn.Module.get_extra_state:
        yield f"extra_state of {kind.__name__}", module.get_extra_state()
    if kind._save_to_state_dict is not nn.Module._save_to_state_dict:
        state: dict[str, Any] = {}
        module._save_to_state_dict(state, "", False)
        registered = {*module._parameters, *module._buffers}
        yield from ((key, value) for key, value in state.items() if key not in registered)


def _leaves(value: Any, name: str, known: set[int], strict: bool = False) -> Iterator[_Leaf]:
    """The tensors and plain values inside a value; what is `known` by its id is left out.

    Of objects of other kinds their own tensors and arrays count; those without any are left out, or
    an error in a state that must be read as a whole.
    """
    if isinstance(value, Tensor | np.ndarray | nn.Module | dict | list | FunctionType):
        if id(value) in known:
            return
        known = known | {id(value)}
    match value:
        case Tensor():
            if value.grad_fn is None:  # else it was computed from others
                yield name, value
        case np.ndarray() if value.dtype.kind in "biufc":
            yield name, torch.from_numpy(np.ascontiguousarray(value))
        case np.ndarray():
            yield name, repr(value.tolist())
        case Number() | str() | bytes() | None:
            yield name, value
        case torch.dtype() | torch.device():
            yield name, str(value)
        case io.BytesIO():
            yield name, value.getvalue()
        case _:
            inside = _inside(value)
            if inside is None and strict:
                raise ModelError(
                    f"the {name} holds a {type(value).__name__}, which cannot be read as numbers, "
                    "so that nothing can be tied to these weights; give the network in float32"
                )
            for key, each in (_arrays_of(value) if inside is None else inside).items():
                yield from _leaves(each, f"{name}.{key}", known, strict)


def _inside(value: Any) -> Mapping[Any, Any] | None:
    """The parts of a container by name; None for objects that are none."""
    match value:
        case nn.Module():  # registered nowhere, such as one in a list
            attributes = dict(_attributes(value))
            return {**attributes, **value._parameters, **value._buffers, **value._modules}
        case Mapping():
            return {repr(key): each for key, each in value.items()}
        case list() | tuple():
            return dict(enumerate(value))
        case SimpleNamespace():
            return vars(value)
        case partial():
            return {"of": value.func, "arguments": value.args, **value.keywords}
        case FunctionType():
            cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
            return {name: _content(cell) for name, cell in cells}
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name, None) for each in fields(value)}
    return None


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the variable has no value yet
        return None


def _text(name: str, value: Any) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    head = f"{tuple(value.shape)} {value.dtype}"
    digest = hashlib.sha256()
    for part in _dense_parts(name, value):
        digest.update(as_bytes(part).numpy().data)
    return f"{head} {digest.hexdigest()}"


def as_bytes(tensor: Tensor) -> Tensor:
    """The bytes of an ordinary tensor, uint8 (N,) on the CPU, in the order of its elements."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _dense_parts(name: str, tensor: Tensor) -> list[Tensor]:
    """Ordinary tensors that hold all that a quantised or sparse one does."""
    if tensor.is_meta:
        raise ModelError(f"{name} has no values yet; load the weights, then retry")
    if tensor.is_quantized:
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            scales = [torch.tensor([tensor.q_scale(), float(tensor.q_zero_point())])]
        else:
            scales = [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]
        return [tensor.int_repr(), *scales]
    if tensor.layout != torch.strided:
        return [tensor.to_dense()]
    return [tensor]
