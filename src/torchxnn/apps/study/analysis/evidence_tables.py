"""This module writes what is known of who answered as tables of a report."""

from __future__ import annotations

from collections import Counter

import numpy as np

from torchxnn.apps.study.analysis.evidence import FIGURES, Figure
from torchxnn.apps.study.analysis.paired import PairedComparison
from torchxnn.apps.study.analysis.results import Results
from torchxnn.apps.study.analysis.tables import Table
from torchxnn.apps.study.analysis.wording import DASH, between, decimal, p_value, points
from torchxnn.apps.study.plan import StudyPlan


def figures_table(results: Results) -> Table:
    """Show each figure over the participants, and how many are beyond its threshold."""
    rules = results.options.exclusions.machine
    columns = ("Figure", "Known of", "Median", "5% to 95%", "Signal if", "Signals")

    def row(figure: Figure) -> tuple[str, ...]:
        values = [getattr(one, figure.name) for one in results.evidence]
        known = [value for value in values if value is not None]
        side = "above" if figure.high else "below"
        hits = sum(figure.holds(value, rules) for value in values)
        limit = f"{side} {getattr(rules, figure.name):g}"
        if not known:
            return (figure.text, "0", DASH, DASH, limit, "0")
        low, middle, high = (
            decimal(float(v), 0 if v >= 100 else 3) for v in np.quantile(known, (0.05, 0.5, 0.95))
        )
        return (figure.text, str(len(known)), middle, f"{low} to {high}", limit, str(hits))

    note = "Of everybody of the analysed kinds, the excluded too. By participant: evidence.csv."
    return Table("How participants acted", columns, tuple(map(row, FIGURES)), note)


def signals_table(results: Results) -> Table:
    """Count the participants by their number of signals."""
    rules = results.options.exclusions.machine
    counts = Counter(len(one.signals(rules)) for one in results.evidence)
    rows = tuple((str(number), str(counts[number])) for number in sorted(counts))
    return Table("Participants by signals", ("Signals", "Participants"), rows)


def by_rule_table(results: Results, plan: StudyPlan) -> Table:
    """Put the primary comparisons side by side, by who is left out for acting like a program."""
    level = f"{results.options.level:.0%} interval"

    def cell(c: PairedComparison) -> str:
        interval = between(c.mean_interval, 100.0, 1)
        return f"{points(c.mean_difference)} ({interval}), n = {c.n}, Holm p {p_value(c.p_holm)}"

    rows = tuple(
        (plan.data_set_name(of_data[0].data_set), *(cell(c) for c in of_data))
        for of_data in zip(*results.by_rule.values(), strict=True)
    )
    columns = ("Data set", *results.by_rule)
    note = f"XNN minus 1-Heatmap in percentage points, {level}, signed-rank test."
    return Table("The main answers with and without the rule", columns, rows, note)
