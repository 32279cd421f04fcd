"""The report of a study: one HTML file with everything, and its numbers and figures as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from torchxnn.apps.study.analysis import tables as made
from torchxnn.apps.study.analysis.descriptives import Cell
from torchxnn.apps.study.analysis.evidence import evidence_table
from torchxnn.apps.study.analysis.evidence_tables import by_rule_table, evidence_tables, in_a_cell
from torchxnn.apps.study.analysis.exclusions import describe_rules
from torchxnn.apps.study.analysis.figures import (
    Drawing,
    confidence_figure,
    draw_files,
    purity_figure,
    rating_figure,
)
from torchxnn.apps.study.analysis.findings import arm_sentence, model_sentences, summarise_findings
from torchxnn.apps.study.analysis.models import Unavailable
from torchxnn.apps.study.analysis.options import AnalysisOptions
from torchxnn.apps.study.analysis.paired import PairedComparison
from torchxnn.apps.study.analysis.results import PRIMARY, Results, compute
from torchxnn.apps.study.analysis.sampled import Analysed
from torchxnn.apps.study.analysis.tables import Table
from torchxnn.apps.study.analysis.wording import (
    decimal,
    describe_analysis,
    describe_design,
    describe_deviations,
    describe_hypotheses,
    describe_limits,
    describe_sample,
    p_text,
    percent,
    plural,
    points,
)
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.explanations.drawing.html import render
from torchxnn.explanations.sentences import listed
from torchxnn.storage.artifact import to_json
from torchxnn.storage.files import check_replaceable, replace_folder

REPORT, NUMBERS, SCORES, FIGURES = "report.html", "results.json", "scores.csv", "figures"
EVIDENCE = "evidence.csv"

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a page.

    Attributes:
        anchor: for links.
        title: heading.
        paragraphs: texts.
        points: a list after them.
        drawings: figures.
        tables: tables; those without rows are left out.
    """

    anchor: str
    title: str
    paragraphs: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    drawings: tuple[Drawing, ...] = ()
    tables: tuple[Table, ...] = ()

    @property
    def holds_something(self) -> bool:
        """Whether there is anything below the heading."""
        rows = any(table.rows for table in self.tables)
        return bool(self.paragraphs or self.points or self.drawings or rows)


def write_report(
    tables: Mapping[str, pd.DataFrame], plan: StudyPlan, options: AnalysisOptions, out: Path
) -> Results:
    """Analyse an export and write report.html, results.json, scores.csv, evidence.csv and figures.

    The folder `out` appears whole or not at all and replaces an earlier report.

    Raises:
        DataError: tables that are not an export, or a grouping that cannot be scored.
        FileExistsError: `out` holds something else.
    """
    check_replaceable(out, REPORT)
    results, scores = compute(tables, plan, options)
    drawings = draw_figures(results, scores, plan)
    write_analysis(out, render_report(results, plan, drawings), results, scores, drawings)
    return results


def write_analysis(
    out: Path, page: str, results: Analysed, scores: pd.DataFrame, drawings: Sequence[Drawing]
) -> None:
    """Write the files of an analysis of any task; the folder appears whole or not at all."""
    numbers, rules = to_json(results), results.options.exclusions
    acted = evidence_table(results.evidence, rules.machine, rules.pauses)
    with replace_folder(out, REPORT) as folder:
        (folder / REPORT).write_text(page, "utf-8")
        (folder / NUMBERS).write_bytes(numbers)
        scores.to_csv(folder / SCORES, index=False)
        acted.to_csv(folder / EVIDENCE, index=False)
        (folder / FIGURES).mkdir()
        for drawing in drawings:
            for kind, content in drawing.files.items():
                (folder / FIGURES / f"{drawing.name}.{kind}").write_bytes(content)


