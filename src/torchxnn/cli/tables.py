"""Tables of fits and of evaluations, as commands print them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from torchxnn.cli.terminal import NUMBERS
from torchxnn.explanations.certificate import worst_map
from torchxnn.explanations.fit_facts import fit_facts
from torchxnn.metrics.evaluation import Evaluation
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.metrics.table import METRICS
from torchxnn.training.class_results import ManyFits
from torchxnn.training.report import FitReport


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


def many_table(fits: ManyFits, class_names: Sequence[str] | None, noun: str = "class") -> Table:
    """Many fits on their held-out images: the median of all, and the least faithful classes.

    `noun` is what each is about, "class", "label" or "value".
    """
    done = [each for each in fits.classes if each.report is not None]
    resumed = sum(each.resumed for each in done)
    numbers = map(NUMBERS, ("R2", "F_cls", "F_cls positives", "active"))
    table = Table(noun, *numbers, "degenerate", title_justify="left")
    nouns = "classes" if noun == "class" else f"{noun}s"
    table.title = f"{len(done)} of {len(fits.classes)} {nouns}"
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
    if evaluation.agreement is not None:
        table.caption += f"; {evaluation.agreement.text}"
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
            whose = f" ({worst})" if (worst := worst_map(certificate)) else ""
            table.add_row("fallback share", f"{certificate.fallback_share:.1%}{whose}", "lower")
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
    """What has no meaning for any of them, such as F_cls of values, is left out."""
    table = Table("figure", *map(NUMBERS, columns), "better")
    for name in _FIGURES:
        if any(getattr(found, METRICS[name].field) is not None for found in columns.values()):
            _add_figure(table, name, *columns.values())
    return table
