"""Rules of element-wise operations: activations, affine maps, gates and sums of two values."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.along import Along, KnownAlong, of_all
from torchxnn.attribution.excitation_backprop.competition import Negative
from torchxnn.attribution.excitation_backprop.propagation import Walk
from torchxnn.attribution.excitation_backprop.rules.table import (
    Shares,
    only_dependent,
    refuse,
    register,
    rule_of,
    sign_of_target,
    sum_to,
)
from torchxnn.attribution.excitation_backprop.shares import shares
from torchxnn.attribution.excitation_backprop.tape import Operation, Value


def _carriers(operation: Operation) -> list[Value]:
    product = operation.name in ("mul", "div")
    return [carrier(operation)[0]] if product else operation.dependents


def _owners(operation: Operation, get: Callable[[Value], Tensor]) -> Tensor:
    each = [get(value) for value in _carriers(operation)]
    return reduce(torch.maximum, [owner.expand(operation.output.shape) for owner in each])


def _along(operation: Operation, known: KnownAlong) -> Along | None:
    return of_all(_carriers(operation), operation.output.shape, known)


@register(
    "relu", "relu6", "hardtanh", "gelu", "silu", "mish", "hardswish", "hardsigmoid", "sigmoid",
    "leaky_relu", "prelu", "_prelu_kernel", "elu", "celu", "selu", "tanh", "softplus",
    "log_sigmoid_forward", "threshold", "clamp", "clamp_min", "clamp_max", "exp", "log", "log1p",
    "sqrt", "erf", "pow", "native_dropout",
    owners=_owners, along=_along, sign=sign_of_target,
)  # fmt: skip
def activation(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """y_i = f(x_i) has one input, which wins with probability 1: R_x = R_y."""
    value = only_dependent(operation)
    received = _received(operation, relevance)
    return [(value, sum_to(received, value.shape))]


_TRAILING = ("native_layer_norm", "_fused_rms_norm")
"""Normalisations with a scale for each of the last dimensions."""


def _scale(operation: Operation) -> Value | None:
    weight: Value | None = operation.args[2 if operation.name in _TRAILING else 1]
    return weight


def _norm_sign(operation: Operation, negative: Negative) -> Negative | None:
    weight = _scale(operation)
    scale = None if weight is None else weight.tensor
    if isinstance(negative, bool) or scale is None or not operation.known.get("flips", True):
        return negative
    if operation.name not in _TRAILING:  # one scale per channel
        scale = scale.reshape(1, -1, *(1 for _ in operation.args[0].shape[2:]))
    return negative ^ (scale < 0)


@register(
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update", "cudnn_batch_norm", "miopen_batch_norm", "native_layer_norm",
    "native_group_norm", "_fused_rms_norm",
    owners=lambda operation, get: get(operation.args[0]),
    along=lambda operation, known: known(operation.args[0]), sign=_norm_sign, scale=_scale,
)  # fmt: skip
def normalisation(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Normalisation with frozen statistics, y = gamma / sigma (x - mu) + beta: R_x = R_y.

    Fed by one linear operation it is folded into it: the unit's sign is s = sign(y) sign(gamma).
    """
    return [(operation.args[0], _received(operation, relevance))]


def _scale_sign(operation: Operation, negative: Negative) -> Negative | None:
    value, factor = carrier(operation)
    if not isinstance(factor, Value):
        return negative if factor is None else negative ^ (float(factor) < 0)
    known = operation.known.get("flips")
    if factor.tensor is None or known is False:
        return negative
    if known is None and not bool((factor.tensor < 0).any()):
        return negative
    same = operation.output.shape == value.shape
    return negative ^ (factor.tensor < 0) if same else None


@register("mul", "div", owners=_owners, along=_along, sign=_scale_sign,
          scale=lambda operation: carrier(operation)[1])  # fmt: skip
