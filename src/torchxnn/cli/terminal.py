"""What commands say: lines and warnings, tables, and bars that count."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from torchxnn.errors import XNNError
from torchxnn.explanations.fit_facts import fit_facts
from torchxnn.metrics.evaluation import Evaluation
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.metrics.table import METRICS
from torchxnn.models.examination import Examination, said_of
from torchxnn.training.class_results import ManyFits
from torchxnn.training.config import Losses
from torchxnn.training.report import FitReport


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
        """Print a line to standard error."""
        self.err.print(line, style=style, highlight=False, markup=False)

    def warn(self, text: str) -> None:
        """Print a warning to standard error."""
        self.complain(f"xnn: warning: {text}")

    def examination(self, found: Examination | None) -> None:
        """Print what was found out about a model, and a warning for what speaks against a fit."""
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


NUMBERS = partial(Column, justify="right")
"""A column of numbers: `Table("layer", NUMBERS("MB"))`."""


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Say how to install an extra of the package where one of its modules is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        install = f"install it with: pip install 'torchxnn[{name}]'"
        raise XNNError(f"{error.name} is not installed; {install}") from error


def serve(app: Any, host: str, port: int) -> None:
    """Serve pages until interrupted, without a log of the addresses of those who come."""
    with needs_extra("study"):
        import uvicorn
    uvicorn.run(
        app, host=host, port=port, access_log=False, log_level="warning", server_header=False
    )


# Bars


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


# Tables


def fit_table(report: FitReport) -> Table:
    """Faithfulness of a fit on its training and its held-out images."""
    held_out = {"given": "held out", "split": "held out (split)"}[report.held_out]
    table = _faithfulness_table({"train": report.train, held_out: report.validation})
    table.title = f"Faithfulness ({report.trials} trial(s), {report.seconds:.0f} s)"
    names = [f"x-feature {number}" for number in range(1, report.validation.n_features + 1)]
    facts = "".join(f"; {term.lower()}: {text}" for term, text in fit_facts(names, report))
    table.caption = (
        f"positives by {report.positives_by}{facts}"
        if not report.degenerate
        else "[bold red]DEGENERATE: " + "; ".join(report.degenerate) + "[/]"
    )
    return table


WORST = 12
"""Classes that the table of many fits shows."""


def many_table(fits: ManyFits, class_names: Sequence[str] | None) -> Table:
    """Many fits on their held-out images: the median of all, and the least faithful classes."""
    done = [each for each in fits.classes if each.report is not None]
    resumed = sum(each.resumed for each in done)
    numbers = map(NUMBERS, ("R2", "F_cls", "F_cls positives", "active"))
    table = Table("class", *numbers, "degenerate", title_justify="left")
    table.title = f"{len(done)} of {len(fits.classes)} classes"
    reports = [each.report for each in done if each.report is not None]
    if reports:
        columns = zip(*(_figures(report) for report in reports), strict=True)
        table.add_row("[bold]median of all[/]", *_texts(map(_median, columns)), "")
        table.add_section()
    for report in sorted(reports, key=lambda each: each.validation.r2)[:WORST]:
        names = [str(t) if class_names is None else class_names[t] for t in report.targets]
        reason = "; ".join(report.degenerate)
        style = "[red]" if reason else ""
        table.add_row(", ".join(names), *_texts(_figures(report)), f"{style}{reason}")
    parts = [f"the {min(WORST, len(reports))} least faithful first"] if reports else []
    parts += [f"{resumed} were there already"] if resumed else []
    parts += [f"[red]{len(fits.degenerate)} degenerate[/]"] if fits.degenerate else []
    parts += [f"[red]{len(fits.failed)} failed[/]"] if fits.failed else []
    table.caption = "; ".join(parts)
    return table


def _figures(report: FitReport) -> tuple[float | None, ...]:
    held_out = report.validation
    return held_out.r2, held_out.f_cls, held_out.f_cls_positives, float(held_out.active)


def _median(figures: Sequence[float | None]) -> float | None:
    known = [figure for figure in figures if figure is not None]
    return statistics.median(known) if known else None


def _texts(figures: Iterable[float | None]) -> list[str]:
    """R^2, both F_cls and active x-features; a dash for what does not exist."""
    forms = zip(figures, (".3f", ".2%", ".1%", "g"), strict=True)
    return ["-" if figure is None else f"{figure:{form}}" for figure, form in forms]


def evaluation_table(evaluation: Evaluation) -> Table:
    """Faithfulness and orthogonality on a data set."""
    table = _faithfulness_table({"value": evaluation.faithfulness})
    table.title = "Evaluation"
    table.caption = f"positives by {evaluation.positives_by}"
    orthogonality, certificate = evaluation.orthogonality, evaluation.certificate
    if orthogonality is not None:
        table.add_section()
        for name in ("o1", "o2", "mean_squared_correlation"):
            _add_figure(table, name, orthogonality)
    if certificate is not None:
        table.add_section()
        if certificate.conservation_error is not None:
            table.add_row("conservation error", f"{certificate.conservation_error:.1e}", "lower")
        if certificate.fallback_share is not None:
            table.add_row("fallback share", f"{certificate.fallback_share:.1%}", "lower")
    if evaluation.faithfulness.degenerate:
        reasons = "; ".join(evaluation.faithfulness.degenerate)
        table.caption += f"\n[bold red]DEGENERATE: {reasons}[/]"
    return table


_FIGURES = ("f_reg", "f_reg_positives", "f_cls", "f_cls_positives", "margin", "margin_changed",
            "r2", "active", "dead", "positives")  # fmt: skip


def _add_figure(table: Table, name: str, *results: Any) -> None:
    metric = METRICS[name]
    table.add_row(metric.name, *map(metric.text, results), metric.better)


def _faithfulness_table(columns: dict[str, Faithfulness]) -> Table:
    table = Table("figure", *map(NUMBERS, columns), "better")
    for name in _FIGURES:
        _add_figure(table, name, *columns.values())
    return table
