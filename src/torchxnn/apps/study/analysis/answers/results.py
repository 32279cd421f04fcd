"""All statistics of a study of answers in one frozen record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from torchxnn.apps.study.analysis.answers.compare import (
    Contrast,
    OddsModel,
    compare_people,
    compare_stages,
    fit_odds_model,
    utility,
)
from torchxnn.apps.study.analysis.answers.scores import by_person, score_answers
from torchxnn.apps.study.analysis.descriptives import Demographics, Summary, demographics, summarise
from torchxnn.apps.study.analysis.evidence import Evidence
from torchxnn.apps.study.analysis.exclusions import (
    Selection,
    by_rule,
    evidence_of,
    select_participants,
)
from torchxnn.apps.study.analysis.models import Unavailable
from torchxnn.apps.study.analysis.options import (
    NO_VISUALISATION,
    PAIRS,
    PRIMARY_PAIR,
    STAGES,
    AnalysisOptions,
    floats,
    stage_name,
)
from torchxnn.apps.study.analysis.paired import Question, UnpairedComparison, compare_unpaired, holm
from torchxnn.apps.study.analysis.resampling import BootstrapInterval
from torchxnn.apps.study.analysis.results import PRIMARY, SECONDARY, software
from torchxnn.apps.study.plan import StudyPlan

CONFIDENCE = "confidence"


@dataclass(frozen=True)
class StageAnswers:
    """The answers of one stage.

    Attributes:
        stage: see `Stage`.
        name: for people, with the attribution method.
        data_set: key; empty for all together.
        right: shares of right answers of participants.
        errs: the same of pictures where the network errs; None if they are not told apart.
        seen: pictures seen until the right answer; None in forward simulation.
        utility: mean share divided by that of NoVis; None for NoVis, and where it does not exist.
        utility_interval: of it.
        confidence: from 1 to 7; None if nobody answered.
        rounds: mean share of right answers by round, in order.
    """

    stage: str
    name: str
    data_set: str
    right: Summary
    errs: Summary | None
    seen: Summary | None
    utility: float | None
    utility_interval: BootstrapInterval | None
    confidence: Summary | None
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class AnswerResults:
    """Everything that a report of a study of answers says, in shares (0 to 1).

    Attributes:
        title: of the study.
        banner: what every page must say of the data; may be empty.
        task: see `Task`.
        selection: who is analysed.
        stages: all data sets together, then each alone if there are several.
        contrasts: shares of right answers, with the families primary and secondary.
        sooner: pictures seen until the right answer, the same pairs; none in forward simulation.
        errs: shares of right answers where the network errs, the same pairs, not corrected.
        model: odds of a right answer.
        confidence: the same pairs, a family of their own.
        label_follower: share of the pictures where the label is what the network says: how often
            somebody is right who answers the truth.
        chance: share of right answers of somebody who guesses.
        evidence: how everybody of the analysed kinds acted, the excluded too.
        by_rule: XNN against 1-Heatmap with and without the rule on acting like a program: right
            answers and, with the odd cue, pictures seen.
        people: demographics of the analysed.
        incomplete: analysed participants who lack a batch.
        options: of the analysis.
        study_hash: SHA-256 of the study file.
        versions: of the software.
        created: ISO 8601, UTC.
    """

    title: str
    banner: str
    task: str
    selection: Selection
    stages: tuple[StageAnswers, ...]
    contrasts: tuple[Contrast, ...]
    sooner: tuple[Contrast, ...]
    errs: tuple[Contrast, ...]
    model: OddsModel | Unavailable
    confidence: tuple[UnpairedComparison, ...]
    label_follower: float | None
    chance: float
    evidence: tuple[Evidence, ...]
    by_rule: dict[str, tuple[UnpairedComparison, ...]]
    people: tuple[Demographics, ...]
    incomplete: int
    options: AnalysisOptions
    study_hash: str
    versions: dict[str, str]
    created: str


def compute_answers(
    tables: Mapping[str, pd.DataFrame], plan: StudyPlan, options: AnalysisOptions
) -> tuple[AnswerResults, pd.DataFrame]:
    """All statistics of an export, and the scored answers that they are made of.

    Raises:
        DataError: tables that are not an export.
    """
    selection = select_participants(tables, options)
    rows = score_answers(tables, plan, selection.kept)
    trials = tables["trials"]
    trials = trials[trials["participant"].isin(list(selection.kept)) & (trials["position"] > 0)]
    trials = trials.assign(confidence=floats(trials["confidence"]))
    people = tables["participants"]
    pairs = [pair for pair in PAIRS if set(pair) <= set(plan.main.all_stages)]
    planned = plan.settings.repeats * len(plan.data_sets)
    complete = int((trials.groupby("participant").size() >= planned).sum())
    forward = plan.settings.task == "forward_simulation"
    results = AnswerResults(
        title=plan.settings.title,
        banner=selection.banner,
        task=plan.settings.task,
        selection=selection,
        stages=_describe(rows, trials, plan, options),
        contrasts=_corrected(rows, "right", pairs, options),
        sooner=() if forward else _corrected(rows, "seen", pairs, options),
        errs=_of_errors(rows, pairs, options) if forward else (),
        model=fit_odds_model(rows, STAGES, pairs, options),
        confidence=_confidence(trials, pairs, options),
        label_follower=_label_follower(plan) if forward else None,
        chance=_chance(plan),
        evidence=evidence_of(tables, selection, options),
        by_rule=by_rule(options, lambda changed: _primary(tables, plan, changed)),
        people=demographics(people[people["participant"].isin(list(selection.kept))]),
        incomplete=len(selection.kept) - complete,
        options=options,
        study_hash=plan.fingerprint(),
        versions=software(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return results, rows


def _primary(
    tables: Mapping[str, pd.DataFrame], plan: StudyPlan, options: AnalysisOptions
) -> tuple[UnpairedComparison, ...]:
    """The primary comparisons over participants under some options."""
    if not set(PRIMARY_PAIR) <= set(plan.main.all_stages):
        return ()
    rows = score_answers(tables, plan, select_participants(tables, options).kept)
    measures = ("right",) if plan.settings.task == "forward_simulation" else ("right", "seen")
    return tuple(
        holm([compare_people(rows, measure, PRIMARY_PAIR, measure, options)])[0]
        for measure in measures
    )


def _describe(
    rows: pd.DataFrame, trials: pd.DataFrame, plan: StudyPlan, options: AnalysisOptions
) -> tuple[StageAnswers, ...]:
    keys = [data.key for data in plan.data_sets]
    found = []
    for key in ("", *(keys if len(keys) > 1 else ())):
        own = rows if not key else rows[rows["data_set"] == key]
        tried = trials if not key else trials[trials["data_set"] == key]
        for stage in STAGES:
            right = summarise(by_person(own, "right", stage), options)
            if right is not None:
                found.append(_stage(own, tried, stage, key, right, plan, options))
    return tuple(found)


def _stage(
    rows: pd.DataFrame,
    trials: pd.DataFrame,
    stage: str,
    key: str,
    right: Summary,
    plan: StudyPlan,
    options: AnalysisOptions,
) -> StageAnswers:
    helped = None if stage == NO_VISUALISATION else utility(rows, stage, options)
    rounds = (rows["position"] - 1) // len(plan.data_sets)
    by_round = rows[rows["stage"] == stage].groupby(rounds)["right"].mean()
    return StageAnswers(
        stage=stage,
        name=stage_name(stage, plan.main.method),
        data_set=key,
        right=right,
        errs=summarise(by_person(rows[rows["errs"] == 1], "right", stage), options),
        seen=summarise(by_person(rows, "seen", stage), options),
        utility=helped and helped[0],
        utility_interval=helped and helped[1],
        confidence=summarise(by_person(trials, CONFIDENCE, stage), options),
        rounds=tuple(float(value) for value in by_round),
    )


def _families(pair: tuple[str, str]) -> str:
    return PRIMARY if pair == PRIMARY_PAIR else SECONDARY


def _corrected(
    rows: pd.DataFrame, measure: str, pairs: list[tuple[str, str]], options: AnalysisOptions
) -> tuple[Contrast, ...]:
    found = [compare_stages(rows, measure, pair, _families(pair), options) for pair in pairs]
    corrected = holm([each.people for each in found])
    return tuple(replace(c, people=p) for c, p in zip(found, corrected, strict=True))


def _of_errors(
    rows: pd.DataFrame, pairs: list[tuple[str, str]], options: AnalysisOptions
) -> tuple[Contrast, ...]:
    errs = rows[rows["errs"] == 1]
    return tuple(compare_stages(errs, "right", pair, "", options) for pair in pairs)


def _confidence(
    trials: pd.DataFrame, pairs: list[tuple[str, str]], options: AnalysisOptions
) -> tuple[UnpairedComparison, ...]:
    found = []
    for pair in pairs:
        first, second = (by_person(trials, CONFIDENCE, stage).to_numpy() for stage in pair)
        question = Question(CONFIDENCE, "", *pair, CONFIDENCE)
        found.append(compare_unpaired(first, second, options, question))
    return tuple(holm(found))


def _label_follower(plan: StudyPlan) -> float:
    return float(np.mean([data.agreement for data in plan.data_sets]))


def _chance(plan: StudyPlan) -> float:
    """One in as many answers as there are; with the odd cue "I cannot tell" is none of them."""
    if plan.settings.task == "forward_simulation":
        return float(np.mean([1 / len(data.classes) for data in plan.data_sets]))
    return float(np.mean([1 / len(data.cue.options) for data in plan.data_sets if data.cue]))
