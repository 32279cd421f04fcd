"""Rules of linear operations: convolutions, matrix products, attention and pooling.

All of them hand a `LinearMap` to the competition of `competition.py`, which holds the formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.along import Along, KnownAlong
from torchxnn.attribution.excitation_backprop.linear_map import LinearMap
from torchxnn.attribution.excitation_backprop.owners import unrepeated
from torchxnn.attribution.excitation_backprop.propagation import Walk
from torchxnn.attribution.excitation_backprop.rules.elementwise import gate_rank
from torchxnn.attribution.excitation_backprop.rules.shape import replay
from torchxnn.attribution.excitation_backprop.rules.table import (
    Shares,
    argument,
    by_autograd,
    only_dependent,
    refuse,
    register,
)
from torchxnn.attribution.excitation_backprop.tape import Operation, Value


def _compete(
    operation: Operation,
    relevance: list[Tensor | None],
    walk: Walk,
    value: Value,
    linear: LinearMap,
) -> Shares:
    """What the only input that takes part in a linear operation receives."""
    if relevance[0] is None:
        raise refuse(operation, "only its first output has a rule")
    return [(value, walk.compete(operation, linear, value, relevance[0]))]


# --- convolution -----------------------------------------------------------------------------


def _convolution_owners(operation: Operation, get: Callable[[Value], Tensor]) -> Tensor:
    owner = get(operation.args[0])
    image = _image_of_each(unrepeated(owner)).expand(operation.output.shape)
    size = torch.ones_like(operation.args[1].tensor, dtype=torch.float)
    reached = _convolution(operation, size).apply((owner > 0).float(), size)
    return torch.where(reached > 0.5, image, 0)


def _convolution_along(operation: Operation, known: KnownAlong) -> Along | None:
    along = known(operation.args[0])
    return along if along is not None and along.outermost and not _has_gaps(operation) else None


def _image_of_each(owner: Tensor) -> Tensor:
    """The image of each row of owners; its other dimensions are cut down to 1."""
    return owner.amax(tuple(range(1, owner.ndim)), keepdim=True)


def _has_gaps(operation: Operation) -> bool:
    """Whether some outputs may see no input at all, only padding or the holes of a stride."""
    kernel = operation.args[1].shape[2:]
    padding, dilation, transposed = operation.args[4], operation.args[5], operation.args[6]
    reach = [step * (size - 1) for size, step in zip(kernel, dilation, strict=False)]
    return transposed or any(pad > far for pad, far in zip(padding, reach, strict=False))


def _recorded(
    operation: Operation, weight: Tensor, bias: Tensor | None, shape: Sequence[int] = (-1,)
) -> tuple[Tensor | None, Tensor | None]:
    """What an operation returned and the bias in it, if it computed in the given precision."""
    output = operation.output.tensor
    if output is None or output.dtype != weight.dtype:
        return None, None
    return output, None if bias is None else bias.reshape(shape)


def _convolution(operation: Operation, weight: Tensor) -> LinearMap:
    settings, shape = operation.args[3:9], operation.args[0].shape
    # Channels-last convolutions are 1.1 to 2 times as fast on CPU (measured), never slower.
    layout = torch.channels_last if len(shape) == 4 else None
    bias = None if operation.args[2] is None else operation.args[2].tensor
    return LinearMap(
        lambda x, w: torch.ops.aten.convolution(x, w, None, *settings),
        partial(_back_through_convolution, settings, shape, layout),
        weight,
        layout,
        *_recorded(operation, weight, bias, (1, -1, *(1 for _ in shape[2:]))),
    )


def _back_through_convolution(
    settings: Sequence[Any],
    shape: Sequence[int],
    layout: torch.memory_format | None,
    q: Tensor,
    weight: Tensor,
) -> Tensor:
    seeds = q.shape[0]
    # Only the shape and layout of the input are read; its memory is never touched.
    like = torch.empty(
        (seeds * shape[0], *shape[1:]),
        dtype=q.dtype,
        device=q.device,
        memory_format=torch.contiguous_format if layout is None else layout,
    )
    back = torch.ops.aten.convolution_backward(
        q.flatten(0, 1), like, weight, None, *settings, [True, False, False]
    )[0]
    return back.unflatten(0, (seeds, shape[0]))


@register(
    "convolution", owners=_convolution_owners, along=_convolution_along, linear=True,
    factors=lambda operation: operation.args[:2], mixes_constants=_has_gaps,
)  # fmt: skip
def convolution(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Convolution of any stride, padding, dilation, groups, transposed: see `competition`."""
    value, weight = operation.args[:2]
    if weight.dependent:
        raise refuse(operation, "its weights depend on the images")
    linear = _convolution(operation, walk.data(weight))
    return _compete(operation, relevance, walk, value, linear)


