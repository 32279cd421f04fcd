"""All statistics of a study in one frozen record, and how it becomes JSON."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import product

import pandas as pd

from torchxnn.apps.study.analysis.arms import compare_arms, purity_of
from torchxnn.apps.study.analysis.crossed import fit_purity_model
from torchxnn.apps.study.analysis.descriptives import (
    Cell,
    Demographics,
    Summary,
    count_answers,
    demographics,
    describe_cells,
    summarise,
)
from torchxnn.apps.study.analysis.evidence import Evidence
from torchxnn.apps.study.analysis.exclusions import (
    Selection,
    by_rule,
    evidence_of,
    select_participants,
)
from torchxnn.apps.study.analysis.models import LinearModel, Unavailable
from torchxnn.apps.study.analysis.options import (
    ASSISTED,
    PAIRS,
    PRIMARY_PAIR,
    STAGES,
    AnalysisOptions,
    ExclusionRules,
    floats,
)
from torchxnn.apps.study.analysis.ordinal import OrdinalModel, fit_ordinal_model
from torchxnn.apps.study.analysis.paired import (
    PairedComparison,
    Question,
    UnpairedComparison,
    compare_paired,
    holm,
)
from torchxnn.apps.study.analysis.pictures import CarryOver, carry_over
from torchxnn.apps.study.analysis.purity import score_trials
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import MachineRules
from torchxnn.storage.artifact import __version__

PRIMARY, SECONDARY = "primary", "secondary"
CONFIDENCE = "confidence"
PURITY = "purity"
SENSITIVITY = ("ari", "purity_labels", "purity above chance")
NO_EXCLUSIONS = "purity, nobody excluded"


@dataclass(frozen=True)
class Ratings:
    """What participants said at the end.

    Attributes:
        one_heatmap: ratings of the agent with one heatmap in the main arm; None if there are none.
        xnn: ratings of the agent with x-features.
        one_heatmap_answers: how often each answer from 1 to 7 was given.
        xnn_answers: the same of the agent with x-features.
        comparison: xnn - 1-Heatmap, of participants who rated both.
        difficulty: 0 to 7, all arms.
        comments: participants who wrote one.
    """

    one_heatmap: Summary | None
    xnn: Summary | None
    one_heatmap_answers: tuple[int, ...]
    xnn_answers: tuple[int, ...]
    comparison: PairedComparison
    difficulty: Summary | None
    comments: int


@dataclass(frozen=True)
class Results:
    """Everything that a report says, in shares (0 to 1) for purity.

    Attributes:
        title: of the study.
        banner: what every page must say of the data; may be empty.
        selection: who is analysed.
        cells: descriptives.
        paired: purity, stages of the main arm, with the families `PRIMARY` and `SECONDARY`.
        carry_over: purity, the same pairs and families with participants and pictures as random
            factors.
        model: linear mixed model of purity, assisted stages of the main arm.
        between: arms against each other, the family `BETWEEN`; checks, which show the same in both,
            have no family.
        confidence: stages of the main arm, the family `CONFIDENCE`.
        confidence_model: proportional odds, assisted stages of the main arm.
        ratings: of the agents.
        sensitivity: the primary comparisons with other figures or without exclusions, each
            corrected on its own.
        evidence: how everybody of the analysed kinds acted, the excluded too.
        by_rule: the primary comparisons with and without the rule on acting like a program.
        people: demographics of the analysed participants.
        missing: cells of the design without any trial, (arm, data set, stage).
        incomplete: analysed participants who lack a trial of their arm's design.
        options: of the analysis.
        study_hash: SHA-256 of the study file.
        versions: of the software.
        created: ISO 8601, UTC.
    """

    title: str
    banner: str
    selection: Selection
    cells: tuple[Cell, ...]
    paired: tuple[PairedComparison, ...]
    carry_over: tuple[CarryOver, ...]
    model: LinearModel | Unavailable
    between: tuple[UnpairedComparison, ...]
    confidence: tuple[PairedComparison, ...]
    confidence_model: OrdinalModel | Unavailable
    ratings: Ratings
    sensitivity: tuple[PairedComparison, ...]
    evidence: tuple[Evidence, ...]
    by_rule: dict[str, tuple[PairedComparison, ...]]
    people: tuple[Demographics, ...]
    missing: tuple[tuple[str, str, str], ...]
    incomplete: int
    options: AnalysisOptions
    study_hash: str
    versions: dict[str, str]
    created: str


def compute(
    tables: Mapping[str, pd.DataFrame], plan: StudyPlan, options: AnalysisOptions
) -> tuple[Results, pd.DataFrame]:
    """All statistics of an export, and the scores of the analysed trials that they are made of.

    Raises:
        DataError: tables that are not an export, or a grouping that cannot be scored.
    """
    selection = select_participants(tables, options)
    arms = tuple(arm.name for arm in plan.arms)
    in_order = {arm: selection.kept_arms[arm] for arm in arms if arm in selection.kept_arms}
    selection = replace(selection, kept_arms=in_order)
    scores = score_trials(tables["trials"], tables["placements"], selection.kept)
    people = tables["participants"]
    people = people[people["participant"].isin(list(selection.kept))]
    main = scores[scores["arm"] == plan.main.name]
    keys = tuple(d.key for d in plan.data_sets)
    missing = tuple(
        (arm.name, key, stage)
        for arm in plan.arms
        if arm.name in selection.kept_arms
        for key, stage in product(keys, arm.all_stages)
        if not purity_of(scores, arm.name, key, stage).size
    )
    results = Results(
        title=plan.settings.title,
        banner=selection.banner,
        selection=selection,
        cells=describe_cells(scores, arms, keys, STAGES, options),
        paired=tuple(holm(_compare_stages(main, plan, options, PURITY))),
        carry_over=tuple(
            holm(
                carry_over(main, question, options.level)
                for question in _questions(plan, PURITY, PAIRS)
            )
        ),
        model=fit_purity_model(main, ASSISTED, keys, options),
        between=tuple(holm(compare_arms(scores, plan, options))),
        confidence=tuple(holm(_compare_stages(main, plan, options, CONFIDENCE))),
        confidence_model=fit_ordinal_model(
            main[main["stage"].isin(ASSISTED)], ASSISTED, keys, options
        ),
        ratings=_ratings(people, plan, options),
        sensitivity=_sensitivity(tables, main, plan, options),
        evidence=evidence_of(tables, selection, options),
        by_rule=by_rule(options, lambda changed: _primary(tables, plan, changed)),
        people=demographics(people),
        missing=missing,
        incomplete=_incomplete(scores, plan, selection),
        options=options,
        study_hash=plan.fingerprint(),
        versions=software(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return results, scores


def software() -> dict[str, str]:
    """Versions of what computes the statistics."""
    found = {"torchxnn": __version__, "python": platform.python_version()}
    return found | {
        name: version(name) for name in ("numpy", "scipy", "pandas", "statsmodels", "matplotlib")
    }


def _compare_stages(
    main: pd.DataFrame,
    plan: StudyPlan,
    options: AnalysisOptions,
    measure: str,
    pairs: tuple[tuple[str, str], ...] = PAIRS,
) -> list[PairedComparison]:
    found = []
    for question in _questions(plan, measure, pairs):
        pair = [question.first, question.second]
        table = (
            main[main["data_set"] == question.data_set]
            .assign(value=floats(main[PURITY if measure == NO_EXCLUSIONS else measure]))
            .pivot(index="participant", columns="stage", values="value")
            .reindex(columns=pair)
        )
        first, second = (table[stage].to_numpy(dtype="float64") for stage in pair)
        found.append(compare_paired(first, second, options, question))
    return found


def _questions(
    plan: StudyPlan, measure: str, pairs: tuple[tuple[str, str], ...]
) -> Iterator[Question]:
    """Each pair of stages of the main arm on each data set, with its family of tests."""
    for pair, data in product(pairs, plan.data_sets):
        if set(pair) <= set(plan.main.all_stages):
            ranked = PRIMARY if pair == PRIMARY_PAIR else SECONDARY
            family = CONFIDENCE if measure == CONFIDENCE else ranked
            yield Question(measure, data.key, *pair, family)


def _ratings(people: pd.DataFrame, plan: StudyPlan, options: AnalysisOptions) -> Ratings:
    main = people[people["arm"] == plan.main.name]
    xnn, one = floats(main["rating_xnn"]), floats(main["rating_one_heatmap"])
    question = Question("rating", "", *PRIMARY_PAIR, family="")
    return Ratings(
        one_heatmap=summarise(one, options),
        xnn=summarise(xnn, options),
        one_heatmap_answers=count_answers(one),
        xnn_answers=count_answers(xnn),
        comparison=compare_paired(xnn.to_numpy(), one.to_numpy(), options, question),
        difficulty=summarise(people["difficulty"], options),
        comments=int(people["comments"].fillna("").str.strip().ne("").sum()),
    )


def _sensitivity(
    tables: Mapping[str, pd.DataFrame],
    main: pd.DataFrame,
    plan: StudyPlan,
    options: AnalysisOptions,
) -> tuple[PairedComparison, ...]:
    found: list[PairedComparison] = []
    above = main.assign(**{SENSITIVITY[2]: main[PURITY] - main["chance"]})
    for measure in SENSITIVITY:
        if above[measure].notna().any():
            found += holm(_compare_stages(above, plan, options, measure, (PRIMARY_PAIR,)))
    everyone = ExclusionRules(
        attention=False, minimum_seconds=0.0, unfinished=False, machine=MachineRules(signals=0)
    )
    scores = _main_scores(tables, plan, replace(options, exclusions=everyone))
    found += holm(_compare_stages(scores, plan, options, NO_EXCLUSIONS, (PRIMARY_PAIR,)))
    return tuple(found)


def _primary(
    tables: Mapping[str, pd.DataFrame], plan: StudyPlan, options: AnalysisOptions
) -> tuple[PairedComparison, ...]:
    """The primary comparisons of purity under some options."""
    scores = _main_scores(tables, plan, options)
    return tuple(holm(_compare_stages(scores, plan, options, PURITY, (PRIMARY_PAIR,))))


def _main_scores(
    tables: Mapping[str, pd.DataFrame], plan: StudyPlan, options: AnalysisOptions
) -> pd.DataFrame:
    """Scores in the main arm of those who are analysed under some options."""
    kept = select_participants(tables, options).kept
    scores = score_trials(tables["trials"], tables["placements"], kept)
    return scores[scores["arm"] == plan.main.name]


def _incomplete(scores: pd.DataFrame, plan: StudyPlan, selection: Selection) -> int:
    wanted = {arm.name: len(arm.all_stages) * len(plan.data_sets) for arm in plan.arms}
    people = scores.groupby("participant")["arm"].agg(["first", "size"])
    complete = people["size"] >= people["first"].map(wanted)
    return len(selection.kept) - int(complete.sum())
