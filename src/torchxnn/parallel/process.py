"""What a process computes with: how many threads, and what becomes of memory that it has freed."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's `mallopt`, from malloc.h."""
_LARGEST = 2**31 - 1
_STEP = 2**28


class _Usual:
    """The number of threads outside `one_thread`, and how many are inside at this moment."""

    lock = threading.Lock()
    threads = 0
    inside = 0


class _Here(threading.local):
    """How many `one_thread` blocks this thread of Python is in."""

    inside = 0


_HERE = _Here()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread in a `with`: for steps so small that more would only wait.

    On a busy machine it is far faster, and the result is the same however many cores there are.
    Several threads of Python may be inside at once; each has the usual number again when it leaves
    its outermost block.
    """
    with _Usual.lock:
        found = torch.get_num_threads()  # in a new thread of Python what another one has set last
        if not _Usual.inside:
            _Usual.threads = found
        _Usual.inside += 1
        before = found if _HERE.inside else _Usual.threads
    _HERE.inside += 1
    torch.set_num_threads(1)
    try:
        yield
    finally:
        with _Usual.lock:
            _Usual.inside -= 1
        _HERE.inside -= 1
        torch.set_num_threads(before)


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors instead of giving it back.

    glibc returns every large block to the system at once and asks for it anew, and the system
    clears it page by page: a fifth of the time of excitation backprop. Meant for workers and
    commands, whose largest need comes again with every job or batch. That need grows where blocks
    of many sizes take turns: by a fifth for `xnn demo`, by a third for `xnn whatif`.

    Returns:
        Whether it took effect; without glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _STEP))
    return all(mallopt(name, value) == 1 for name, value in settings)
