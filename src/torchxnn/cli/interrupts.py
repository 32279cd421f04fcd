"""Ctrl-C ends a command with one line, whatever it is doing.

Python raises KeyboardInterrupt wherever it happens to be. Where no exception may leave, as in the
locks of imports, it prints a traceback and goes on; compiled modules that are being imported turn
it into an ImportError. Both are a stop all the same.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AGAIN_SECONDS = 0.01


@contextmanager
def watch_interrupts() -> Iterator[Callable[[], bool]]:
    """Notice Ctrl-C in a `with`, and raise it again where Python had to swallow it.

    Python tells the main thread alone of signals; in others this does nothing.

    Yields:
        Whether somebody has pressed Ctrl-C so far.
    """
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed.is_set
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        pressed.set()
        signal.default_int_handler(number, frame)

    def swallowed(what: Any) -> None:  # sys.UnraisableHookArgs: type checkers alone know it
        if not issubclass(what.exc_type, KeyboardInterrupt):
            usual_hook(what)
            return
        again = threading.Timer(_AGAIN_SECONDS, os.kill, [os.getpid(), signal.SIGINT])
        again.daemon = True
        again.start()

    usual_handler, usual_hook = signal.signal(signal.SIGINT, interrupt), sys.unraisablehook
    sys.unraisablehook = swallowed
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, usual_handler)
        sys.unraisablehook = usual_hook
