"""Record what a forward pass computes from its images: a tape of aten operations.

A `TorchDispatchMode` sees every operation below autograd and below Python, whatever wrote it: a
module, a functional call, `x += y`, a slice assignment, C++ code inside PyTorch. The set of
operations is small and closed, composites arrive taken apart, and the mode belongs to one thread.

In-place operations make a new *version* of a tensor. A tensor's memory may be seen through several
tensors (views); the tracer keeps one log of writes per memory block, so that a view read after a
write through another view is resolved element by element (`alias_update`), and data that a write
would destroy is copied first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import jaxtyping
import torch
from torch import Tensor, nn
from torch.overrides import BaseTorchFunctionMode

from torchxnn.attribution.excitation_backprop.rules.table import has_rule
from torchxnn.attribution.excitation_backprop.tape import (
    Geometry,
    Operation,
    Place,
    Tape,
    Value,
    erase,
    geometry_of,
    leaves,
)
from torchxnn.errors import LayerError
from torchxnn.models.compiled import plain_name
from torchxnn.models.hooks import in_precision_of, watch_output
from torchxnn.models.outputs import logits_of, shape_or_type
from torchxnn.models.without_compiler import EagerMode

_CALL = nn.Module._call_impl.__code__
_ROOMS = (Path(torch.__file__).parent, Path(jaxtyping.__file__).parent, Path(__file__).parents[1])
# Nobody wants to read that an operation ran in PyTorch or in an attribution method.
_LIBRARY = (*map(str, _ROOMS), "<")
# In-place operations that replace the whole content, so that the old one does not matter.
_OVERWRITE = {"copy_", "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "random_"}

# Operations that take a tensor for its shape and type alone.
_SHAPE_ONLY = {
    f"{kind}{form}"
    for kind in ("empty", "zeros", "ones", "full", "rand", "randn", "new_empty", "new_zeros")
    for form in ("", "_like", "_strided")
} | {"new_ones", "new_full", "randint_like"}


@dataclass(eq=False, slots=True)
class _Memory:
    """One memory block: who wrote to it, and which versions still live in it."""

    anchor: Tensor
    writes: list[tuple[Geometry, Value]] = field(default_factory=list)
    living: list[Value] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Binding:
    tensor: Tensor
    value: Value
    seen: int


class Tracer(EagerMode):
    """Records the operations that touch a value computed from the images.

    Args:
        names: dotted name of every module, by module.
    """

    def __init__(self, names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._names = names
        self._found: dict[nn.Module, str] = {}
        self._memories: dict[int, _Memory] = {}
        self._bindings: dict[int, _Binding] = {}

    def watch(self, images: Tensor) -> Value:
        """Declare the tensor from which everything of interest is computed."""
        return self._write(images, Value.of(images, dependent=True))

    def value_of(self, tensor: Tensor) -> Value | None:
        """The current version of a tensor; None for a constant that no recorded operation read."""
        key = _memory_key(tensor)
        memory = self._memories.get(key) if key is not None else None
        if memory is None:
            return None
        if id(tensor) not in self._bindings:
            self._show(tensor, Value.of(tensor, dependent=False), seen=0)
        binding = self._bindings[id(tensor)]
        for geometry, written in memory.writes[binding.seen :]:
            binding.value = self._patched(tensor, binding.value, geometry, written, memory)
        binding.seen = len(memory.writes)
        return binding.value

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and record it if it reads a value computed from the images."""
        kwargs = kwargs or {}
        dependent = self._reads((args, kwargs))
        mutable = func._schema.is_mutable
        name = func._schema.name.split("::")[1]
        if not mutable and (not dependent or name in _SHAPE_ONLY):
            return func(*args, **kwargs)
        if not dependent:
            return self._run_constant(func, args, kwargs)
        if not mutable and not has_rule(func):  # it is taken apart if it can be
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        written = _written(func, args, kwargs) if mutable else []
        if name in _OVERWRITE and not self._reads((args[1:], kwargs)):
            return self._run_constant(func, args, kwargs)
        return self._run(func, args, kwargs, written)

    def _reads(self, arguments: Any) -> bool:
        values = (self.value_of(tensor) for tensor in leaves(arguments, Tensor))
        return any(value is not None and value.dependent for value in values)

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any], written: list[Tensor]) -> Any:
        recorded = _functional(func) if written else func
        given, named = _map((args, kwargs), self._read)
        operation = Operation(recorded, given, named, (), self._place())
        moves_only = torch.Tag.inplace_view in func.tags
        for tensor in written:
            if moves_only:
                self._keep_view(tensor)
            else:
                self._keep_data(tensor)
        result = func(*args, **kwargs)
        outputs = [result] if isinstance(result, Tensor) else result
        many = outputs if isinstance(outputs, (list, tuple)) else []
        operation.outputs = tuple(
            self._bind(tensor, operation, written, moves_only)
            if isinstance(tensor, Tensor)
            else None
            for tensor in many
        )
        self.operations.append(operation)
        return result

    def _run_constant(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An in-place operation that writes what does not depend on the images."""
        written = [t for t in _written(func, args, kwargs) if _memory_key(t) in self._memories]
        for tensor in written:
            self._keep_data(tensor)
        result = func(*args, **kwargs)
        for tensor in written:
            self._write(tensor, Value.of(tensor, dependent=False))
        return result

    def _bind(
        self, tensor: Tensor, operation: Operation, written: list[Tensor], moves_only: bool
    ) -> Value:
        value = Value.of(tensor, dependent=True, producer=operation)
        if any(tensor is other for other in written):
            writes = not moves_only
        else:
            writes = _memory_key(tensor) not in self._memories
        return self._write(tensor, value) if writes else self._show(tensor, value)

    def _write(self, tensor: Tensor, value: Value) -> Value:
        """Note that a version was written to the memory that a tensor shows."""
        self._memory(tensor).writes.append((value.geometry, value))
        return self._show(tensor, value)

    def _show(self, tensor: Tensor, value: Value, seen: int | None = None) -> Value:
        """Note that a tensor shows a version, after as many writes as it has seen (None: all)."""
        memory = self._memory(tensor)
        memory.living.append(value)
        count = len(memory.writes) if seen is None else seen
        self._bindings[id(tensor)] = _Binding(tensor, value, count)
        return value

    def _memory(self, tensor: Tensor) -> _Memory:
        key = _memory_key(tensor)
        return self._memories.setdefault(-id(tensor) if key is None else key, _Memory(tensor))

    def _read(self, tensor: Tensor) -> Value:
        value = self.value_of(tensor)
        return self._show(tensor, Value.of(tensor, dependent=False)) if value is None else value

    def _keep_data(self, tensor: Tensor) -> None:
        """Copy a memory block before a write, for the versions that still live in it."""
        memory = self._memories.get(_memory_key(tensor) or 0)
        if memory is None or not memory.living:
            return
        storage = tensor.untyped_storage()
        length = storage.nbytes() // tensor.element_size()
        copy = torch.as_strided(tensor, (length,), (1,), 0).clone()
        for value in memory.living:
            if value.tensor is not None:
                same = value.tensor.dtype == tensor.dtype
                value.tensor = (
                    copy.as_strided(*value.geometry) if same else value.tensor.detach().clone()
                )
        memory.living.clear()

    def _keep_view(self, tensor: Tensor) -> None:
        """Before `unsqueeze_` and the like: keep the old shape visible under another tensor."""
        value = self._read(tensor)
        value.tensor = tensor.as_strided(*value.geometry)

    def _patched(
        self, tensor: Tensor, old: Value, geometry: Geometry, written: Value, memory: _Memory
    ) -> Value:
        """The version of a view after a write to its memory block through another view."""
        mine = geometry_of(tensor)
        if mine == geometry:
            return written
        if not _overlap(mine, geometry):
            return old
        value = Value.of(tensor, dependent=old.dependent or written.dependent)
        memory.living.append(value)
        if value.dependent:
            value.producer = Operation("alias_update", (old, written), {}, (value,), self._place())
            self.operations.append(value.producer)
        return value

    def _place(self) -> Place:
        """The innermost module and the first source line outside PyTorch, from the call stack."""
        module = ""
        file, line = "", 0
        frame = sys._getframe(1)
        while frame is not None and not (file and module):
            code = frame.f_code
            if not file and not code.co_filename.startswith(_LIBRARY):
                file, line = code.co_filename, frame.f_lineno
            if not module and code is _CALL:
                module = self._name_of(frame.f_locals["self"], frame)
            frame = frame.f_back  # type: ignore[assignment]
        return Place(module, file, line)

    def _name_of(self, owner: nn.Module, frame: FrameType | None) -> str:
        """A module's dotted name; in a module held outside the registry, its name within that."""
        while owner not in self._names and frame is not None:
            if frame.f_code is _CALL:
                outer = frame.f_locals["self"]
                names = {inner: plain_name(name) for name, inner in outer.named_modules()}
                if owner in names:
                    self._found[owner] = names[owner]
            frame = frame.f_back
        known = self._names.get(owner) or self._found.get(owner)
        self._names[owner] = known or type(owner).__name__
        return self._names[owner]


def record(
    module: nn.Module, images: Tensor, *, stop: nn.Module | None = None, several: bool = False
) -> list[Tape]:
    """Run a module on images and record the operations.

    Args:
        module: the explained module.
        images: its input; not changed, since the pass works on a copy.
        stop: a submodule whose output is to be found on the tape.
        several: whether the module returns a tuple of outputs instead of one.

    Returns:
        A tape per output, which share their operations.

    Raises:
        DataError: the module returns something else than logits; see `logits_of`.
        LayerError: the output does not depend on the images, or the layer to stop at did not run
            exactly once or did not return one tensor.
    """
    names = {owner: plain_name(name) for name, owner in module.named_modules()}
    seen: list[Value] = []
    with torch.inference_mode(False), torch.no_grad():
        start = images.detach().as_subclass(Tensor).clone()
        tracer = Tracer(names)
        start_value = tracer.watch(start)
        label = names.get(stop, type(stop).__name__) if stop is not None else ""
        watch = partial(_note_value, seen, tracer, label)
        watching = nullcontext() if stop is None else watch_output(stop, watch)
        with ExitStack() as on_error:
            on_error.callback(erase, tracer.operations)
            # The fused kernels of `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` hide
            # their operations. They are skipped while any function mode is active, in this thread.
            with watching, BaseTorchFunctionMode(), tracer:
                output = module(in_precision_of(module, start))
                logits = [logits_of(each) for each in (output if several else (output,))]
            on_error.pop_all()
        values = [tracer.value_of(each) for each in logits]
    found = [value for value in values if value is not None and value.dependent]
    if len(found) < len(values):
        raise LayerError(
            f"the output of the {type(module).__name__} ({shape_or_type(output)}) is not a tensor "
            "computed from the images; it must return (B, k) outputs, in this thread, without NumPy"
        )
    if stop is not None and len(seen) != 1:
        raise LayerError(
            f"layer {label!r} ran {len(seen)} times in one forward pass; choose one that runs once"
        )
    layer = seen[0] if seen else None
    return [Tape(tracer.operations, start_value, each, layer) for each in found]


def _note_value(seen: list[Value], tracer: Tracer, label: str, output: Any) -> None:
    value = tracer.value_of(output) if isinstance(output, Tensor) else None
    if value is None or not value.dependent:
        raise LayerError(
            f"layer {label!r} returns {shape_or_type(output)}, not one tensor computed from the "
            "images; choose another layer to stop at"
        )
    seen.append(value)


def _overlap(first: Geometry, second: Geometry) -> bool:
    spans = []
    for size, stride, offset in (first, second):
        if 0 in size:
            return False
        steps = (step * (length - 1) for length, step in zip(size, stride, strict=True))
        spans.append((offset, offset + sum(steps)))
    return spans[0][0] <= spans[1][1] and spans[1][0] <= spans[0][1]


def _memory_key(tensor: Tensor) -> int | None:
    if tensor.layout != torch.strided:
        return None
    return tensor.untyped_storage()._cdata


def _functional(func: Any) -> Any:
    """`aten.add_.Tensor` is recorded as `aten.add.Tensor`; what has no such form stays as it is."""
    namespace, name = func._schema.name.split("::")
    if not name.endswith("_") or name.startswith("_"):
        return func
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    overload = getattr(packet, func._overloadname, None)
    return func if overload is None else overload


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is None or not argument.alias_info.is_write:
            continue
        given = args[index] if index < len(args) else kwargs.get(argument.name)
        found.extend(leaves(given, Tensor))
    return found


def _map(tree: Any, change: Callable[[Tensor], Value]) -> Any:
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, (list, tuple)):
        return type(tree)(_map(item, change) for item in tree)
    if isinstance(tree, dict):
        return {key: _map(item, change) for key, item in tree.items()}
    return tree
