"""Watch somebody else's model at work, replace what a layer returns, and leave it as it was.

Hooks are removed, modes restored and buffers put back, also after an exception and with several
threads at work on the same model: a hook sees what its own thread does and nothing else.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchxnn.errors import DataError, ModelError, XNNError, first_line, where_and_why
from torchxnn.models.compiled import run_eagerly

_SHAPES = re.compile(
    "to have [0-9]+ channels|shapes cannot be multiplied|expected input.* channel|"
    r"Expected .*input to conv|[Ii]nput .*doesn't match"
)
_MORE_INPUTS = re.compile("missing [0-9]+ required .*argument")
_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory")
_TYPES = re.compile("should be the same|must have the same dtype|not implemented for 'Half'")

_JOINED = {torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32}
"""Types of buffers that are compared together."""


@dataclass
class _Saved:
    """What `preserve_state` puts back; shared by the threads that hold the same model."""

    holders: int = 0
    modes: list[tuple[nn.Module, bool]] = field(default_factory=list)
    requires_grad: list[tuple[nn.Parameter, bool]] = field(default_factory=list)
    buffers: list[tuple[list[Tensor], Tensor, list[torch.Size]]] = field(default_factory=list)
    trainers: list[tuple[nn.Module, Any]] = field(default_factory=list)


_lock = threading.RLock()
_saved: weakref.WeakKeyDictionary[nn.Module, _Saved] = weakref.WeakKeyDictionary()


@contextmanager
def preserve_state(model: nn.Module) -> Iterator[nn.Module]:
    """Run the body with the model in evaluation mode and put everything back afterwards.

    Restores the mode of every submodule, `requires_grad` of every parameter and the contents of
    every buffer, also after an exception. Several threads may hold the same model: the first one
    saves, the last one restores. `eval()` and `train()` are not called, since models override them.
    What was compiled runs as it was written, so that hooks in it see something, and a module of
    Lightning is without its trainer, which would not let it log outside its own loops.

    Yields:
        The model itself.
    """
    with _lock:
        saved = _saved.setdefault(model, _Saved())
        if saved.holders == 0:
            saved.modes = [(module, module.training) for module in model.modules()]
            saved.requires_grad = [(p, p.requires_grad) for p in model.parameters()]
            saved.buffers = [
                (alike, _joined(alike), [buffer.shape for buffer in alike])
                for alike in _alike(model.buffers())
            ]
            saved.trainers = [(m, m._trainer) for m in model.modules() if "_trainer" in vars(m)]
            for module, _ in saved.modes:
                module.training = False
            for module, _ in saved.trainers:
                vars(module)["_trainer"] = None
        saved.holders += 1
    try:
        with run_eagerly():
            yield model
    finally:
        with _lock:
            saved.holders -= 1
            if saved.holders == 0:
                _restore(saved)
                del _saved[model]


def _restore(saved: _Saved) -> None:
    for module, training in saved.modes:
        module.training = training
    for module, trainer in saved.trainers:
        vars(module)["_trainer"] = trainer
    for parameter, requires_grad in saved.requires_grad:
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)
    with torch.no_grad():
        for buffers, values, shapes in saved.buffers:
            _put_back(buffers, values, shapes)


def _alike(buffers: Iterable[Tensor]) -> list[list[Tensor]]:
    """Buffers that can be joined to one tensor, so that a GPU is asked once whether they changed.

    A network has three for each BatchNorm.
    """
    found: dict[Any, list[Tensor]] = {}
    for buffer in buffers:
        plain = type(buffer) is Tensor and buffer.layout == torch.strided and not buffer.is_meta
        joins = plain and buffer.dtype in _JOINED
        kind = (buffer.device, buffer.dtype) if joins else id(buffer)
        found.setdefault(kind, []).append(buffer)
    return list(found.values())


def _joined(buffers: list[Tensor]) -> Tensor:
    """A copy of buffers that are alike: of several, their elements one after the other."""
    if len(buffers) == 1:
        return buffers[0].detach().clone()
    return torch.cat([buffer.detach().reshape(-1) for buffer in buffers])


def _put_back(buffers: list[Tensor], saved: Tensor, shapes: list[torch.Size]) -> None:
    if buffers[0].is_meta:
        return
    same = [buffer.shape for buffer in buffers] == shapes
    if same and torch.equal(_joined(buffers), saved):
        return
    parts: Iterable[Tensor] = [saved]
    if len(buffers) > 1:
        split = saved.split([shape.numel() for shape in shapes])
        parts = (part.reshape(shape) for part, shape in zip(split, shapes, strict=True))
    for buffer, part in zip(buffers, parts, strict=True):
        if not torch.equal(buffer, part):  # others may not allow it, such as expanded ones
            buffer.resize_(part.shape).copy_(part)  # an observer's grows at its first batch


def in_precision_of(model: nn.Module, images: Tensor) -> Tensor:
    """Images in float32 or float64 in the precision of a model's weights; others as they are.

    Those that were made under `torch.inference_mode` are copied, so that gradients pass them.
    """
    if images.is_inference() and not torch.is_inference_mode_enabled():
        images = images.clone()
    first = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
    if first is None or images.dtype not in (torch.float32, torch.float64):
        return images
    return images.to(first)


@contextmanager
def takes_images_alone() -> Iterator[None]:
    """Within it, PyTorch's complaint about inputs that are missing beside the images is ours.

    Raises:
        DataError: in its place.
    """
    try:
        yield
    except TypeError as error:
        if not _MORE_INPUTS.search(str(error)):
            raise
        raise DataError(
            f"the model takes more than images ({error}); wrap it in a module that takes images "
            "alone and holds the rest"
        ) from error


@contextmanager
def takes_shape(images: Tensor) -> Iterator[None]:
    """Within it, whatever a model raises on images is ours, with what it raised as its cause.

    So is that of `takes_images_alone`. Memory that is full, and our own errors, stay as they are.

    Raises:
        DataError: images of a shape or precision that the model does not take.
        ModelError: its forward raised something else.
    """
    try:
        with takes_images_alone():
            yield
    except (XNNError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and _MEMORY.search(str(error)):
            raise
        raise _refusal(images, error) from error


def _refusal(images: Tensor, error: Exception) -> XNNError:
    """What a model raised on images, as an error that says the way out."""
    first = first_line(error)
    if isinstance(error, RuntimeError) and _TYPES.search(first):
        return DataError(
            f"the model does not take images in {str(images.dtype).removeprefix('torch.')} "
            f"({first}); give it a copy in float32, model.float(), or images in its precision"
        )
    shaped = isinstance(error, RuntimeError | ValueError) and _SHAPES.search(first)
    if shaped or isinstance(error, AssertionError):
        return DataError(
            f"the model does not take images {tuple(images.shape[1:])} "
            f"({first or 'an assertion'}); give as many channels (--in-channels), and the size "
            "(--size), that it was trained on"
        )
    return ModelError(
        f"the model raised on images {tuple(images.shape)}: {where_and_why(error)}; its forward "
        "must take one tensor of images, of the size it was trained on (--size), and return "
        'logits: wrap a model that takes something else ("A forward of your own" in '
        "docs/unusual_inputs.md)"
    )


@contextmanager
def replace_output(module: nn.Module, change: Callable[[Any], Any]) -> Iterator[None]:
    """Let a module return something else while the body runs, in this thread only.

    It may run any number of times; `change` makes of what it returns what is used instead, or None
    to leave it as it is.
    """
    with module.register_forward_hook(partial(_in_thread, threading.get_ident(), change)):
        yield


@contextmanager
def watch_output(module: nn.Module, on_output: Callable[[Any], object]) -> Iterator[None]:
    """Call `on_output` with whatever a module returns while the body runs, in this thread only."""
    with replace_output(module, partial(_look, on_output)):
        yield


@contextmanager
def watch_inputs(
    module: nn.Module, on_inputs: Callable[[tuple[Any, ...]], object]
) -> Iterator[None]:
    """Call `on_inputs` with a module's positional arguments, in this thread only."""
    look = partial(_look, on_inputs)
    with module.register_forward_pre_hook(partial(_in_thread, threading.get_ident(), look)):
        yield


def _in_thread(thread: int, change: Callable[[Any], Any], _: nn.Module, *given: Any) -> Any:
    """What a hook makes of the last thing that it is given, in its own thread only."""
    return change(given[-1]) if threading.get_ident() == thread else None


def _look(on_value: Callable[[Any], object], value: Any) -> None:
    on_value(value)


def run_watched(
    model: nn.Module, inputs: Tensor, watches: Iterable[AbstractContextManager[None]]
) -> Any:
    """What a model returns in evaluation mode, run while `watches` are open and left as it was."""
    with takes_images_alone(), preserve_state(model), ExitStack() as stack:
        for watch in watches:
            stack.enter_context(watch)
        return model(in_precision_of(model, inputs))
