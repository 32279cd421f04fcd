"""Rules of operations that only move elements, and of those that select some of them.

Every output element of such an operation is a copy of one input element, so y = S x with one 1 in
each row of S, and relevance moves back exactly: R_x = S^T R_y. Elements filled with a constant
have an empty row and never receive relevance, since they take no part in the competitions above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from torchxnn.attribution.excitation_backprop.along import Along, KnownAlong, of_all
from torchxnn.attribution.excitation_backprop.competition import Negative
from torchxnn.attribution.excitation_backprop.linear_map import laid_out
from torchxnn.attribution.excitation_backprop.propagation import Walk
from torchxnn.attribution.excitation_backprop.rules.table import (
    Shares,
    argument,
    by_autograd,
    only_dependent,
    refuse,
    register,
    sign_of_target,
    sum_to,
)
from torchxnn.attribution.excitation_backprop.tape import Operation, Value, positions

_register = partial(register, copies=True)


def replay(operation: Operation, constant: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """The operation as a function of its dependent inputs, in their order.

    Args:
        operation: a recorded operation.
        constant: what to put in place of the other real-valued tensors.
    """
    return partial(_replayed, operation, constant)


def _replayed(operation: Operation, constant: Callable[[Tensor], Tensor], *tensors: Tensor) -> Any:
    fill = partial(_filled, iter(tensors), constant)
    args, kwargs = tree_map_only(Value, fill, (operation.args, operation.kwargs))
    return operation.func(*args, **kwargs)


def _filled(
    given: Iterator[Tensor], constant: Callable[[Tensor], Tensor], value: Value
) -> Tensor | None:
    if value.dependent and value.floating:
        return next(given)
    tensor = value.tensor
    return constant(tensor) if tensor is not None and value.floating else tensor


def moved_owners(operation: Operation, get: Callable[[Value], Tensor]) -> list[Tensor]:
    """Owners move as the elements do; an element that a zero input also gives is a constant."""
    run = replay(operation, lambda tensor: torch.zeros_like(tensor, dtype=torch.float))
    owners = [get(value).float() for value in operation.dependents]
    moved = run(*owners)
    base = run(*(torch.zeros_like(owner) for owner in owners))
    if isinstance(moved, Tensor):
        return [moved - base]
    return [a - b if a.is_floating_point() else a for a, b in zip(moved, base, strict=True)]


def _reshaped_owners(operation: Operation, get: Callable[[Value], Tensor]) -> Tensor:
    return get(only_dependent(operation)).reshape(operation.output.shape)


def _reshaped_along(operation: Operation, known: KnownAlong) -> Along | None:
    value = only_dependent(operation)
    along = known(value)
    return None if along is None else along.reshaped(value.shape, operation.output.shape)


def _reshaped_sign(operation: Operation, negative: Negative) -> Negative:
    if isinstance(negative, bool):
        return negative
    return negative.reshape(only_dependent(operation).shape)


@_register(
    "view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy", "unsqueeze", "squeeze",
    "clone", "detach", "alias", "_to_copy", "lift_fresh",
    owners=_reshaped_owners, along=_reshaped_along, sign=_reshaped_sign,
)  # fmt: skip
def reshape(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Same elements in the same order: R_x = R_y in the shape of x."""
    value = only_dependent(operation)
    received = _first(relevance)
    return [(value, received.reshape(received.shape[0], *value.shape))]


def _order(operation: Operation) -> list[int]:
    """The permutation as a list: dimension k of the output is dimension order[k] of the input."""
    count = len(only_dependent(operation).shape)
    order = list(range(count))
    if operation.name == "permute":
        return [dim % count for dim in operation.args[1]]
    if operation.name == "t":
        return order[::-1]
    first, second = operation.args[1] % count, operation.args[2] % count
    order[first], order[second] = second, first
    return order


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _permuted_sign(operation: Operation, negative: Negative) -> Negative:
    if isinstance(negative, bool):
        return negative
    return negative.permute(_inverse(_order(operation)))


def _permuted_along(operation: Operation, known: KnownAlong) -> Along | None:
    along = known(only_dependent(operation))
    if along is None or along.images == 1:
        return along
    return along.at(_order(operation).index(along.dim))


