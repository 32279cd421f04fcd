"""The command line; `xnn --help` lists its commands."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from torchxnn.cli.interrupts import watch_interrupts
from torchxnn.errors import XNNError, XNNWarning

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; errors that a user can act on are one line and exit code 2, Ctrl-C is 130."""
    with watch_interrupts() as interrupted:
        try:
            return _run(argv)
        except BaseException as error:
            if not (interrupted() or isinstance(error, KeyboardInterrupt)):
                raise
    sys.stderr.write("Stopped.\n")
    return STOPPED


def _run(argv: Sequence[str] | None) -> int:
    """Run a command; what it needs is imported here, where Ctrl-C is heard."""
    from torchxnn.cli.commands import parse
    from torchxnn.cli.terminal import Terminal

    terminal = Terminal()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, XNNWarning):
            terminal.warn(str(message))

    try:
        command = parse(argv)
        with warnings.catch_warnings():
            warnings.simplefilter("always", XNNWarning)
            warnings.showwarning = show
            command.execute(terminal)
    except BrokenPipeError:  # whoever read the output has seen enough, as in `xnn ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (XNNError, OSError) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        terminal.complain(f"xnn: error: {text}", "red")
        return 2
    return 0
