"""A second device that the CPU pretends to have: what would crash on CUDA crashes here.

Tensors stay ordinary ones in main memory. What is moved to `PRETENDED` by `.to(...)`, made there by
`device=...` or computed from such a tensor has its memory marked, says that it lies there, and may
not meet a tensor that does not: as on CUDA, only numbers, indices and copies cross devices. Memory
is marked rather than tensors, so views, parameters and `.data` agree.

Marks are followed in the thread that entered `pretended_devices()`.

`pretended_apple()` gives `APPLE` instead, a GPU of Apple (MPS): it also refuses float64 and what
`apple_gpu` lists. What MPS computes in other digits, or wrongly, it does not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import apple_gpu

PRETENDED, OTHER = (torch.device("privateuseone", index) for index in range(2))
APPLE = torch.device("mps", 0)
CPU = torch.device("cpu")

if not hasattr(torch, PRETENDED.type):  # what `torch.autocast` and `torch.manual_seed` ask for
    module = SimpleNamespace(
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
        _is_in_bad_fork=lambda: False,
        is_available=lambda: False,  # `nn.DataParallel` asks, in tests that run later
        manual_seed_all=lambda seed: None,
    )
    torch._register_device_module(PRETENDED.type, module)

_CROSSING = {"copy_", "_to_copy", "copy", "resize_"}
"""Operations whose arguments may lie on several devices."""

_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Those whose indices may lie on the CPU."""

_DEVICE = Tensor.__dict__.get("device", torch._C.TensorBase.device)

_JOINING = {"cat", "stack"}
"""Those that do not even take a number from the CPU."""


def device_of(tensor: Tensor) -> torch.device:
    """The device that a tensor pretends to lie on."""
    with torch._C.DisableTorchFunction():
        return getattr(tensor.untyped_storage(), "pretended", CPU)


def _place(tensor: Tensor, device: torch.device) -> None:
    if device == APPLE:
        apple_gpu.check_precision(tensor)
    with torch._C.DisableTorchFunction():
        tensor.untyped_storage().pretended = device


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


_WAITS: list[list[str]] = []
"""Lists that note what a host waits for, the innermost last."""


def _note(direction: str) -> None:
    for waits in _WAITS:
        waits.append(direction)


@contextmanager
def counted_waits() -> Iterator[list[str]]:
    """Note every copy "to the device" and "from the device".

    On a GPU the host waits for what comes from the device: for a value, a copy to the CPU, or the
    number of entries that a mask has.
    """
    waits: list[str] = []
    _WAITS.append(waits)
    try:
        yield waits
    finally:
        _WAITS.pop()


_SIZED_BY_VALUES = {"nonzero", "masked_select", "_unique2", "unique_dim", "_local_scalar_dense"}
"""Operations that need a value before the host can go on."""


class _Moved(torch.autograd.Function):
    """A copy on another device, whose gradient goes back to where the tensor came from."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, device: torch.device) -> Tensor:
        ctx.source = device_of(tensor)
        if CPU in (device, ctx.source) and device != ctx.source:
            _note("from the device" if device == CPU else "to the device")
        moved = tensor.clone()
        _place(moved, device)
        return moved

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        moved = gradient.clone()
        _place(moved, ctx.source)
        return moved, None


class _Operations(TorchDispatchMode):
    """Refuses operations across devices, and marks what the others make."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split("::")[1]
        if name == "set_":  # another memory, that lies where it lies
            return func(*args, **kwargs)
        given = list(_tensors((args, kwargs)))
        if not given:
            device = _Functions.running_on
        elif name in _CROSSING:
            device = device_of(given[0])
        else:
            device = _common_device(func, name, args, kwargs)
        if _WAITS and device != CPU and _waits_for_values(name, args):
            _note("from the device")
        if APPLE in (device, *map(device_of, given)):
            apple_gpu.refuse(name, args, given[0].dtype if given else None)
            _check_copy(name, given)
        before = {tensor.untyped_storage()._cdata for tensor in given}
        result = func(*args, **kwargs)
        if device != CPU:
            for tensor in _tensors(result):
                if tensor.untyped_storage()._cdata not in before:
                    _place(tensor, device)
        return result


def _check_copy(name: str, given: list[Tensor]) -> None:
    """A copy converts where it comes from: to float64 on MPS, as `Copy.mm` of PyTorch has it."""
    if name in ("copy_", "copy") and device_of(given[1]) == APPLE:
        apple_gpu.check_precision(given[0])


def _waits_for_values(name: str, args: Any) -> bool:
    masks = list(_tensors(args[1])) if name in _INDEXING else []
    return name in _SIZED_BY_VALUES or any(mask.dtype == torch.bool for mask in masks)


