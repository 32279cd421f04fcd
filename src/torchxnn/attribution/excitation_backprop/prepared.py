"""A tape with what all walks over it share: who owns which element, and how often it is read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.along import Along
from torchxnn.attribution.excitation_backprop.facts import learn
from torchxnn.attribution.excitation_backprop.owners import Owner
from torchxnn.attribution.excitation_backprop.rules.table import Rule, refuse, rule_of
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

_PARTS = {
    "slice", "select", "narrow", "split", "split_with_sizes", "unbind", "chunk", "index",
    "index_select", "gather", "take", "diagonal", "as_strided", "masked_fill", "where",
}  # fmt: skip
"""Operations that may read a part of what they are given."""


@dataclass(eq=False)
class Prepared:
    """A tape with what all walks over it share.

    Attributes:
        tape: the recorded forward pass.
        images: number of images.
        dtype: precision of the relevance.
        certify: whether sums are taken per image after every operation.
        owners: for each value the image that each element comes from.
        readers: how many operations on the way to the output read each value.
        cut: values of which operations that move elements read a part, so that relevance may not
            reach all of their columns.
        masks: elements of a value that take part, as far as they were asked for.
        refusals: operations whose outputs have no owners, and why; an error once relevance arrives
            at a value that comes from one.
    """

    tape: Tape
    images: int
    dtype: torch.dtype
    certify: bool
    owners: dict[Value, Owner] = field(default_factory=dict)
    readers: Counter[Value] = field(default_factory=Counter)
    cut: set[Value | None] = field(default_factory=set)
    masks: dict[Value, Tensor | None] = field(default_factory=dict)
    refusals: dict[Operation, UnsupportedOperationError] = field(default_factory=dict)


def prepare(tape: Tape, *, certify: bool) -> Prepared:
    """Find out which elements depend on the images and how often each value is read."""
    output = tape.output.tensor
    dtype = torch.float32 if output is None else torch.promote_types(output.dtype, torch.float32)
    prepared = Prepared(tape, tape.images.shape[0], dtype, certify)
    needed = _count_readers(prepared)
    _spread_owners(prepared)
    _find_cut(prepared)
    end = tape.images if tape.stop is None else tape.stop
    begin = 0 if end.producer is None else tape.operations.index(end.producer) + 1
    learn(tape.operations, begin, needed, prepared.readers)
    return prepared


def _count_readers(prepared: Prepared) -> set[Value]:
    """Count how often values are read; returns those that relevance may reach."""
    needed = {prepared.tape.output}
    for operation in reversed(prepared.tape.operations):
        if any(output in needed for output in operation.outputs if output is not None):
            prepared.readers.update(operation.dependents)
            needed.update(operation.dependents)
    return needed


def _find_cut(prepared: Prepared) -> None:
    """Find the values of which later operations may have read a part only."""
    for operation in reversed(prepared.tape.operations):
        rule = rule_of(operation)
        if rule is None or not (rule.copies or rule.scale is not None or rule.sign is not None):
            continue
        if rule.factors is not None or len(operation.dependents) != 1:
            continue
        parts = operation.name in _PARTS or any(o in prepared.cut for o in operation.outputs)
        if parts:
            prepared.cut.update(operation.dependents)


def _spread_owners(prepared: Prepared) -> None:
    owners, tape, images = prepared.owners, prepared.tape, prepared.images
    device = None if tape.images.tensor is None else tape.images.tensor.device
    owners[tape.images] = Owner(tape.images.shape, device, images, Along(images))

    def known(value: Value) -> Along | None:
        return owners[value].along if value in owners else None

    for operation in tape.operations:
        rule = rule_of(operation)
        depends = any(value in owners for value in operation.dependents)
        if rule is None and depends:
            why = HINTS.get(operation.name, "it has no rule")
            prepared.refusals[operation] = refuse(operation, why)
        if rule is None or not (depends or rule.mixes_constants(operation)):
            continue
        try:
            along = rule.along(operation, known) if depends else None
            found = _asked(prepared, rule, operation) if along is None else []
        except UnsupportedOperationError as error:
            prepared.refusals[operation] = error  # raised only if relevance arrives there
            continue
        for index, output in enumerate(operation.outputs):
            if output is not None and output.tensor is not None and output.tensor.is_complex():
                prepared.refusals[operation] = refuse(operation, "complex numbers have no rule")
            if output is None or not output.floating:
                continue
            if along is not None and (index == 0 or rule.copies):
                device = None if output.tensor is None else output.tensor.device
                owners[output] = Owner(output.shape, device, images, along)
            elif index < len(found):
                owner = found[index]
                owners[output] = Owner(output.shape, owner.device, images, tensor=owner)
                if rule.factors is not None or len(operation.dependents) > 1:
                    owners[output].look()  # constants may be gone again, now that values are mixed


def _asked(prepared: Prepared, rule: Rule, operation: Operation) -> list[Tensor]:
    """Owners of the outputs of an operation of which shapes do not tell them."""

    def get(value: Value) -> Tensor:
        if value in prepared.owners:
            return prepared.owners[value].tensor
        device = None if value.tensor is None else value.tensor.device
        one = torch.full((), int(value.dependent), dtype=torch.int32, device=device)
        return one.expand(value.shape)

    found = rule.owners(operation, get)
    return [found] if isinstance(found, Tensor) else found


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
