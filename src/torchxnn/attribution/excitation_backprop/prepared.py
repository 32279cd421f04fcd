"""A tape with what all walks over it share: who owns which element, and how often it is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.owners import shared_out
from torchxnn.attribution.excitation_backprop.rules.table import refuse, rule_of
from torchxnn.attribution.excitation_backprop.tape import Operation, Tape, Value
from torchxnn.errors import UnsupportedOperationError, XNNError

_LOGITS = (
    "explain the logits instead of the probabilities, or draw with another method "
    "(integrated_gradients)"
)
HINTS = {
    "_softmax": _LOGITS,
    "_log_softmax": _LOGITS,
    "_native_multi_head_attention": "call the module instead of the fused kernel",
    "_transformer_encoder_layer_fwd": "call the module instead of the fused kernel",
}
"""What to do about operations that have no rule."""


@dataclass(eq=False)
class Prepared:
    """A tape with what all walks over it share.

    Attributes:
        tape: the recorded forward pass.
        images: number of images.
        dtype: precision of the relevance.
        certify: whether sums are taken per image after every operation.
        owners: for each value the image that each element comes from, 1-based, 0 for a constant.
        readers: how many operations on the way to the output read each value.
        masks: elements of a value that take part, as far as they were asked for.
        refusals: operations whose outputs have no owners, and why; an error once relevance arrives
            at a value that comes from one.
    """

    tape: Tape
    images: int
    dtype: torch.dtype
    certify: bool
    owners: dict[Value, Tensor] = field(default_factory=dict)
    readers: Counter[Value] = field(default_factory=Counter)
    masks: dict[Value, Tensor | None] = field(default_factory=dict)
    refusals: dict[Operation, UnsupportedOperationError] = field(default_factory=dict)


def prepare(tape: Tape, *, certify: bool) -> Prepared:
    """Find out which elements depend on the images and how often each value is read."""
    output = tape.output.tensor
    dtype = torch.float32 if output is None else torch.promote_types(output.dtype, torch.float32)
    prepared = Prepared(tape, tape.images.shape[0], dtype, certify)
    _count_readers(prepared)
    _spread_owners(prepared)
    return prepared


def _count_readers(prepared: Prepared) -> None:
    needed = {prepared.tape.output}
    for operation in reversed(prepared.tape.operations):
        if any(output in needed for output in operation.outputs if output is not None):
            prepared.readers.update(operation.dependents)
            needed.update(operation.dependents)


def _spread_owners(prepared: Prepared) -> None:
    owners, tape = prepared.owners, prepared.tape
    device = None if tape.images.tensor is None else tape.images.tensor.device
    count = torch.arange(1, prepared.images + 1, dtype=torch.int32, device=device)
    shape = (-1, *(1 for _ in tape.images.shape[1:]))
    owners[tape.images] = count.reshape(shape).expand(tape.images.shape)

    def get(value: Value) -> Tensor:
        if value in owners:
            return owners[value]
        device = None if value.tensor is None else value.tensor.device
        one = torch.full((), int(value.dependent), dtype=torch.int32, device=device)
        return one.expand(value.shape)

    for operation in tape.operations:
        rule = rule_of(operation)
        known = any(value in owners for value in operation.dependents)
        if rule is None and known:
            why = HINTS.get(operation.name, "it has no rule")
            prepared.refusals[operation] = refuse(operation, why)
        if rule is None or not (known or rule.mixes_constants(operation)):
            continue
        try:
            found = rule.owners(operation, get)
        except UnsupportedOperationError as error:
            prepared.refusals[operation] = error  # raised only if relevance arrives there
            continue
        each = [found] if isinstance(found, Tensor) else found
        for output, owner in zip(operation.outputs, each, strict=False):
            if output is not None and output.tensor is not None and output.tensor.is_complex():
                prepared.refusals[operation] = refuse(operation, "complex numbers have no rule")
            if output is None or not output.floating:
                continue
            owners[output] = shared_out(owner).expand(output.shape)


def why_no_owner(prepared: Prepared, value: Value) -> XNNError:
    """The refusal of the nearest operation that a value without owners comes from."""
    sources = [value]
    for source in sources:
        operation = source.producer
        if operation in prepared.refusals:
            return prepared.refusals[operation]
        if operation is not None and source not in prepared.owners:
            sources += [each for each in operation.dependents if each not in sources]
    # Complex numbers break the chain of values that depend on the images: the last refusal before.
    bug = XNNError("a value has no owner; please report this as a bug of torchxnn")
    return next(reversed(prepared.refusals.values()), bug)


def first_non_finite(tape: Tape) -> Operation | None:
    """The first operation whose results hold NaN or infinity."""
    for operation in tape.operations:
        tensors = [output.tensor for output in operation.outputs if output is not None]
        if not all(tensor is None or bool(torch.isfinite(tensor).all()) for tensor in tensors):
            return operation
    return None