def draw_figures(results: Results, scores: pd.DataFrame, plan: StudyPlan) -> list[Drawing]:
    """Purity as in the paper's figure 4, confidence and ratings as in its figure 5."""
    cells, ratings, found = results.cells, results.ratings, list[Drawing]()
    stars = "".join(
        f" {'*' * count}: other participants, in the arm {arm.name}."
        for count, arm in enumerate(plan.arms)
        if count and arm.name in results.selection.kept_arms
    )

    def place(cell: Cell) -> str:
        return f"{plan.data_set_name(cell.data_set)}, {cell.name}"

    def add(name: str, figure: Figure, caption: str, shown: str, means: list[str]) -> None:
        alternative = f"{shown}: {listed(means)}."
        found.append(draw_files(figure, name, caption, alternative, results.banner))

    if cells:
        caption = (
            "Clustering purity with respect to the network's predictions. Boxes span the "
            f"quartiles, whiskers 1.5 of their length at most.{stars}"
        )
        figure = purity_figure(scores, cells, plan, results.options.seed)
        means = [f"{place(c)}: {percent(c.purity.mean)}" for c in cells]
        add("purity", figure, caption, "Box plots of purity. Means", means)
    bars = "Bars of the seven answers. Means from 1 to 7"
    means = [f"{place(c)}: {decimal(c.confidence.mean)}" for c in cells if c.confidence]
    if means:
        caption = f"Confidence that all pictures are grouped correctly.{stars}"
        add("confidence", confidence_figure(cells, plan), caption, bars, means)
    agents = (("1-Heatmap", ratings.one_heatmap), ("XNN", ratings.xnn))
    means = [f"{name} {decimal(agent.mean)}" for name, agent in agents if agent]
    if means:
        caption = f"Rating of the two agents at the end of the arm {plan.main.name}."
        add("ratings", rating_figure(ratings, plan), caption, bars, means)
    return found


def describe_methods(results: Results, plan: StudyPlan) -> tuple[str, ...]:
    """Design, hypotheses, participants and analysis for a paper, a paragraph each."""
    steps = describe_analysis(plan, results.options)
    software = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    analysis = [text for _, text in steps]
    analysis.append(f"Software: {software}. Study file: SHA-256 {results.study_hash[:16]}.")
    people = (*describe_rules(results.options), *describe_sample(results))
    expected = describe_hypotheses(plan, results.options)
    parts = (describe_design(plan), expected, people, analysis)
    banner = (results.banner,) if results.banner else ()
    return (*banner, *(" ".join(part) for part in parts))


def sections_of(results: Results, plan: StudyPlan, drawings: list[Drawing]) -> list[Section]:
    """The report's sections, in order; only what there are data for."""
    by_name = {drawing.name: (drawing,) for drawing in drawings}
    found = [
        Section("findings", "Findings", points=tuple(summarise_findings(results, plan))),
        Section(
            "participants",
            "Participants",
            tuple(describe_sample(results)),
            describe_rules(results.options),
            tables=(made.excluded_table(results), made.people_table(results)),
        ),
    ]
    if results.selection.kept:
        found.append(who_answered(results, _by_rule(results, plan)))
        parts = (*_purity(results, plan, by_name), *_answers(results, plan, by_name))
        found += [part for part in parts if part.holds_something]
    return [
        *found,
        Section("shown", "What was shown", tables=(made.shown_table(plan),)),
        Section("methods", "Methods, for a paper", describe_methods(results, plan)),
        Section(
            "limits",
            "Limits",
            points=(*describe_deviations(results), *describe_limits(results, plan)),
        ),
    ]


def who_answered(results: Analysed, answers: Table) -> Section:
    """The section on how participants acted, with the main answers by the rule about it."""
    return Section(
        "who",
        "Who answered",
        ("No figure proves that a program answered; several together are a reason to doubt.",),
        tables=(answers, *evidence_tables(results.evidence, results.options.exclusions)),
    )


def _by_rule(results: Results, plan: StudyPlan) -> Table:
    def cell(c: PairedComparison) -> str:
        return in_a_cell(points(c.mean_difference), c.mean_interval, 100.0, str(c.n), c.p_holm)

    level = f"{results.options.level:.0%} interval"
    note = f"XNN minus 1-Heatmap in percentage points, {level}, signed-rank test."
    return by_rule_table(
        results.by_rule, "Data set", lambda c: plan.data_set_name(c.data_set), cell, note
    )


