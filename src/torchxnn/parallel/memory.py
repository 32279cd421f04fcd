"""How a process of our own treats memory that it has freed."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""Parameters of glibc's `mallopt`, from malloc.h."""
_LARGEST = 2**31 - 1
_STEP = 2**28


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next tensors instead of giving it back.

    glibc returns every large block to the system at once and asks for it anew, and the system
    clears it page by page: a fifth of the time of excitation backprop. Meant for worker processes,
    whose largest need comes again with every job; it does not raise that need.

    Returns:
        Whether it took effect; without glibc nothing is done.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _STEP))
    return all(mallopt(name, value) == 1 for name, value in settings)
