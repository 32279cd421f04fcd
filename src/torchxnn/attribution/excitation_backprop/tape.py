"""What a forward pass leaves behind: values, the operations between them, and where they ran."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

_Leaf = TypeVar("_Leaf")

Geometry = tuple[tuple[int, ...], tuple[int, ...], int]
"""Size, stride and storage offset of a tensor: which elements of its memory block it shows."""


@dataclass(eq=False, slots=True, repr=False)
class Value:
    """One version of one tensor.

    Attributes:
        tensor: the data; a saved copy if the memory was overwritten later; None if never needed.
        shape: its shape.
        geometry: its place in its memory block.
        dependent: whether it was computed from the images; everything else is a constant.
        producer: the operation that made it; None for the images and for constants.
    """

    tensor: Tensor | None
    shape: torch.Size
    geometry: Geometry
    dependent: bool
    producer: Operation | None = None

    @classmethod
    def of(cls, tensor: Tensor, *, dependent: bool, producer: Operation | None = None) -> Value:
        """The present version of a tensor."""
        return cls(tensor, tensor.shape, geometry_of(tensor), dependent, producer)

    @property
    def floating(self) -> bool:
        """Whether it holds real numbers: indices and masks carry no relevance."""
        return self.tensor is None or self.tensor.is_floating_point()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an operation ran: the innermost module and the user's source line."""

    module: str
    file: str
    line: int

    def __str__(self) -> str:
        source = f" ({Path(self.file).name}:{self.line})" if self.file else ""
        return f"{self.module or 'the outermost module'}{source}"


@dataclass(eq=False, slots=True, repr=False)
class Operation:
    """One recorded operation, in its functional form (`add_` is recorded as `add`).

    Attributes:
        func: the aten overload.
        args: positional arguments with `Value` in place of every tensor.
        kwargs: keyword arguments, also with `Value` in place of every tensor.
        outputs: one `Value` per returned tensor, None for what is not a tensor.
        place: where it ran.
        cache: what a rule computed once and needs for every seed.
        known: facts of its inputs, see `facts`.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value | None, ...]
    place: Place
    cache: dict[str, Any] = field(default_factory=dict)
    known: dict[str, bool] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The operation's name without the namespace, such as `convolution`."""
        return self.func if isinstance(self.func, str) else self.func._schema.name.split("::")[1]

    @property
    def full_name(self) -> str:
        """The operation's name as PyTorch writes it, such as `aten.convolution.default`."""
        return str(self.func)

    @property
    def output(self) -> Value:
        """The first tensor that it returned; every operation with a rule returns one."""
        return next(output for output in self.outputs if output is not None)

    @property
    def dependents(self) -> list[Value]:
        """The tensor arguments that hold real numbers computed from the images, in their order."""
        given = leaves((self.args, self.kwargs), Value)
        return [value for value in given if value.dependent and value.floating]


@dataclass(frozen=True, eq=False)
class Tape:
    """What one forward pass did.

    Attributes:
        operations: in the order in which they ran.
        images: the images the pass began with.
        output: what the module returned.
        stop: the output of the layer to stop at, or None.
    """

    operations: list[Operation]
    images: Value
    output: Value
    stop: Value | None


def forget(operation: Operation) -> None:
    """Free what an operation computed; the data of later operations must not be needed any more."""
    operation.cache.clear()
    for output in operation.outputs:
        if output is not None:
            output.tensor = None


def erase(operations: list[Operation]) -> None:
    """Free a whole tape at once; its reference cycles would keep it until Python collects them."""
    for operation in operations:
        forget(operation)
        for output in operation.outputs:
            if output is not None:
                output.producer = None
    operations.clear()


def geometry_of(tensor: Tensor) -> Geometry:
    """Size, stride and offset; strides of dimensions of size 1 say nothing and read 0."""
    if tensor.layout != torch.strided:
        return tuple(tensor.shape), (), 0
    stride = tuple(
        0 if size == 1 else step for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )
    return tuple(tensor.shape), stride, int(tensor.storage_offset())


def positions(geometry: Geometry, device: torch.device) -> Tensor:
    """Where each element of a view lies in its memory block, flattened (int64)."""
    size, stride, offset = geometry
    place = torch.full((), offset, dtype=torch.int64, device=device)
    for length, step in zip(size, stride, strict=True):
        place = place.unsqueeze(-1) + step * torch.arange(length, device=device)
    return place.flatten()


def leaves(tree: Any, kind: type[_Leaf]) -> Iterator[_Leaf]:
    """Everything of one kind in nested lists, tuples and dictionaries, in their order."""
    # PyTorch's `_pytree` takes so much longer that the maps of small images would notice.
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from leaves(item, kind)
    elif isinstance(tree, dict):
        yield from leaves(list(tree.values()), kind)
