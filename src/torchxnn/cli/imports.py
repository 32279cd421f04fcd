"""Libraries are imported without the garbage collector, which then leaves their objects alone."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Import what needs PyTorch in a `with`: none of it is garbage as long as the process lives.

    An import makes a million objects and frees next to none of them, yet Python's collector walks
    through all that there are again and again meanwhile, and several times more when the process
    ends. Within the block it is off. What was made is exempt from later collections (`gc.freeze`);
    what a command makes is collected as usual. Where PyTorch is there already, as in a process that
    calls the command line itself, or where somebody has switched the collector off, nothing is
    done.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