# --- matrix products -------------------------------------------------------------------------


def from_left(weight: Tensor, *recorded: Tensor | None) -> LinearMap:
    """The map y = x w for x (..., N, K) and w (..., K, M) with equal leading dimensions.

    Args:
        weight: w.
        recorded: `output` and `bias` of the map, if they are at hand.
    """
    output, bias = recorded or (None, None)
    matrix = weight.ndim == 2
    return LinearMap(lambda x, w: x @ w, _back_to_left, weight, None, output, bias, matrix)


def _back_to_left(q: Tensor, weight: Tensor) -> Tensor:
    if weight.ndim == 2:
        return q @ weight.mT
    # (seeds, B, N, M) as (B, seeds * N, M): one product per matrix instead of a copy per seed.
    seeds, rows = q.shape[0], q.shape[-2]
    wide = q.movedim(0, -3).flatten(-3, -2) @ weight.mT
    return wide.unflatten(-2, (seeds, rows)).movedim(-3, 0)


def from_right(weight: Tensor, *recorded: Tensor | None) -> LinearMap:
    """The map y = w x for w (..., N, K) and x (..., K, M); see `from_left`."""
    output, bias = recorded or (None, None)
    return LinearMap(lambda x, w: w @ x, _back_to_right, weight, None, output, bias)


def _back_to_right(q: Tensor, weight: Tensor) -> Tensor:
    seeds, columns = q.shape[0], q.shape[-1]
    wide = weight.mT @ q.movedim(0, -2).flatten(-2)
    return wide.unflatten(-1, (seeds, columns)).movedim(-2, 0)


def _factors(operation: Operation) -> tuple[Value, Value, bool]:
    """(x, w, whether x stands on the left) of a matrix product."""
    first, second = operation.args[-2:] if operation.name in _WITHOUT_BIAS else operation.args[1:3]
    if first.dependent and second.dependent:
        ranks = gate_rank(first), gate_rank(second)
        if ranks[0] == ranks[1]:
            raise refuse(
                operation,
                "a matrix product of two values that depend on the images has no linear reading "
                "unless one of them is a gate such as attention weights (softmax)",
            )
        on_left = ranks[0] < ranks[1]
    else:
        on_left = first.dependent
    return (first, second, True) if on_left else (second, first, False)


_WITHOUT_BIAS = {"mm", "bmm", "mv", "dot"}


def _product_owners(operation: Operation, get: Callable[[Value], Tensor]) -> Tensor:
    value, _, on_left = _factors(operation)
    owner = unrepeated(get(value)).amax(-1 if on_left else -2, keepdim=True)
    return owner.expand(operation.output.shape)


def _product_along(operation: Operation, known: KnownAlong) -> Along | None:
    value, _, on_left = _factors(operation)
    return _of_other_dims(known(value), -1 if on_left else -2, len(value.shape))


def _of_other_dims(along: Along | None, dim: int, rank: int) -> Along | None:
    """Where images lie after a product that sums over one dimension and puts another there."""
    return None if along is None else along.without([dim], rank, keep=True)