def _common_device(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> torch.device:
    free = name in _INDEXING
    tensors = list(_tensors((args[:1], args[2:], kwargs) if free else (args, kwargs)))
    found = {device_of(tensor) for tensor in tensors if tensor.ndim > 0 or name in _JOINING}
    found |= {device_of(tensor) for tensor in tensors} - {CPU}
    if free:
        found |= {device_of(tensor) for tensor in _tensors(args[1])} - {CPU}
    written = func._schema.is_mutable and len(found - {CPU}) > 0
    for index, formal in enumerate(func._schema.arguments):
        if written and formal.alias_info is not None and formal.alias_info.is_write:
            value = kwargs.get(formal.name, args[index] if index < len(args) else None)
            if not name.startswith("_fused") and not name.startswith("_foreach"):
                found |= {device_of(tensor) for tensor in _tensors(value)}
    if len(found) > 1:
        shown = ", ".join(f"{tuple(t.shape)} on {device_of(t)}" for t in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {shown}")
    device = next(iter(found), CPU)
    if device != CPU and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"Expected a '{device}' generator for {func}, but got one of the CPU")
    return device


class _Functions(TorchFunctionMode):
    """Answers what PyTorch's own functions are asked about devices that it does not have.

    What a function makes on the way, without any tensor, lies where its arguments do.
    """

    running_on = CPU

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":  # shapes, types and the like, asked for all the time
            return device_of(args[0]) if func.__self__ is _DEVICE else func(*args)
        if name == "tolist" and device_of(args[0]) != CPU:
            _note("from the device")
            return func(*args)
        if name in ("numpy", "__array__") and device_of(args[0]) != CPU:
            raise TypeError(f"can't convert {device_of(args[0])} tensor to numpy; use Tensor.cpu()")
        if func is Tensor.__deepcopy__:
            copied = func(*args, **kwargs)
            _place(copied, device_of(args[0]))
            return copied
        if name in apple_gpu.OTHERWISE_COMPOSED and device_of(args[0]) == APPLE:
            return _elsewhere(func, args, kwargs)
        known = kwargs.get("device") is not None
        moves = func in (Tensor.to, Tensor.cpu) or (name in ("as_tensor", "asarray") and known)
        if moves and isinstance(args[0], Tensor):
            return _to(func, args, kwargs)
        return _made(func, args, kwargs) if known else _run(func, args, kwargs)


def _elsewhere(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """What an operation of one result gives on the CPU, as if it had run where its tensors lie."""
    moved = [_Moved.apply(each, CPU) if isinstance(each, Tensor) else each for each in args]
    return _Moved.apply(func(*moved, **kwargs), APPLE)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    before = _Functions.running_on
    found = (device_of(tensor) for tensor in _tensors((args, kwargs)))
    _Functions.running_on = next((device for device in found if device != CPU), before)
    try:
        return func(*args, **kwargs)
    finally:
        _Functions.running_on = before


def _made(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What a function makes on a device that it is told."""
    device = _with_index(torch.device(kwargs["device"]))
    if isinstance(kwargs.get("generator"), torch.Generator) and device != CPU:
        raise RuntimeError(f"Expected a '{device}' generator for {func}, but got one of the CPU")
    result = func(*args, **{**kwargs, "device": CPU})
    for tensor in _tensors(result):
        _place(tensor, device)
    return result


def _to(func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """`Tensor.to` in all its forms, and `Tensor.cpu`."""
    tensor, *rest = args
    here = there = device_of(tensor)
    there = CPU if func is Tensor.cpu else here
    if "other" in kwargs:
        rest.append(kwargs.pop("other"))
    if kwargs.get("device") is not None:
        rest.append(kwargs["device"])
    kept = {name: kwargs[name] for name in ("dtype", "memory_format") if kwargs.get(name)}
    for value in rest:
        if isinstance(value, Tensor):
            there, kept["dtype"] = device_of(value), value.dtype
        elif isinstance(value, (torch.device, str)):
            there = torch.device(value)
        elif isinstance(value, torch.dtype):
            kept["dtype"] = value
    there = _with_index(there)
    if APPLE in (here, there) and here != there and "dtype" in kept:
        tensor = tensor.to(kept.pop("dtype"))  # before it crosses, as in `Copy.mm`
    moved = _Moved.apply(tensor, there) if here != there or kwargs.get("copy") else tensor
    return moved.to(**kept) if kept else moved


def _with_index(device: torch.device) -> torch.device:
    """The first device of a kind that is named without a number."""
    first = {each.type: each for each in (PRETENDED, APPLE)}
    return device if device.index is not None else first.get(device.type, device)


_parse_to = torch._C._nn._parse_to


def _parsed(*args: Any, **kwargs: Any) -> Any:
    """What `nn.Module.to` asks about its arguments; of a tensor, where it pretends to lie."""
    if args and isinstance(args[0], Tensor):
        return device_of(args[0]), args[0].dtype, False, None
    return _parse_to(*args, **kwargs)


@contextmanager
def pretended_devices() -> Iterator[torch.device]:
    """Let `PRETENDED` and `OTHER` be devices in this thread."""
    with mock.patch.object(torch._C._nn, "_parse_to", _parsed), _Functions(), _Operations():
        yield PRETENDED


@contextmanager
def pretended_apple(memory: int = 2**34) -> Iterator[torch.device]:
    """Let `APPLE` be a device in this thread, with so many bytes of memory."""
    known = {
        "recommended_max_memory": lambda: memory,
        "driver_allocated_memory": lambda: 0,
        "current_allocated_memory": lambda: 0,
        "synchronize": lambda: None,
        "device_count": lambda: 1,
        "is_available": lambda: True,
    }
    # cached as PyTorch's own, whose compiler looks for what is wrapped
    here = mock.patch.object(torch.backends.mps, "is_available", cache(lambda: True))
    with here, mock.patch.multiple(torch.mps, **known), pretended_devices():
        yield APPLE
