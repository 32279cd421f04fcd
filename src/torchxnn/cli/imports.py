"""How a command that computes imports its libraries, and what becomes of memory that it frees."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def computing() -> Iterator[None]:
    """Import what needs PyTorch in a `with`, for a process that computes and ends.

    None of that is garbage as long as the process lives.

    An import makes a million objects and frees next to none of them, yet Python's collector walks
    through all that there are again and again meanwhile, and several times more when the process
    ends. Within the block it is off. What was made is exempt from later collections (`gc.freeze`);
    what a command makes is collected as usual.

    Memory that is freed later stays with the process (`keep_freed_memory`): a third of the time of
    `xnn demo` went into pages that the system cleared again and again.

    Where PyTorch is there already, as in a process that calls the command line itself, or where
    somebody has switched the collector off, nothing is done.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
        from torchxnn.parallel.process import keep_freed_memory

        keep_freed_memory()
    finally:
        gc.enable()
