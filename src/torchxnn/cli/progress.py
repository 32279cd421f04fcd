"""Progress bars for the command line, one look for every long step."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from torchxnn.training.config import Losses

OnBatch = Callable[[int], None]


def make_progress(console: Console) -> Progress:
    """A bar per step with count and time, on the given console."""
    return Progress(
        TextColumn("{task.description:<32}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def count_images(progress: Progress, description: str, total: int) -> OnBatch:
    """A bar that counts images; the result is called with the number of each batch."""
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


def count_classes(progress: Progress, description: str, total: int | None) -> Callable[[], None]:
    """A bar that counts classes; the result is called after each."""
    task = progress.add_task(description, total=total)
    return lambda: progress.advance(task)


def count_drawings(progress: Progress, description: str) -> Callable[[int, int], None]:
    """A bar whose total becomes known at the first picture."""
    task = progress.add_task(description, total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)
