"""What commands say: lines and warnings, and bars that count; `tables` has what takes PyTorch."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from torchxnn.errors import XNNError

if TYPE_CHECKING:
    from torchxnn.models.examination import Examination
    from torchxnn.training.config import Losses


@dataclass(frozen=True, eq=False)
class Terminal:
    """Where commands print: results to standard output, all else to standard error."""

    out: Console = field(default_factory=Console)
    err: Console = field(default_factory=lambda: Console(stderr=True))

    def say(self, *lines: str, style: str | None = None) -> None:
        """Print lines as they are, without colours of Rich's own and without breaking them."""
        for line in lines:
            self.out.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    def show(self, *tables: Table) -> None:
        """Print tables."""
        for table in tables:
            self.out.print(table)

    def complain(self, line: str, style: str = "yellow") -> None:
        """Print a line to standard error; broken between words in a window, whole in a pipe."""
        whole = not self.err.is_terminal
        self.err.print(line, style=style, highlight=False, markup=False, soft_wrap=whole)

    def warn(self, text: str) -> None:
        """Print a warning to standard error."""
        self.complain(f"xnn: warning: {text}")

    def examination(self, found: Examination | None) -> None:
        """Print what was found out about a model, and a warning for what speaks against a fit."""
        from torchxnn.models.examination import said_of

        self.say(f"Model: {said_of(found)}")
        for line in (*found.complaints.values(), found.note) if found else ():
            if line:
                self.warn(line)

    def progress(self) -> Progress:
        """A bar per step with count and time, one look for every long step; use it in a `with`."""
        return Progress(
            TextColumn("{task.description:<32}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.err,
        )


def say_cost(terminal: Terminal, runs: int, seconds: float, images: int) -> None:
    """Say, before what-ifs begin, how often the network runs for each image and about how long."""
    wait = "less than 1 s" if seconds < 1 else f"{seconds:.0f} s"
    if seconds >= 120:
        wait = f"{seconds / 60:.0f} min"
    each = " for each image" if images > 1 else ""
    terminal.complain(f"What if: {runs:,} runs of the network, about {wait}{each}", "none")


NUMBERS = partial(Column, justify="right")
"""A column of numbers: `Table("layer", NUMBERS("MB"))`."""

STOP_SECONDS = 20
"""Until a server that is to stop gives up on requests that are not answered yet."""


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Say how to install an extra of the package where one of its modules is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        install = f"install it with: pip install 'torchxnn[{name}]'"
        raise XNNError(f"{error.name} is not installed; {install}") from error


def check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be listened on, before anything is computed or announced.

    Raises:
        XNNError: it is no port, another program has it, or the system does not give it.
    """
    if not 0 <= port <= 65535:
        raise XNNError(f"port must be 0 to 65535, got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((host, port))
        except OSError as error:
            raise XNNError(
                f"cannot listen on port {port} of {host} ({error.strerror}); choose another --port"
            ) from error


def serve(app: Any, host: str, port: int) -> None:
    """Serve pages until interrupted, without a log of the addresses of those who come.

    At SIGTERM or Ctrl-C nobody new is let in, and requests that have begun are answered, for
    `STOP_SECONDS` at most.
    """
    with needs_extra("study"):
        import uvicorn

        from torchxnn.apps.server_log import LOG
    uvicorn.run(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=LOG,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )


def count_images(progress: Progress, description: str, total: int | None) -> Callable[[int], None]:
    """A bar that counts images or the like; the result is called with the number of each batch."""
    task = progress.add_task(description, total=total)
    return lambda count: progress.advance(task, count)


def count_epochs(
    progress: Progress, description: str, epochs: int
) -> Callable[[int, int, Losses], None]:
    """A bar that counts epochs and shows the trial and the held-out loss."""
    task = progress.add_task(description, total=epochs)

    def show(trial: int, epoch: int, losses: Losses) -> None:
        text = f"{description}, trial {trial + 1}, loss {losses.total:.3f}"
        progress.update(task, completed=epoch, description=f"{text:<32}")

    return show


def count_drawings(progress: Progress, description: str) -> Callable[[int, int], None]:
    """A bar whose total becomes known at the first drawing."""
    task = progress.add_task(description, total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)


def count_steps(progress: Progress, verb: str = "") -> Callable[[str, int, int], None]:
    """A bar per named step, made when the step first reports; the name follows the verb."""
    tasks: dict[str, Any] = {}

    def show(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = progress.add_task(f"{verb} {name}".strip(), total=total)
        progress.update(tasks[name], completed=done, total=total)

    return show
