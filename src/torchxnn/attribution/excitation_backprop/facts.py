"""What rules ask of the numbers of a forward pass, answered for all operations at once.

A question to a tensor on a GPU makes Python wait until all that was started there is done. So what
is known of the structure is not asked, and the rest is read back in one go before the walk.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TypeGuard

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.rules.table import rule_of
from torchxnn.attribution.excitation_backprop.silence import POOLS, rectifies
from torchxnn.attribution.excitation_backprop.tape import Operation, Value, leaves
from torchxnn.errors import UnsupportedOperationError

_NEVER_NEGATIVE = {"sigmoid", "hardsigmoid", "_softmax", "_safe_softmax", "exp", "sqrt"}
_KEEP_SIGN = {
    "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d",
    "adaptive_avg_pool2d", "mean", "sum", "native_dropout", "mul", "add", "max_pool2d",
    "adaptive_max_pool2d", *POOLS,
}  # fmt: skip
"""Operations of which nothing is negative where none of their inputs is."""

_INDEXED = {"index", "index_select", "gather", "take"}
"""Operations that take places beside what they move."""

_Question = tuple[Operation, str, Tensor, Callable[[float], bool]]


def learn(
    operations: Sequence[Operation], begin: int, wanted: set[Value], readers: Counter[Value]
) -> None:
    """Answer, in `Operation.known`, what the walk will ask of the operations that it passes.

    - "signed": whether an element of the input that competes is negative;
    - "positive": whether a weight is, where no element of that input is negative;
    - "flips": whether an element of the scale of a normalisation or product is negative.

    Args:
        operations: in the order in which they ran.
        begin: the first of them that relevance may pass.
        wanted: values that relevance may reach.
        readers: how many operations read each value.
    """
    safe: set[Value | None] = set()
    questions: list[_Question] = []
    for index, operation in enumerate(operations):
        if never_negative(operation, safe):
            safe.update(operation.outputs if _moves(operation) else [operation.output])
        reached = any(o in wanted for o in operation.outputs if o is not None)
        if index < begin or not reached:
            continue
        try:
            questions += _questions(operation, safe, readers)
        except UnsupportedOperationError:
            continue  # raised when relevance arrives there
    _answer(questions)


def never_negative(operation: Operation, safe: set[Value | None]) -> bool:
    """Whether it is certain that no element of an operation's output is negative.

    Args:
        operation: any.
        safe: values of which that is certain.
    """
    if operation.name in _NEVER_NEGATIVE:
        return True
    if rectifies(operation):
        return all(number >= 0 for number in _numbers(operation))
    if operation.name not in _KEEP_SIGN and not _moves(operation):
        return False
    if operation.name in _KEEP_SIGN and not all(each >= 0 for each in _numbers(operation)):
        return False
    values = list(leaves((operation.args, operation.kwargs), Value))
    if operation.name in _INDEXED:
        values = values[:1]
    return all(value in safe or _is_mask(value) for value in values)


def _moves(operation: Operation) -> bool:
    """Whether every element of its outputs is one of its inputs, none of them filled in."""
    rule = rule_of(operation)
    if rule is None or not rule.copies:
        return False
    return operation.name in ("cat", "stack") or not rule.mixes_constants(operation)


def _numbers(operation: Operation) -> list[float]:
    given = [*operation.args, *operation.kwargs.values()]
    return [float(each) for each in given if isinstance(each, (int, float))]


def _questions(
    operation: Operation, safe: set[Value | None], readers: Counter[Value]
) -> list[_Question]:
    rule, known = rule_of(operation), operation.known
    found: list[_Question] = []
    if rule is not None and rule.factors is not None and "signed" not in known:
        source, weight = rule.factors(operation)
        if source in safe:
            known["signed"] = False
            if weight is not None and _has_numbers(weight.tensor):
                found.append((operation, "positive", weight.tensor.amax(), _above_zero))
        elif _has_numbers(source.tensor):
            found.append((operation, "signed", source.tensor.amin(), _below_zero))
    scale = None if rule is None or rule.scale is None else rule.scale(operation)
    folds = all(readers[value] == 1 for value in operation.dependents)  # else nobody asks
    if folds and isinstance(scale, Value) and "flips" not in known:
        if scale in safe:
            known["flips"] = False
        elif _has_numbers(scale.tensor):
            found.append((operation, "flips", scale.tensor.amin(), _below_zero))
    return found


def _is_mask(value: Value) -> bool:
    return value.tensor is not None and value.tensor.dtype == torch.bool


def _has_numbers(tensor: Tensor | None) -> TypeGuard[Tensor]:
    return tensor is not None and tensor.numel() > 0


def _below_zero(least: float) -> bool:
    return not least >= 0  # NaN hides what is below


def _above_zero(most: float) -> bool:
    return not most <= 0


def _answer(questions: list[_Question]) -> None:
    """Read all answers back, at once for each device and precision."""
    groups = defaultdict(list)
    for question in questions:
        number = question[2]
        groups[number.device, number.dtype].append(question)
    for group in groups.values():
        numbers = torch.stack([number for _, _, number, _ in group]).tolist()
        for (operation, fact, _, holds), number in zip(group, numbers, strict=True):
            operation.known[fact] = holds(float(number))  # of whole numbers too
