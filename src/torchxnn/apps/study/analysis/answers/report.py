"""The report of a study of answers: one HTML file, its numbers and its figure as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from pathlib import Path

import pandas as pd

from torchxnn.apps.study.analysis.answers.compare import Contrast, OddsModel
from torchxnn.apps.study.analysis.answers.figure import answers_figure
from torchxnn.apps.study.analysis.answers.results import (
    AnswerResults,
    StageAnswers,
    compute_answers,
)
from torchxnn.apps.study.analysis.answers.wording import (
    describe_answers_analysis,
    describe_answers_design,
    describe_answers_hypotheses,
    describe_answers_limits,
    measure_of,
)
from torchxnn.apps.study.analysis.descriptives import Summary
from torchxnn.apps.study.analysis.evidence_tables import by_rule_table, in_a_cell
from torchxnn.apps.study.analysis.exclusions import describe_rules
from torchxnn.apps.study.analysis.figures import Drawing, draw_files
from torchxnn.apps.study.analysis.findings import NO_FINDING
from torchxnn.apps.study.analysis.models import Estimate, Unavailable
from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.analysis.paired import UnpairedComparison
from torchxnn.apps.study.analysis.report import (
    REPORT,
    Section,
    render_page,
    who_answered,
    write_analysis,
)
from torchxnn.apps.study.analysis.tables import Table, excluded_table, people_table, shown_table
from torchxnn.apps.study.analysis.wording import (
    DASH,
    MINUS,
    between,
    decimal,
    describe_sample,
    p_text,
    p_value,
    percent,
    points,
)
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.explanations.sentences import listed
from torchxnn.storage.files import check_replaceable


def write_answers_report(
    tables: Mapping[str, pd.DataFrame], plan: StudyPlan, options: AnalysisOptions, out: Path
) -> AnswerResults:
    """Analyse an export and write what `write_analysis` writes, with one figure.

    The folder `out` appears whole or not at all and replaces an earlier report.

    Raises:
        DataError: tables that are not an export.
        FileExistsError: `out` holds something else.
    """
    check_replaceable(out, REPORT)
    results, rows = compute_answers(tables, plan, options)
    drawings = _draw(results, rows, plan)
    page = render_answers_report(results, plan, drawings)
    write_analysis(out, page, results, rows, drawings)
    return results


def summarise_answers(results: AnswerResults, plan: StudyPlan) -> list[str]:
    """Answer each hypothesis in one sentence or two."""
    if not results.selection.kept:
        return ["There is nobody to analyse, so there are no results."]
    found = [NO_FINDING] if results.banner else []
    found += [_contrast_sentence(c, results, plan) for c in results.contrasts]
    found += [_sooner_sentence(c.people, results) for c in results.sooner]
    helped = [each for each in results.stages if not each.data_set and each.utility is not None]
    if helped:
        said = [
            f"{each.name} {decimal(each.utility)}{_in_brackets(between(each.utility_interval))}"
            for each in helped
        ]
        found.append(
            f"Utility, the share right divided by that without an explanation: {listed(said)}."
        )
    if results.label_follower is not None:
        found.append(
            f"Who guesses is right about {percent(results.chance)} of the pictures, who always "
            f"answers the truth about {percent(results.label_follower)}."
        )
    return found


def _contrast_sentence(c: Contrast, results: AnswerResults, plan: StudyPlan) -> str:
    one = c.people
    if one.p is None:
        return f"{one.first} and {one.second}: nobody to compare."
    means = {each.stage: each.right.mean for each in results.stages if not each.data_set}
    interval = _in_brackets(between(one.mean_interval, 100.0, 1))
    return (
        f"{measure_of(plan).capitalize()}: {percent(means[one.first])} with {one.first} (n = "
        f"{one.n_first}) and {percent(means[one.second])} with {one.second} (n = {one.n_second}); "
        f"difference {points(one.mean_difference)} percentage points{interval}; "
        f"{_test(one)}. {_verdict(one, results)} {_carries_over(c)}"
    ).strip()


def _sooner_sentence(one: UnpairedComparison, results: AnswerResults) -> str:
    if one.p is None:
        return ""
    interval = _in_brackets(between(one.mean_interval, 1.0, 1))
    return (
        f"Pictures seen until the right cue: {one.first} {MINUS} {one.second} "
        f"{decimal(one.mean_difference, 1)}{interval}; {_test(one)}. {_verdict(one, results)}"
    )


def _in_brackets(interval: str) -> str:
    return "" if interval == DASH else f" ({interval})"


def _test(one: UnpairedComparison) -> str:
    holm = f", {p_text(one.p_holm, 'Holm p')}" if one.p_holm is not None else ""
    return (
        f"Mann and Whitney's test {p_text(one.p)} ({one.method}){holm}, Cliff's delta "
        f"{decimal(one.cliffs_delta)}"
    )


def _verdict(one: UnpairedComparison, results: AnswerResults) -> str:
    p, alpha = one.p if one.p_holm is None else one.p_holm, results.options.alpha
    if p is None or p >= alpha:
        return f"Not significant at {alpha:g}, which does not show that they are equal."
    higher = one.first if (one.cliffs_delta or 0) > 0 else one.second
    return f"Significant at {alpha:g}: higher with {higher}."


def _carries_over(c: Contrast) -> str:
    low, high = c.both.low, c.both.high
    if low is None or high is None:
        return "What other pictures would give cannot be tested."
    held = "holds" if low > 0 or high < 0 else "is not shown to hold"
    return (
        f"With pictures drawn as well as people the interval is {between(c.both, 100.0, 1)}: the "
        f"difference {held} for other pictures."
    )


# --- tables


def stage_table(results: AnswerResults, plan: StudyPlan) -> Table:
    """Show shares of right answers per stage."""
    level = f"{results.options.level:.0%} interval"
    rows = []
    for each in results.stages:
        rows.append(
            (
                _where(each, plan),
                str(each.right.n),
                percent(each.right.mean),
                between(each.right.interval, 100.0, 1),
                percent(_mean(each.errs)),
                decimal(_mean(each.seen), 1),
                decimal(each.utility),
                between(each.utility_interval),
                decimal(_mean(each.confidence)),
                ", ".join(percent(value) for value in each.rounds),
            )
        )
    columns = (
        *("Stage", "n", "Right", f"{level} (%)", "Right where the network errs"),
        *("Pictures until right", "Utility", level, "Confidence, 1 to 7", "Right by round"),
    )
    return _without_empty(Table("Right answers by stage", columns, tuple(rows)))


def _without_empty(table: Table) -> Table:
    """The table without columns that say nothing in this task."""
    kept = [
        place
        for place in range(len(table.columns))
        if any(row[place] not in ("", DASH) for row in table.rows)
    ]
    rows = tuple(tuple(row[place] for place in kept) for row in table.rows)
    columns = tuple(table.columns[place] for place in kept)
    return Table(table.caption, columns, rows, table.note)


def contrast_table(
    caption: str, contrasts: Sequence[Contrast], results: AnswerResults, shares: bool = True
) -> Table:
    """Show comparisons of stages, of shares or of numbers of pictures."""
    level, scale = f"{results.options.level:.0%} interval", 100.0 if shares else 1.0
    rows = []
    for c in contrasts:
        one, mean = c.people, c.people.mean_difference
        rows.append(
            (
                f"{one.first} {MINUS} {one.second}",
                f"{one.n_first}, {one.n_second}",
                points(mean) if shares else decimal(mean, 1),
                between(one.mean_interval, scale, 1),
                between(c.both, scale, 1),
                p_value(one.p),
                p_value(one.p_holm),
                decimal(one.cliffs_delta),
                between(one.cliffs_delta_interval),
            )
        )
    columns = (
        *("Difference", "n", "Mean difference", f"{level}, other people"),
        *(f"{level}, other people and pictures", "p", "p (Holm)", "Cliff's delta", level),
    )
    note = "Mann and Whitney's test over participants, two-sided."
    return Table(caption, columns, tuple(rows), note)


def odds_table(model: OddsModel | Unavailable, results: AnswerResults) -> Table:
    """Show the odds ratios of the logistic model."""
    estimates: Sequence[Estimate] = () if isinstance(model, Unavailable) else model.contrasts
    rows = tuple(
        (
            each.name.replace(" - ", " against "),
            decimal(exp(each.value)),
            f"{decimal(exp(each.low))} to {decimal(exp(each.high))}",
            p_value(each.p),
        )
        for each in estimates
    )
    level = f"{results.options.level:.0%} interval"
    return Table("Odds of a right answer", ("Stages", "Odds ratio", level, "p"), rows)


def _mean(found: Summary | None) -> float | None:
    return None if found is None else found.mean


def _where(each: StageAnswers, plan: StudyPlan) -> str:
    return f"{plan.data_set_name(each.data_set)}: {each.name}" if each.data_set else each.name


# --- the page


def _draw(results: AnswerResults, rows: pd.DataFrame, plan: StudyPlan) -> list[Drawing]:
    shown = [each for each in results.stages if not each.data_set]
    if not shown:
        return []
    figure = answers_figure(results, rows)
    caption = (
        f"{measure_of(plan).capitalize()}. Boxes span the quartiles; each point is a participant; "
        "the diamond is the mean, the dashed line chance."
    )
    if results.label_follower is not None:
        caption += " The dotted line is who always answers the truth."
    means = listed([f"{each.name}: {percent(each.right.mean)}" for each in shown])
    return [draw_files(figure, "answers", caption, f"Box plots. Means: {means}.", results.banner)]


def answer_sections(
    results: AnswerResults, plan: StudyPlan, drawings: list[Drawing]
) -> list[Section]:
    """The report's sections, in order; only what there are data for."""
    rules = describe_rules(results.options)
    model = results.model
    fitted = (
        f"Logistic model: not fitted, as {model.reason}."
        if isinstance(model, Unavailable)
        else f"Logistic model of {model.answers} answers of {model.participants} participants."
    )
    compared = [
        stage_table(results, plan),
        contrast_table("Right answers, in percentage points", results.contrasts, results),
        contrast_table("Where the network errs, not corrected", results.errs, results),
        contrast_table("Pictures seen until the right cue", results.sooner, results, False),
    ]
    found = [
        Section(
            "findings", "Findings", points=tuple(filter(None, summarise_answers(results, plan)))
        ),
        Section(
            "participants",
            "Participants",
            tuple(describe_sample(results)),
            rules,
            tables=(excluded_table(results), people_table(results)),
        ),
        who_answered(results, _by_rule(results)),
        Section("answers", "Right answers", drawings=tuple(drawings), tables=tuple(compared)),
        Section("model", "Odds", (fitted,), tables=(odds_table(model, results),)),
        Section("confidence", "Confidence", tables=(_confidence_table(results),)),
        Section("shown", "What was shown", tables=(shown_table(plan),)),
        Section("methods", "Methods, for a paper", _methods(results, plan)),
        Section("limits", "Limits", points=tuple(describe_answers_limits(plan))),
    ]
    return [section for section in found if section.holds_something]