@_register(
    *("permute", "transpose", "t"),
    owners=lambda operation, get: get(only_dependent(operation)).permute(_order(operation)),
    along=_permuted_along,
    sign=_permuted_sign,
)
def permute(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Dimensions in another order: R_x is R_y with the order undone."""
    back = [0, *(index + 1 for index in _inverse(_order(operation)))]
    return [(only_dependent(operation), _first(relevance).permute(back))]


_OF_ONE_DIM = {"slice", "narrow", "split", "split_with_sizes", "chunk", "index_select"}
_OF_THE_LAST_DIMS = {
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
    "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
    "upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact2d",
    "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "adaptive_max_pool2d",
}  # fmt: skip


def _moved_along(operation: Operation, known: KnownAlong) -> Along | None:
    value, name = only_dependent(operation), operation.name
    along, rank = known(value), len(value.shape)
    if along is None or name == "im2col":  # which fills in zeros
        return None
    if along.images == 1:
        return along
    if name in _OF_ONE_DIM:
        return along.without([argument(operation, "dim")], rank, keep=True)
    if name in ("select", "unbind"):
        return along.without([argument(operation, "dim")], rank)
    if name in ("roll", "flip"):
        return along.without(argument(operation, "dims") or range(rank), rank, keep=True)
    if name == "expand":
        return along.broadcast(value.shape, operation.output.shape)
    if name in ("pixel_shuffle", "pixel_unshuffle") and rank == 3:  # the images are its channels
        return None
    return along if name in _OF_THE_LAST_DIMS and along.outermost else None


def _joined_along(operation: Operation, known: KnownAlong) -> Along | None:
    if operation.name not in ("cat", "stack"):
        return None
    dim, values = argument(operation, "dim"), list(operation.args[0])
    if not all(value.dependent and value.floating for value in values):
        return None
    if len({tuple(value.shape) for value in values}) > 1 and operation.name == "stack":
        return None
    found = [known(value) for value in values]
    along, rank = found[0], len(values[0].shape)
    if along is None or any(each != along for each in found):
        return None
    if operation.name == "cat":
        return along.without([dim], rank, keep=True)
    return along.at(along.dim + (dim % (rank + 1) <= along.dim))


@_register(
    "slice", "select", "narrow", "split", "split_with_sizes", "unbind", "chunk", "expand", "repeat",
    "roll", "flip", "rot90", "index", "index_select", "gather", "take", "diagonal", "unfold",
    "im2col", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle",
    "reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d",
    "upsample_nearest1d", "upsample_nearest2d", "_upsample_nearest_exact2d",
    owners=moved_owners, along=_moved_along, sign=sign_of_target,
)  # fmt: skip
@_register(
    "cat", "stack", "constant_pad_nd", "where", "masked_fill", "index_put", "scatter",
    "slice_scatter", "select_scatter", "tril", "triu",
    owners=moved_owners, along=_joined_along, sign=sign_of_target,
    mixes_constants=lambda operation: True,
)  # fmt: skip
def move(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Each output element copies one input element (or none): R_x = S^T R_y."""
    if operation.name in _VIEWS:
        return _put_back(operation, relevance)
    dtype, dependents = _first(relevance).dtype, operation.dependents
    run = replay(operation, lambda tensor: tensor.to(dtype))
    shapes = [value.shape for value in dependents]
    return list(zip(dependents, by_autograd(run, shapes, relevance), strict=True))


_VIEWS = {"slice", "select", "narrow", "split", "split_with_sizes", "unbind", "chunk"}
"""Operations whose outputs are parts of their input that do not overlap."""


def _put_back(operation: Operation, relevance: list[Tensor | None]) -> Shares:
    """Relevance of parts of a value, written where they were taken from."""
    value, some = only_dependent(operation), _first(relevance)
    whole = some.new_zeros((some.shape[0], *value.shape))
    run = replay(operation, lambda tensor: tensor)
    for seed in range(some.shape[0]):
        parts = run(whole[seed])
        parts = [parts] if isinstance(parts, Tensor) else parts  # also several that are one
        for part, each in zip(parts, relevance, strict=True):
            if each is not None:
                part.copy_(each[seed])
    return [(value, whole)]


@_register(
    "copy",
    owners=lambda operation, get: get(operation.args[1]).expand(operation.args[0].shape),
    along=lambda operation, known: of_all([operation.args[1]], operation.args[0].shape, known),
)
def copy(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """`x.copy_(source)`: the old content is gone, the source receives all (broadcasting summed)."""
    source = operation.args[1]
    return [(source, sum_to(_first(relevance), source.shape))]


def _aliased_owners(operation: Operation, get: Callable[[Value], Tensor]) -> Tensor:
    old, written = operation.args
    source, inside = _overwritten(operation)
    owner = get(old).reshape(-1).clone()
    owner[inside] = get(written).reshape(-1)[source[inside]].to(owner.dtype)
    return owner.reshape(old.shape)


def _index_in(other: Value, view: Value) -> Tensor:
    """For each element of a view: its index in another view of the same memory, or -1."""
    device = torch.device("cpu") if other.tensor is None else other.tensor.device
    theirs, mine = positions(other.geometry, device), positions(view.geometry, device)
    table = torch.full((int(torch.maximum(mine.max(), theirs.max())) + 1,), -1, device=device)
    table[theirs] = torch.arange(theirs.numel(), device=device)
    return table[mine]


def _overwritten(operation: Operation) -> tuple[Tensor, Tensor]:
    """For each element of the old view: its index in the written view, and whether it has one."""
    if "source" not in operation.cache:
        old, written = operation.args
        operation.cache["source"] = _index_in(written, old)
    source = operation.cache["source"]
    return source, source >= 0


@_register("alias_update", owners=_aliased_owners, mixes_constants=lambda operation: True)
def alias_update(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """A view whose memory another view partly overwrote: each element to its last writer."""
    old, written = operation.args
    source, inside = _overwritten(operation)
    flat = _first(relevance).flatten(1)
    shares: Shares = []
    if old.dependent:
        rest = flat.masked_fill(inside, 0)
        shares.append((old, rest.reshape(rest.shape[0], *old.shape)))
    if written.dependent:
        new = flat.new_zeros((flat.shape[0], written.shape.numel()))
        new.index_add_(1, source[inside], flat[:, inside])
        shares.append((written, new.reshape(new.shape[0], *written.shape)))
    return shares


def _strided_owners(operation: Operation, get: Callable[[Value], Tensor]) -> Tensor:
    owner = get(only_dependent(operation))
    if _same_view(operation):
        return owner
    return owner.reshape(-1)[_strided_source(operation)].reshape(operation.output.shape)


def _strided_source(operation: Operation) -> Tensor:
    source = _index_in(only_dependent(operation), operation.output)
    if bool((source < 0).any()):
        raise refuse(operation, "it reads memory outside its input; use slicing instead")
    return source


def _same_view(operation: Operation) -> bool:
    return operation.output.geometry == only_dependent(operation).geometry


@_register(
    "as_strided",
    owners=_strided_owners,
    along=lambda operation, known: (
        known(only_dependent(operation)) if _same_view(operation) else None
    ),
    sign=lambda operation, negative: negative if _same_view(operation) else None,
)
def as_strided(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Another view of the same memory: each element back to the one at its position."""
    value, received = only_dependent(operation), _first(relevance)
    if _same_view(operation):
        return [(value, received)]
    back = received.new_zeros((received.shape[0], value.shape.numel()))
    back.index_add_(1, _strided_source(operation), received.flatten(1))
    return [(value, back.reshape(received.shape[0], *value.shape))]


def _selected_owners(operation: Operation, get: Callable[[Value], Tensor]) -> Tensor:
    run = replay(operation, lambda tensor: torch.zeros_like(tensor, dtype=torch.float))
    result = run(*(get(value).float() for value in operation.dependents))
    return result if isinstance(result, Tensor) else result[0]


def _selected_along(operation: Operation, known: KnownAlong) -> Along | None:
    values = operation.dependents
    if len(values) > 1:
        return of_all(values, operation.output.shape, known)
    return _moved_along(operation, known)


@_register(
    "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool2d", "adaptive_max_pool2d",
    "amax", "max", "maximum", "topk",
    owners=_selected_owners, along=_selected_along, sign=sign_of_target,
)  # fmt: skip
def select_largest(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """The winner takes all: R_y goes to the arg max (ties as PyTorch's derivative breaks them)."""
    received = _first(relevance)
    if operation.name == "max_pool2d_with_indices" and received.ndim == 5:
        value = only_dependent(operation)
        index = operation.outputs[1]
        if walk.takes_part(value) is None and index is not None and index.tensor is not None:
            back = _to_recorded_maxima(operation, received, walk.data(value), index.tensor)
            return [(value, back)]
    run = replay(operation, lambda tensor: tensor.to(received.dtype))
    data = []
    for value in operation.dependents:
        mask = walk.takes_part(value)
        x = walk.data(value)
        data.append(x if mask is None else torch.where(mask, x, -torch.inf))
    return list(zip(operation.dependents, by_autograd(run, data, relevance), strict=True))


def _to_recorded_maxima(operation: Operation, received: Tensor, x: Tensor, index: Tensor) -> Tensor:
    """Relevance of a max pooling by the indices of its own forward pass, without a copy."""
    settings = [*operation.args[1:], *((2, 2), [], 0, 1, False)[len(operation.args) - 1 :]]
    settings[1] = settings[1] or settings[0]
    padded, dilation, ceil_mode = settings[2], settings[3], settings[4]
    pair = [
        setting if isinstance(setting, list) else [setting] * 2 for setting in (padded, dilation)
    ]
    nhwc = received.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if nhwc else torch.contiguous_format
    x, where = laid_out(x, layout), laid_out(index, layout)
    back = torch.empty(
        (received.shape[0] * x.shape[0], *x.shape[1:]),
        dtype=received.dtype,
        device=received.device,
        memory_format=layout,
    ).unflatten(0, (received.shape[0], x.shape[0]))
    for seed in range(received.shape[0]):
        torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
            received[seed], x, settings[0], settings[1], *pair, ceil_mode, where,
            grad_input=back[seed],
        )  # fmt: skip
    return back


def _first(relevance: list[Tensor | None]) -> Tensor:
    return next(tensor for tensor in relevance if tensor is not None)