@register(
    "mm", "bmm", "addmm", "baddbmm",
    owners=_product_owners, along=_product_along, linear=True,
    factors=lambda operation: _factors(operation)[:2],
)  # fmt: skip
def product(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Product y = x W + b or y = W x + b: see `competition`; attention weights are constants."""
    if operation.name not in _WITHOUT_BIAS:
        if operation.args[0].dependent:
            raise refuse(operation, "the term it adds depends on the images; write x @ w + y")
        if argument(operation, "alpha", 1) < 0:
            raise refuse(operation, "alpha is negative")
    value, weight, on_left = _factors(operation)
    data = walk.data(weight)
    linear = (from_left if on_left else from_right)(data, *_recorded_product(operation, data))
    return _compete(operation, relevance, walk, value, linear)


def _recorded_product(operation: Operation, weight: Tensor) -> tuple[Tensor | None, Tensor | None]:
    if operation.name in _WITHOUT_BIAS:
        return _recorded(operation, weight, None)
    if argument(operation, "alpha", 1) != 1 or argument(operation, "beta", 1) != 1:
        return None, None
    bias = operation.args[0].tensor
    return _recorded(operation, weight, bias, bias.shape)


# --- attention -------------------------------------------------------------------------------


def attention_weights(operation: Operation, walk: Walk) -> Tensor:
    """softmax(scale q k^T + mask), the constant weights with which attention averages v."""
    query, key = (walk.data(argument(operation, name)) for name in ("query", "key"))
    scale = argument(operation, "scale")
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if argument(operation, "is_causal", False):
        keep = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~keep, -torch.inf)
    mask = argument(operation, "attn_mask") or argument(operation, "attn_bias")
    if mask is not None:
        if mask.floating:
            scores = scores + mask.tensor.to(scores.dtype)
        else:
            scores = scores.masked_fill(~mask.tensor, -torch.inf)
    return scores.softmax(-1).nan_to_num(0.0)  # a row masked throughout attends to nothing


def _attention_owners(operation: Operation, get: Callable[[Value], Tensor]) -> Tensor:
    owner = unrepeated(get(argument(operation, "value"))).amax(-2, keepdim=True)
    return owner.expand(operation.output.shape)


def _attention_along(operation: Operation, known: KnownAlong) -> Along | None:
    value = argument(operation, "value")
    return _of_other_dims(known(value), -2, len(value.shape)) if value.dependent else None


@register(
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    owners=_attention_owners, along=_attention_along,
    factors=lambda operation: (argument(operation, "value"), None),
)  # fmt: skip
def attention(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Attention y = A v, frozen A = softmax(...): P(j|i) = (s A_ij v_j)+ / sum (s A_ik v_k)+."""
    value = argument(operation, "value")
    if not value.dependent:
        raise refuse(operation, "its values do not depend on the images")
    if value.shape[:-2] != argument(operation, "query").shape[:-2]:
        raise refuse(operation, "queries and values have different numbers of heads")
    if "weights" not in operation.cache:
        operation.cache["weights"] = attention_weights(operation, walk)
    weights = operation.cache["weights"]
    linear = from_right(weights, *_recorded(operation, weights, None))
    return _compete(operation, relevance, walk, value, linear)


# --- pooling and other averages --------------------------------------------------------------


def _average_owners(operation: Operation, get: Callable[[Value], Tensor]) -> Tensor:
    owner = get(only_dependent(operation))
    run = replay(operation, lambda tensor: tensor)
    reached = run((owner > 0).float())
    pools = operation.name not in ("mean", "sum")
    if pools and len(operation.output.shape) == owner.ndim > 2:
        image = _image_of_each(unrepeated(owner))
    else:
        # Reduced dimensions may be gone: the average of the owners over their share is the owner.
        image = (run(owner.float()) / reached.clamp(min=1e-30)).round().to(owner.dtype)
    return torch.where(reached > 0, image.expand(reached.shape), 0)


def _average_along(operation: Operation, known: KnownAlong) -> Along | None:
    value = only_dependent(operation)
    along, before, after = known(value), value.shape, operation.output.shape
    if along is None or operation.name == "col2im" or operation.output.shape.numel() == 0:
        return None
    if operation.name in ("mean", "sum"):
        dims = argument(operation, "dim") or range(len(before))
        return along.without(dims, len(before), keep=len(before) == len(after))
    return along if along.outermost and len(before) == len(after) else None


@register(
    "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "adaptive_avg_pool2d", "mean", "sum", "upsample_linear1d", "upsample_bilinear2d",
    "_upsample_bilinear2d_aa", "col2im",
    owners=_average_owners, along=_average_along,
    factors=lambda operation: (only_dependent(operation), None),
    keeps_target=lambda operation: True,
)  # fmt: skip
def average(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Average y = A x with fixed A >= 0: P(j | i) = (s a_ij x_j)+ / sum_k (s a_ik x_k)+."""
    value = only_dependent(operation)
    run = replay(operation, lambda tensor: tensor)
    linear = LinearMap(
        lambda x, _: run(x), lambda q, _: by_autograd(run, [value.shape], [q])[0], None
    )
    return _compete(operation, relevance, walk, value, linear)
