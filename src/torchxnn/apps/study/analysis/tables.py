"""This module writes the results as the tables of a report: texts in rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torchxnn.apps.study.analysis.descriptives import Cell, Summary
from torchxnn.apps.study.analysis.models import Estimate, LinearModel, TermTest, Unavailable
from torchxnn.apps.study.analysis.ordinal import OrdinalModel
from torchxnn.apps.study.analysis.paired import PairedComparison, Question
from torchxnn.apps.study.analysis.pictures import CarryOver
from torchxnn.apps.study.analysis.results import Results
from torchxnn.apps.study.analysis.sampled import Sampled
from torchxnn.apps.study.analysis.wording import (
    DASH,
    MINUS,
    between,
    decimal,
    p_value,
    percent,
    points,
)
from torchxnn.apps.study.plan import StudyPlan


@dataclass(frozen=True)
class Table:
    """A table in texts.

    Attributes:
        caption: what it shows.
        columns: headings; the first column names the row.
        rows: cells.
        note: below it; may be empty.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def excluded_table(results: Sampled) -> Table:
    """Count who is left out, by arm and reason; nobody is named."""
    selection = results.selection
    others = sorted({row.arm for row in selection.excluded} - {*selection.kept_arms})
    arms = [*selection.kept_arms, *others]
    rows = [("analysed", *(str(selection.kept_arms.get(arm, 0)) for arm in arms))]
    for reason in selection.reasons:
        counts = (
            sum(reason in row.reasons for row in selection.excluded if row.arm == arm)
            for arm in arms
        )
        rows.append((reason, *(str(count) for count in counts)))
    several = any(len(row.reasons) > 1 for row in selection.excluded)
    note = "Some are excluded for several reasons." if several else ""
    return Table("Participants by arm", ("", *arms), tuple(rows), note)


def people_table(results: Sampled) -> Table:
    """Count the answers to the questions about participants."""
    rows = []
    for question in results.people:
        total = sum(count for _, count in question.answers)
        rows += [
            (question.question, answer, str(count), percent(count / total))
            for answer, count in question.answers
        ]
    columns = ("Question", "Answer", "Participants", "Share")
    return Table("Demographics of the analysed", columns, tuple(rows))


Columns = Sequence[tuple[str, Callable[[Any], str]]]
"""Per column its heading, and what it says of a row's item."""


def _table(caption: str, items: Sequence[Any], columns: Columns, note: str = "") -> Table:
    made = (tuple(text(item) for _, text in columns) for item in items)
    # a row that names something and says nothing of it is left out
    rows = tuple(row for row in made if not {*row[1:]} <= {"", DASH, "0"})
    return Table(caption, tuple(heading for heading, _ in columns), rows, note)


def purity_table(results: Results, plan: StudyPlan) -> Table:
    """Show purity beside chance and the adjusted Rand index."""
    level = f"{results.options.level:.0%} interval"
    columns = [
        ("Data set, stage (arm)", lambda c: _where(c, plan)),
        ("n", lambda c: str(c.purity.n)),
        ("Mean purity", lambda c: percent(c.purity.mean)),
        (f"{level} (%)", lambda c: between(c.purity.interval, 100.0, 1)),
        ("SD (points)", lambda c: decimal(c.purity.sd and 100 * c.purity.sd, 1)),
        ("Median", lambda c: percent(c.purity.median)),
        ("Chance level", lambda c: percent(c.chance)),
        ("Mean ARI", lambda c: decimal(c.ari.mean)),
        (level, lambda c: between(c.ari.interval)),
        ("Purity, true labels", lambda c: percent(c.purity_labels and c.purity_labels.mean)),
    ]
    note = (
        "Purity and ARI with respect to the network's predictions. Chance level: expected purity "
        "of groups of the same sizes, filled at random. ARI: adjusted Rand index, 0 at chance, 1 "
        "for a perfect grouping."
    )
    return _table("Clustering purity", results.cells, columns, note)


def behaviour_table(results: Results, plan: StudyPlan) -> Table:
    """Summarise what participants did."""
    columns = [
        ("Data set, stage (arm)", lambda c: _where(c, plan)),
        ("Active seconds", lambda c: decimal(c.active_seconds, 0)),
        ("Moves", lambda c: decimal(c.moves, 1)),
        ("Heatmaps switched", lambda c: decimal(c.toggles, 1)),
        ("Zooms", lambda c: decimal(c.zooms, 1)),
    ]
    return _table("Medians per batch", results.cells, columns)