def scaling(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """Scaling by a constant or a gate, y = x g or y = x / g: the factor is frozen, R_x = R_y.

    Layer scale, squeeze-and-excitation (g = sigmoid(...)) and hand-written swish are all of this
    kind. Products of two values of which neither is a gate are refused.
    """
    value, _ = carrier(operation)
    received = _received(operation, relevance)
    return [(value, sum_to(received, value.shape))]


def carrier(operation: Operation) -> tuple[Value, Value | float | int | None]:
    """The factor of a product that receives the relevance, and the one that is frozen.

    Raises:
        UnsupportedOperationError: neither factor is a constant or a gate.
    """
    first, second = operation.args[:2]
    if not _varies(second):
        return first, second
    if not _varies(first):
        if operation.name == "div":
            raise refuse(operation, "it divides a constant by a value that depends on the images")
        return second, first
    if operation.name == "div":
        return first, second
    if first is second:
        return first, None
    ranks = gate_rank(first, direct=True), gate_rank(second, direct=True)
    if ranks[0] == ranks[1] and ranks[0] > 0:
        ranks = -first.shape.numel(), -second.shape.numel()
    if ranks[0] == ranks[1]:
        raise refuse(
            operation,
            "a product of two values that depend on the images has no linear reading unless one of "
            "them is a gate (sigmoid, softmax, tanh, a norm, ...)",
        )
    return (second, first) if ranks[0] > ranks[1] else (first, second)


def _varies(argument: object) -> bool:
    return isinstance(argument, Value) and argument.dependent and argument.floating


_GATES = {"sigmoid", "hardsigmoid", "tanh", "hardtanh", "_softmax", "_safe_softmax", "rsqrt",
          "reciprocal", "linalg_vector_norm", "norm", "var", "std"}  # fmt: skip
_SOFT_GATES = {"silu", "gelu"}
_KEEP_GATE = {"mul", "div", "add", "sub", "mean", "clamp", "clamp_min", "cat", "stack", "exp"}


def gate_rank(value: Value, *, direct: bool = False) -> int:
    """How clearly a value is a gate: 2 a bounded gate or a statistic, 1 a GLU activation, 0 no.

    Args:
        value: a factor of a product.
        direct: whether the value is the factor itself; `silu(a) * b` is a gated linear unit, while
            activations that were cut up or moved before the product are ordinary features.
    """
    producer = value.producer
    if producer is None:
        return 0
    if producer.name in _GATES:
        return 2
    if producer.name in _SOFT_GATES:
        return 1 if direct else 0
    rule = rule_of(producer)
    if producer.name not in _KEEP_GATE and not (rule is not None and rule.copies):
        return 0
    return min((gate_rank(source) for source in producer.dependents), default=0)


def _sum_sign(operation: Operation, negative: Negative) -> Negative | None:
    if len(operation.dependents) != 1:
        return None
    flipped = _terms(operation)[0][1] < 0
    if isinstance(negative, bool):
        return negative ^ flipped
    if operation.output.shape != operation.dependents[0].shape:
        return None
    return ~negative if flipped else negative


def _terms(operation: Operation) -> list[tuple[Value, float, Tensor | None]]:
    """The dependent terms of a sum with their constant factors."""
    if operation.name == "neg":
        return [(operation.args[0], -1.0, None)]
    if operation.name == "addcmul":
        base, first, second = operation.args
        if _varies(first) and _varies(second):
            raise refuse(operation, "it multiplies two values that depend on the images")
        factor = float(operation.kwargs.get("value", 1))
        terms = [(base, 1.0, None), (first, factor, second.tensor), (second, factor, first.tensor)]
    else:
        args = operation.args
        alpha = float(args[2] if len(args) > 2 else operation.kwargs.get("alpha", 1))
        factors = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}
        pairs = zip(args[:2], factors[operation.name], strict=True)
        terms = [(value, factor, None) for value, factor in pairs]
    return [term for term in terms if _varies(term[0])]


def _adds_up(operation: Operation) -> bool:
    terms = _terms(operation)
    return len(terms) > 1 and all(factor > 0 and weight is None for _, factor, weight in terms)


@register(
    "add", "sub", "rsub", "neg", "addcmul",
    owners=_owners, along=_along, sign=_sum_sign, keeps_target=_adds_up,
)  # fmt: skip
def addition(operation: Operation, relevance: list[Tensor | None], walk: Walk) -> Shares:
    """A sum y = a + b: P(a) = (s a)+ / ((s a)+ + (s b)+); next to a constant R_a = R_y.

    With `alpha` or in `addcmul` the terms carry their constant factors.
    """
    received = _received(operation, relevance)
    terms = _terms(operation)
    if len(terms) == 1:
        value = terms[0][0]
        return [(value, sum_to(received, value.shape))]
    shape = torch.broadcast_shapes(*(value.shape for value, _, _ in terms))
    if "shares" not in operation.cache:
        contributions, masks = [], []
        for value, factor, weight in terms:
            term = walk.data(value)
            term = term if factor == 1 else term * factor
            term = term if weight is None else term * weight.to(term.dtype)
            mask = walk.takes_part(value)
            contributions.append(term.expand(shape))
            masks.append(None if mask is None else mask.expand(shape))
        operation.cache["shares"] = shares(contributions, masks, walk.negative(operation.output))
    parts, fallback = operation.cache["shares"]
    if fallback is not None:
        received = walk.undecided(operation, received, fallback)
    elif all(walk.takes_part(value) is None for value, _, _ in terms):
        walk.shared_by_size()
    return [
        (value, sum_to(received * part, value.shape))
        for (value, _, _), part in zip(terms, parts, strict=True)
    ]


def _received(operation: Operation, relevance: list[Tensor | None]) -> Tensor:
    if relevance[0] is None:
        raise refuse(operation, "its statistics are used as a value")
    return relevance[0]
