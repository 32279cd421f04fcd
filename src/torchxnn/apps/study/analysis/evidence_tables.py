"""This module writes what is known of who answered as tables of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from torchxnn.apps.study.analysis.evidence import Evidence, Figure, figures_of
from torchxnn.apps.study.analysis.options import ExclusionRules
from torchxnn.apps.study.analysis.resampling import BootstrapInterval
from torchxnn.apps.study.analysis.tables import Table
from torchxnn.apps.study.analysis.wording import DASH, between, decimal, p_value

Answer = TypeVar("Answer")


def evidence_tables(evidence: Sequence[Evidence], rules: ExclusionRules) -> tuple[Table, ...]:
    """Show who has how many signals, and each figure over the participants."""
    return _signals(evidence, rules), _figures(evidence, rules)


def _figures(evidence: Sequence[Evidence], rules: ExclusionRules) -> Table:
    """Show each figure of the task, and how many are beyond its threshold."""
    columns = ("Figure", "Known of", "Median", "5% to 95%", "Signal if", "Signals")

    def row(figure: Figure) -> tuple[str, ...]:
        values = [getattr(one, figure.name) for one in evidence]
        known = [value for value in values if value is not None]
        side = "above" if figure.high else "below"
        hits = sum(figure.holds(value, rules.machine) for value in values)
        limit = f"{side} {getattr(rules.machine, figure.name):g}"
        if not known:
            return (figure.text, "0", DASH, DASH, limit, "0")
        low, middle, high = (
            decimal(float(v), 0 if v >= 100 else 3) for v in np.quantile(known, (0.05, 0.5, 0.95))
        )
        return (figure.text, str(len(known)), middle, f"{low} to {high}", limit, str(hits))

    note = "Of everybody of the analysed kinds, the excluded too. By participant: evidence.csv."
    rows = tuple(map(row, figures_of(rules.pauses)))
    return Table("How participants acted", columns, rows, note)


def _signals(evidence: Sequence[Evidence], rules: ExclusionRules) -> Table:
    """Count the participants by their number of signals."""
    counts = Counter(len(one.signals(rules.machine)) for one in evidence)
    rows = tuple((str(number), str(counts[number])) for number in sorted(counts))
    return Table("Participants by signals", ("Signals", "Participants"), rows)


def by_rule_table(
    answers: Mapping[str, Sequence[Answer]],
    heading: str,
    name: Callable[[Answer], str],
    cell: Callable[[Answer], str],
    note: str,
) -> Table:
    """Put the main answers side by side, by who is left out for acting like a program.

    Args:
        answers: see `by_rule`.
        heading: of the first column.
        name: of an answer, in that column.
        cell: an answer in a few words.
        note: below the table.
    """
    joined = zip(*answers.values(), strict=True)
    rows = tuple((name(same[0]), *map(cell, same)) for same in joined)
    return Table("The main answers with and without the rule", (heading, *answers), rows, note)


def in_a_cell(
    difference: str, interval: BootstrapInterval | None, scale: float, n: str, p: float | None
) -> str:
    """A comparison as "12.0 (3.1 to 20.5), n = 30, Holm p 0.010"."""
    return f"{difference} ({between(interval, scale, 1)}), n = {n}, Holm p {p_value(p)}"