def paired_table(
    caption: str, comparisons: Sequence[PairedComparison], results: Results, plan: StudyPlan
) -> Table:
    """Show paired tests of one measure with Holm's correction; purity is in points, else steps."""
    level = f"{results.options.level:.0%} interval"
    share = any(c.measure.startswith("purity") for c in comparisons)
    mean, scale, digits = (points, 100.0, 1) if share else (decimal, 1.0, 2)
    columns = [
        ("Data set: difference", lambda c: f"{_data_set(c, plan)}{c.first} {MINUS} {c.second}"),
        ("n", lambda c: str(c.n)),
        ("Mean difference", lambda c: mean(c.mean_difference)),
        (level, lambda c: between(c.mean_interval, scale, digits)),
        ("T+", lambda c: decimal(c.test and c.test.statistic, 1)),
        ("Pairs that differ", lambda c: str(c.test.nonzero) if c.test else ""),
        ("p", lambda c: p_value(c.p)),
        ("p (Holm)", lambda c: p_value(c.p_holm)),
        ("Rank-biserial r", lambda c: decimal(c.rank_biserial)),
        (level, lambda c: between(c.rank_biserial_interval)),
        ("Cohen's d_z", lambda c: decimal(c.cohens_dz)),
        (level, lambda c: between(c.cohens_dz_interval)),
    ]
    methods = {c.test.method for c in comparisons if c.test is not None}
    note = (
        "Wilcoxon's signed-rank test, two-sided; T+ is the sum of the ranks of positive "
        f"differences. p: {', '.join(sorted(methods)) or DASH}. "
        "Intervals: bootstrap over participants."
    )
    return _table(caption, comparisons, columns, note)


def arms_table(results: Results, plan: StudyPlan) -> Table:
    """Compare the arms with each other."""
    level = f"{results.options.level:.0%} interval"
    columns = [
        (
            "Data set: first against second",
            lambda c: f"{_data_set(c, plan)}{c.first} against {c.second}",
        ),
        ("n", lambda c: f"{c.n_first}, {c.n_second}"),
        ("Mean difference (points)", lambda c: points(c.mean_difference)),
        (level, lambda c: between(c.mean_interval, 100.0, 1)),
        ("U", lambda c: decimal(c.statistic, 1)),
        ("p", lambda c: p_value(c.p)),
        ("p (Holm)", lambda c: p_value(c.p_holm)),
        ("Cliff's delta", lambda c: decimal(c.cliffs_delta)),
        (level, lambda c: between(c.cliffs_delta_interval)),
    ]
    note = (
        "Mann and Whitney's test, two-sided, of different participants. What shows the same in "
        "both arms, such as NoVis, is a check that the groups are alike and is not corrected."
    )
    return _table("Arms compared", results.between, columns, note)


def ratings_table(results: Results) -> Table:
    """Summarise the ratings of both agents and the difficulty."""
    ratings = results.ratings
    rows = {
        "Agent with one heatmap (1 to 7)": ratings.one_heatmap,
        "Agent with x-features (1 to 7)": ratings.xnn,
        "Difficulty (0 to 7)": ratings.difficulty,
    }
    return _summaries("Ratings and difficulty", "", rows, results)


def confidence_table(results: Results, plan: StudyPlan) -> Table:
    """Summarise confidence per stage."""
    rows = {_where(cell, plan): cell.confidence for cell in results.cells}
    caption = "Confidence, 1 (zero) to 7 (100%)"
    return _summaries(caption, "Data set, stage (arm)", rows, results)


def model_tables(
    model: LinearModel | OrdinalModel | Unavailable, results: Results, plan: StudyPlan
) -> tuple[Table, ...]:
    """Show the terms and the stages of a model; there are no tables if it was not fitted."""
    if isinstance(model, Unavailable):
        return ()
    ordinal = isinstance(model, OrdinalModel)
    scale, digits = (1.0, 2) if ordinal else (100.0, 1)

    def test(term: TermTest) -> tuple[str, ...]:
        statistic = term.statistic * term.df if ordinal else term.statistic
        df = str(term.df) if ordinal else f"{term.df}, {term.df_residual}"
        return (term.term, decimal(statistic), df, p_value(term.p))

    def contrast(one: Estimate) -> tuple[str, ...]:
        numbers = (one.value, one.standard_error, one.low, one.high)
        value, error, low, high = (decimal(scale * number, digits) for number in numbers)
        name = f"{_data_set(one, plan)}{one.name.replace(' - ', f' {MINUS} ')}"
        return (name, value, error, f"{low} to {high}", p_value(one.p), p_value(one.p_holm))

    tests = ("Term", "Chi squared" if ordinal else "F", "df", "p")
    unit = "Log odds ratio" if ordinal else "Difference (points)"
    level = f"{results.options.level:.0%} interval"
    contrasts = ("Data set: difference", unit, "SE", level, "p", "p (Holm)")
    compared = "Stages compared by the model"
    return (
        Table("Wald tests of the terms (type III)", tests, tuple(map(test, model.terms))),
        Table(compared, contrasts, tuple(map(contrast, model.contrasts)), _note(model)),
    )


