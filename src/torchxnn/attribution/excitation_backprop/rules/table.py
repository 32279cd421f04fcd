"""The table of rules: one small function per operation, found by its aten name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.along import Along, KnownAlong
from torchxnn.attribution.excitation_backprop.competition import Negative
from torchxnn.attribution.excitation_backprop.tape import Operation, Value
from torchxnn.errors import UnsupportedOperationError

Shares = list[tuple[Value, Tensor]]
"""What a rule returns: inputs of the operation and the relevance (seeds, *shape) each receives."""


# The last argument is the `Walk` that calls the rule; its module imports this table.
Propagate = Callable[[Operation, list[Tensor | None], Any], Shares]
Owners = Callable[[Operation, Callable[[Value], Tensor]], Tensor | list[Tensor]]
Where = Callable[[Operation, KnownAlong], Along | None]
Signs = Callable[[Operation, Negative], Negative | None]


@dataclass(frozen=True)
class Rule:
    """How one operation treats relevance.

    Attributes:
        propagate: relevance of the outputs to relevance of the inputs.
        owners: which image each output element comes from (0 for none), from that of the inputs;
            asked where `along` does not tell.
        along: where the images lie in all outputs, as far as shapes tell; None if they do not, or
            if some output elements are of no image.
        factors: the input whose elements compete and their weights, of an operation that ends in a
            competition of weighted inputs; None for weights that are known to be positive.
        scale: what the input is multiplied by, of an operation that freezes a factor.
        sign: sign of the output to the sign of the unit that feeds it, for operations that belong
            to the unit (folding); None if the operation ends a unit.
        linear: whether it is a linear operation with weights; the unit that a fold looks for, and
            the operation whose weights the dual unit of the contrastive map negates.
        keeps_target: whether the sign of a target passes to all inputs: a target that is a sum or
            an average of linear units asks what speaks for it, in each of them.
        mixes_constants: whether its output can hold elements that do not depend on the images
            although all elements of its dependent inputs do.
        copies: whether every element of its output is a copy of an element of its inputs (or a
            constant), so that a moved gate is still a gate.
    """

    propagate: Propagate
    owners: Owners
    along: Where = lambda operation, known: None
    factors: Callable[[Operation], tuple[Value, Value | None]] | None = None
    scale: Callable[[Operation], object] | None = None
    sign: Signs | None = None
    linear: bool = False
    keeps_target: Callable[[Operation], bool] = lambda operation: False
    mixes_constants: Callable[[Operation], bool] = lambda operation: False
    copies: bool = False


RULES: dict[str, Rule] = {}


def register(*names: str, **options: Any) -> Callable[[Propagate], Propagate]:
    """Register a rule for aten operations by name, such as `convolution`.

    Args:
        names: operation names without namespace and overload; in-place forms need none of their
            own, they are recorded in their functional form.
        options: the other attributes of `Rule`.
    """

    def add(propagate: Propagate) -> Propagate:
        for name in names:
            RULES[name] = Rule(propagate, **options)
        return propagate

    return add


def sign_of_target(operation: Operation, negative: Negative) -> Negative | None:
    """Pass on the sign of a target, which is one for all units, and no mask of signs per element.

    Through an activation, the unit below is explained as the target is; through an operation that
    moves elements, a mask would have to be taken apart.
    """
    return negative if isinstance(negative, bool) else None


def rule_of(operation: Operation) -> Rule | None:
    """The rule of a recorded operation, or None."""
    if isinstance(operation.func, str):
        return RULES.get(operation.func)
    return RULES.get(operation.name) if has_rule(operation.func) else None


def has_rule(func: Any) -> bool:
    """Whether an aten overload has a rule (variants that write to an `out` argument have none)."""
    return (
        func._schema.name.startswith("aten::")
        and func._schema.name[6:] in RULES
        and not func._schema.is_mutable
    )


def refuse(operation: Operation, why: str) -> UnsupportedOperationError:
    """The error for an operation that relevance cannot pass, naming it and its place."""
    return UnsupportedOperationError(
        f"excitation backprop cannot pass {operation.full_name} in {operation.place}: {why}"
    )


def only_dependent(operation: Operation) -> Value:
    """The single input computed from the images.

    Raises:
        UnsupportedOperationError: there are several.
    """
    found = operation.dependents
    if len(found) != 1:
        raise refuse(operation, f"it has {len(found)} inputs that depend on the images, not one")
    return found[0]


def argument(operation: Operation, name: str, default: Any = None) -> Any:
    """An argument of an operation by its name in the schema, given by position or keyword."""
    if name in operation.kwargs:
        return operation.kwargs[name]
    for index, formal in enumerate(operation.func._schema.arguments):
        if formal.name == name:
            return operation.args[index] if index < len(operation.args) else formal.default_value
    return default


def sum_to(relevance: Tensor, shape: torch.Size) -> Tensor:
    """Undo broadcasting: (seeds, *larger shape) summed to (seeds, *shape)."""
    extra = relevance.ndim - 1 - len(shape)
    if extra > 0:
        relevance = relevance.sum(dim=tuple(range(1, extra + 1)))
    stretched = [
        index + 1
        for index, size in enumerate(shape)
        if size == 1 and relevance.shape[index + 1] != 1
    ]
    return relevance.sum(dim=stretched, keepdim=True) if stretched else relevance


def by_autograd(
    function: Callable[..., Any],
    points: Sequence[torch.Size | Tensor],
    relevance: list[Tensor | None],
) -> list[Tensor]:
    """Transpose of the derivative of a (piecewise) linear function, as PyTorch computes it.

    Args:
        function: returns a tensor or a sequence of tensors.
        points: where to differentiate; the shapes of the arguments are enough for a linear one.
        relevance: one (seeds, *output shape) per output, None for zero.

    Returns:
        One (seeds, *shape) per argument.
    """
    some = next(tensor for tensor in relevance if tensor is not None)
    with torch.inference_mode(False), torch.enable_grad():
        starts = [p.detach() if isinstance(p, Tensor) else some.new_zeros(p) for p in points]
        arguments = [start.requires_grad_() for start in starts]
        result = function(*arguments)
        outputs = [result] if isinstance(result, Tensor) else list(result)
        used = [
            (output, tensor)
            for output, tensor in zip(outputs, relevance, strict=True)
            if tensor is not None
        ]
        received = [some.new_zeros((some.shape[0], *point.shape)) for point in arguments]
        for seed in range(some.shape[0]):
            # As sums, since PyTorch loads SymPy to compare the shapes of outputs and gradients.
            gradients = torch.autograd.grad(
                [(output * tensor[seed]).sum() for output, tensor in used],
                arguments,
                retain_graph=seed + 1 < some.shape[0],
                allow_unused=True,
            )
            for target, gradient in zip(received, gradients, strict=True):
                if gradient is not None:
                    target[seed] = gradient
    return received
