"""What was measured, before any test: means per cell, answers per scale, who took part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isnan

import numpy as np
import pandas as pd

from torchxnn.apps.study.analysis.options import AnalysisOptions, floats, stage_name
from torchxnn.apps.study.analysis.resampling import BootstrapInterval, participants_interval
from torchxnn.apps.study.settings import LIKERT

QUESTIONS = {
    "age": "Age",
    "gender": "Gender",
    "computer_science": "Courses in computer science",
    "ai_courses": "Courses in artificial intelligence",
}
NO_ANSWER = "no answer"


@dataclass(frozen=True)
class Summary:
    """Figures of one sample.

    Attributes:
        n: participants.
        mean: arithmetic.
        sd: sample standard deviation; None with one participant.
        median: middle.
        minimum: least.
        maximum: greatest.
        interval: of the mean.
    """

    n: int
    mean: float
    sd: float | None
    median: float
    minimum: float
    maximum: float
    interval: BootstrapInterval


@dataclass(frozen=True)
class Cell:
    """One stage of one arm on one data set.

    Attributes:
        arm: name.
        data_set: key.
        stage: "NoVis", "1-Heatmap" or "XNN".
        name: of the stage for people, with the attribution method.
        purity: with respect to the network's predictions, in shares.
        ari: adjusted Rand index, with respect to the predictions, too.
        chance: mean chance level of purity of these groupings.
        purity_labels: with respect to the labels; None without labels.
        confidence: 1 to 7; None if nobody answered.
        answers: how often each confidence from 1 to 7 was given.
        active_seconds: median of the seconds in which something happened; None if unknown.
        moves: median of the images moved; None if unknown.
        toggles: median of the heatmaps switched; None if unknown.
        zooms: median of the large views opened or closed; None if unknown.
    """

    arm: str
    data_set: str
    stage: str
    name: str
    purity: Summary
    ari: Summary
    chance: float
    purity_labels: Summary | None
    confidence: Summary | None
    answers: tuple[int, ...]
    active_seconds: float | None
    moves: float | None
    toggles: float | None
    zooms: float | None


@dataclass(frozen=True)
class Demographics:
    """Answers to one question.

    Attributes:
        question: for people.
        answers: (answer, participants), by the number in the answer, `NO_ANSWER` last.
    """

    question: str
    answers: tuple[tuple[str, int], ...]


def summarise(values: pd.Series, options: AnalysisOptions) -> Summary | None:
    """Figures of a sample, a value per participant; None if all are missing."""
    known = floats(values).dropna().to_numpy()
    if len(known) == 0:
        return None
    return Summary(
        n=len(known),
        mean=float(known.mean()),
        sd=float(known.std(ddof=1)) if len(known) > 1 else None,
        median=float(np.median(known)),
        minimum=float(known.min()),
        maximum=float(known.max()),
        interval=participants_interval([known], np.mean, options),
    )


def describe_cells(
    scores: pd.DataFrame,
    arms: Sequence[str],
    data_sets: Sequence[str],
    stages: Sequence[str],
    options: AnalysisOptions,
) -> tuple[Cell, ...]:
    """Figures of every cell of `score_trials` that has trials, in the orders of the lists."""
    parts = {tuple(key): part for key, part in scores.groupby(["arm", "data_set", "stage"])}
    cells = product(arms, data_sets, stages)
    return tuple(_cell(parts[cell], options) for cell in cells if cell in parts)


def demographics(people: pd.DataFrame) -> tuple[Demographics, ...]:
    """Answers to the questions about participants; questions that nobody answered are left out."""
    found = []
    for column, question in QUESTIONS.items():
        if people[column].notna().any():
            given = people[column].astype("object").where(people[column].notna(), NO_ANSWER)
            counts = given.astype(str).value_counts()
            pairs = sorted(((str(k), int(v)) for k, v in counts.items()), key=_answer_order)
            found.append(Demographics(question, tuple(pairs)))
    return tuple(found)


def count_answers(values: pd.Series) -> tuple[int, ...]:
    """How often each answer from 1 to `LIKERT` was given."""
    known = floats(values)
    return tuple(int((known == answer).sum()) for answer in range(1, LIKERT + 1))


def _cell(part: pd.DataFrame, options: AnalysisOptions) -> Cell:
    first = part.iloc[0]
    purity, ari = summarise(part["purity"], options), summarise(part["ari"], options)
    if purity is None or ari is None:
        raise ValueError("a scored trial has a purity")
    return Cell(
        arm=str(first["arm"]),
        data_set=str(first["data_set"]),
        stage=str(first["stage"]),
        name=stage_name(str(first["stage"]), str(first["method"])),
        purity=purity,
        ari=ari,
        chance=float(part["chance"].mean()),
        purity_labels=summarise(part["purity_labels"], options),
        confidence=summarise(part["confidence"], options),
        answers=count_answers(part["confidence"]),
        **_medians(part),
    )


def _medians(part: pd.DataFrame) -> Mapping[str, float | None]:
    columns = ("active_seconds", "moves", "toggles", "zooms")
    found = {column: float(floats(part[column]).median()) for column in columns}
    return {column: None if isnan(median) else median for column, median in found.items()}


def _answer_order(pair: tuple[str, int]) -> tuple[bool, int, str]:
    """Answers without a number ("No course") first, then by number, missing ones last."""
    number = re.search(r"\d+", pair[0])
    return pair[0] == NO_ANSWER, int(number.group()) if number else -1, pair[0]