def _note(model: LinearModel | OrdinalModel) -> str:
    """Say to what the standard errors of a model carry over."""
    if isinstance(model, LinearModel) and model.suits_sd is not None:
        return "Standard errors are over participants and batches of pictures. Equal order."
    return "Standard errors are over participants, for these pictures. Equal order."


def carry_over_table(results: Results, plan: StudyPlan) -> Table:
    """Show to what differences of purity carry over: other people, other pictures, both."""
    columns = [
        ("Data set: difference", lambda c: f"{_data_set(c, plan)}{c.first} {MINUS} {c.second}"),
        ("Participants", lambda c: str(c.participants)),
        ("Batches", lambda c: str(c.batches)),
        ("F1, over participants", lambda c: decimal(c.f_participants)),
        ("p, other people", lambda c: p_value(c.p_participants)),
        ("F2, over batches", lambda c: decimal(c.f_batches)),
        ("p, other pictures", lambda c: p_value(c.p_batches)),
        ("min F'", lambda c: decimal(c.f_both)),
        ("p, both", lambda c: p_value(c.p_both)),
        ("p, both (Holm)", lambda c: p_value(c.p_holm)),
        ("Mean difference", lambda c: points(c.difference)),
        (f"{results.options.level:.0%} interval, both", _both_interval),
    ]
    note = (
        "F1 takes the batches of pictures as given, F2 the participants; min F' takes both as "
        "drawn, is a lower bound, and is corrected. With few batches only large differences can be "
        "shown to carry over to other pictures."
    )
    return _table("To what differences of purity carry over", results.carry_over, columns, note)


def _both_interval(one: CarryOver) -> str:
    if one.low is None or one.high is None:
        return DASH
    return f"{decimal(100 * one.low, 1)} to {decimal(100 * one.high, 1)}"


def shown_table(plan: StudyPlan) -> Table:
    """Describe what participants saw, by data set."""
    about = [{"Classes": ", ".join(data.classes)} | data.about for data in plan.data_sets]
    rows = [
        (name, *(_known(known.get(key)) for known in about))
        for key, name in _ABOUT.items()
        if any(known.get(key) not in (None, "") for known in about)
    ]
    rows.append(("Predictions that are the label", *(percent(d.agreement) for d in plan.data_sets)))
    return Table("Data sets", ("", *(data.name for data in plan.data_sets)), tuple(rows))


_ABOUT = {
    "Classes": "Classes",
    "network": "Network",
    "layer": "Layer",
    "n_features": "x-features",
    "r2_validation": "R2 of the XNN on validation pictures",
    "data": "Pictures from",
    "pictures_drawn_from": "Pictures drawn from",
}


def _known(value: Any) -> str:
    if value in (None, ""):
        return DASH
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _summaries(
    caption: str, heading: str, summaries: Mapping[str, Summary | None], results: Results
) -> Table:
    rows = []
    for name, found in summaries.items():
        figures: tuple[str, ...] = ("0", *[DASH] * 4)
        if found is not None:
            numbers = decimal(found.sd), decimal(found.median, 1)
            figures = (str(found.n), decimal(found.mean), between(found.interval), *numbers)
        rows.append((name, *figures))
    level = f"{results.options.level:.0%} interval"
    return Table(caption, (heading, "n", "Mean", level, "SD", "Median"), tuple(rows))


def _where(cell: Cell, plan: StudyPlan) -> str:
    arm = "" if cell.arm == plan.main.name else f" ({cell.arm})"
    return f"{_data_set(cell, plan)}{cell.name}{arm}"


def _data_set(of: Cell | Question | Estimate, plan: StudyPlan) -> str:
    return f"{plan.data_set_name(of.data_set)}: " if of.data_set else ""