def _purity(
    results: Results, plan: StudyPlan, drawings: Mapping[str, tuple[Drawing, ...]]
) -> tuple[Section, ...]:
    def compared(caption: str, comparisons: list[PairedComparison]) -> Table:
        return made.paired_table(caption, comparisons, results, plan)

    primary = [c for c in results.paired if c.family == PRIMARY]
    others = [c for c in results.paired if c.family != PRIMARY]
    return (
        Section(
            "purity",
            "Clustering purity",
            drawings=drawings.get("purity", ()),
            tables=(
                made.purity_table(results, plan),
                compared("Primary comparisons, in percentage points", primary),
                compared("Secondary comparisons, in percentage points", others),
                made.carry_over_table(results, plan),
            ),
        ),
        Section(
            "model",
            "Mixed model of purity",
            tuple(model_sentences(results.model)),
            tables=made.model_tables(results.model, results, plan),
        ),
        Section(
            "arms",
            "Between arms",
            points=tuple(arm_sentence(c, plan) for c in results.between),
            tables=(made.arms_table(results, plan),),
        ),
        Section(
            "sensitivity",
            "Sensitivity",
            ("The primary comparisons with other measures, and with nobody excluded.",),
            tables=_sensitivity(results, plan),
        ),
    )


def _answers(
    results: Results, plan: StudyPlan, drawings: Mapping[str, tuple[Drawing, ...]]
) -> tuple[Section, ...]:
    ordinal, ratings = results.confidence_model, results.ratings
    rated = (ratings.comparison,) if ratings.comparison.n else ()
    p = ratings.comparison.sign_test_p
    sign_test = () if p is None else (f"Sign test of the two ratings: {p_text(p)}.",)
    steps = "in steps of the scale"
    return (
        Section(
            "confidence",
            "Confidence",
            (
                f"Proportional-odds model: not fitted, as {ordinal.reason}."
                if isinstance(ordinal, Unavailable)
                else f"Proportional-odds model of {ordinal.trials} answers of "
                f"{plural(ordinal.participants, 'participant')}.",
            ),
            drawings=drawings.get("confidence", ()),
            tables=(
                made.confidence_table(results, plan),
                made.paired_table(f"Confidence, {steps}", results.confidence, results, plan),
                *made.model_tables(ordinal, results, plan),
            ),
        ),
        Section(
            "ratings",
            "Ratings and difficulty",
            (
                *sign_test,
                f"{plural(ratings.comments, 'participant')} wrote a comment; see the export.",
            ),
            drawings=drawings.get("ratings", ()),
            tables=(
                made.ratings_table(results),
                made.paired_table(f"Ratings, {steps}", rated, results, plan),
            ),
        ),
        Section("behaviour", "Behaviour", tables=(made.behaviour_table(results, plan),)),
    )


def _sensitivity(results: Results, plan: StudyPlan) -> tuple[Table, ...]:
    names = {
        "ari": "Adjusted Rand index",
        "purity_labels": "Purity with respect to the true labels, in percentage points",
        "purity above chance": "Purity minus its chance level, in percentage points",
        "purity, nobody excluded": "Purity with nobody excluded, in percentage points",
    }
    return tuple(
        made.paired_table(
            name, [c for c in results.sensitivity if c.measure == measure], results, plan
        )
        for measure, name in names.items()
    )


def render_report(results: Results, plan: StudyPlan, drawings: list[Drawing]) -> str:
    """The page as text."""
    options = results.options
    analysed = ", ".join(f"{n} in {arm}" for arm, n in results.selection.kept_arms.items())
    key = [
        ("Analysed", analysed or "nobody"),
        ("Excluded", str(len(results.selection.excluded))),
        ("Written", f"{results.created[:16].replace('T', ' ')} UTC"),
    ]
    provenance = [
        ("Study, SHA-256", results.study_hash),
        ("Seed of the study", str(plan.settings.seed)),
        ("Significance level", f"{options.alpha:g}"),
        ("Bootstrap", f"{options.resamples:,} resamples, seed {options.seed}"),
        *results.versions.items(),
    ]
    return render_page(
        title=results.title,
        lead="Analysis of a human study",
        files="All numbers: results.json; a row per batch: scores.csv, per person: evidence.csv; "
        "figures: figures/.",
        banner=results.banner,
        key=key,
        provenance=provenance,
        sections=sections_of(results, plan, drawings),
    )


def render_page(**context: Any) -> str:
    """The page of a report or plan; it is self-contained and requests nothing."""
    style = (TEMPLATES / "study.css").read_text("utf-8")
    return render(TEMPLATES / "study_report.html", style, **context).decode()
