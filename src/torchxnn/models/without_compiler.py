"""Nothing here compiles, so nothing here loads PyTorch's compiler: 1.6 s of every start.

TorchVision imports it to ask one question about its detectors, every `TorchDispatchMode` at its
first operation, to exempt that operation from what is not compiled anyway, and random numbers on
the device "meta", which has none.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_ASKED = "torch._dynamo.utils"
_DRAWS = (Tensor.normal_, Tensor.uniform_)


class EagerMode(TorchDispatchMode):
    """Sees the operations of passes that run as they are written, see `models.compiled`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Undrawn(TorchFunctionMode):
    """Modules that are made within it keep whatever their tensors hold, for who asks for shapes."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run everything but what fills a tensor with random numbers, or begins a layer."""
        kwargs = kwargs or {}
        if func in _DRAWS or getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def torchvision_models() -> ModuleType:
    """The module `torchvision.models`."""
    with without_compiler():
        from torchvision import models
    return models


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within it TorchVision is imported without the compiler, which it loads where it asks it."""
    if "torchvision" in sys.modules or _ASKED in sys.modules:
        yield
        return
    stand_in = ModuleType(_ASKED)
    vars(stand_in).update(is_compile_supported=_is_compile_supported, __getattr__=_found)
    sys.modules[_ASKED] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(_ASKED) is stand_in:
            del sys.modules[_ASKED]


def _is_compile_supported(device: str) -> bool:
    return bool(_found("is_compile_supported")(device))


def _found(name: str) -> Any:
    """An attribute of the compiler's own module, which takes the place of what stands in for it."""
    if name.startswith("__"):  # `inspect` asks every module for its file
        raise AttributeError(name)
    if vars(sys.modules.get(_ASKED, sys)).get("__getattr__") is _found:
        del sys.modules[_ASKED]
    return getattr(importlib.import_module(_ASKED), name)
