"""Networks of which `torch.compile` or a trainer has wrapped parts: plain names, run as written.

Compiled code skips hooks that came after its first run, so nothing inside could be watched.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Names under which wrappers of PyTorch hold the module that they wrap."""

_lock = threading.RLock()
_holders = 0
_stance: AbstractContextManager[None] | None = None


def plain_name(name: str) -> str:
    """A dotted name without the parts that wrappers add: `body._orig_mod.5` becomes `body.5`."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules by their plain dotted names; in place of a wrapper stands what it wraps."""
    return {plain_name(name): module for name, module in model.named_modules()}


@contextmanager
def run_eagerly() -> Iterator[None]:
    """Run compiled modules and functions as they were written while the body runs.

    PyTorch keeps this for the whole process: several threads may ask for it, the first one sets it
    and the last one restores what was before.
    """
    global _holders, _stance
    if "torch._dynamo" not in sys.modules:  # without it nothing can be compiled, and it is slow
        yield
        return
    with _lock:
        if _holders == 0:
            _stance = torch.compiler.set_stance("force_eager")
            _stance.__enter__()
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if _holders == 0 and _stance is not None:
                _stance.__exit__(None, None, None)
                _stance = None