def _by_rule(results: AnswerResults) -> Table:
    def cell(c: UnpairedComparison) -> str:
        right, n = c.measure == "right", f"{c.n_first} and {c.n_second}"
        mean = points(c.mean_difference) if right else decimal(c.mean_difference, 1)
        return in_a_cell(mean, c.mean_interval, 100.0 if right else 1.0, n, c.p_holm)

    names = {"right": "Right answers (points)", "seen": "Pictures seen until right"}
    level = f"{results.options.level:.0%} interval"
    note = f"XNN minus 1-Heatmap, {level}, Mann and Whitney's test."
    return by_rule_table(results.by_rule, "Measure", lambda c: names[c.measure], cell, note)


def _confidence_table(results: AnswerResults) -> Table:
    rows = tuple(
        (
            f"{c.first} {MINUS} {c.second}",
            f"{c.n_first}, {c.n_second}",
            decimal(c.mean_difference),
            between(c.mean_interval),
            p_value(c.p),
            p_value(c.p_holm),
        )
        for c in results.confidence
    )
    level = f"{results.options.level:.0%} interval"
    columns = ("Difference", "n", "Steps of the scale", level, "p", "p (Holm)")
    return Table("Confidence", columns, rows)


def _methods(results: AnswerResults, plan: StudyPlan) -> tuple[str, ...]:
    software = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    analysis = [text for _, text in describe_answers_analysis(plan, results.options)]
    analysis.append(f"Software: {software}. Study file: SHA-256 {results.study_hash[:16]}.")
    people = (*describe_rules(results.options), *describe_sample(results))
    expected = describe_answers_hypotheses(plan, results.options)
    parts = (describe_answers_design(plan), expected, people, analysis)
    banner = (results.banner,) if results.banner else ()
    return (*banner, *(" ".join(part) for part in parts))


def render_answers_report(results: AnswerResults, plan: StudyPlan, drawings: list[Drawing]) -> str:
    """The page as text."""
    options = results.options
    counts = [f"{each.right.n} {each.name}" for each in results.stages if not each.data_set]
    return render_page(
        title=results.title,
        lead="Analysis of a human study",
        files="All numbers: results.json; a row per answer: scores.csv, per person: evidence.csv; "
        "figures: figures/.",
        banner=results.banner,
        key=[
            ("Analysed", ", ".join(counts) or "nobody"),
            ("Excluded", str(len(results.selection.excluded))),
            ("Written", f"{results.created[:16].replace('T', ' ')} UTC"),
        ],
        provenance=[
            ("Study, SHA-256", results.study_hash),
            ("Seed of the study", str(plan.settings.seed)),
            ("Significance level", f"{options.alpha:g}"),
            ("Bootstrap", f"{options.resamples:,} resamples, seed {options.seed}"),
            *results.versions.items(),
        ],
        sections=answer_sections(results, plan, drawings),
    )
