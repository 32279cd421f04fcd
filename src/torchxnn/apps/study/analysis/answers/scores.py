"""Which answers were right: a row per answer, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from torchxnn.apps.study.analysis.options import floats
from torchxnn.apps.study.plan import StudyPlan

COLUMNS = ("participant", "stage", "data_set", "position", "item", "right", "errs", "seen")
"""Columns of `score_answers`."""


def score_answers(
    tables: Mapping[str, pd.DataFrame], plan: StudyPlan, kept: Sequence[int]
) -> pd.DataFrame:
    """A row per answer of the participants `kept`, with `COLUMNS`.

    In forward simulation an answer is to a picture, which is the `item`, and right if the network
    says the same; `errs` tells whether the network was wrong there. With the odd cue an answer is
    to a batch, and `seen` is the number of pictures seen until the right one, or one more than
    there were if it was wrong; both are NaN in the other task.
    """
    make = _predictions if plan.settings.task == "forward_simulation" else _cues
    rows = make(tables, plan)
    rows = rows[rows["participant"].isin(list(kept))]
    return rows[list(COLUMNS)].reset_index(drop=True)


def _predictions(tables: Mapping[str, pd.DataFrame], plan: StudyPlan) -> pd.DataFrame:
    rows = tables["placements"].copy()
    answer = {
        (data.key, name): place
        for data in plan.data_sets
        for place, name in enumerate(data.classes, start=1)
    }
    said = [answer[pair] for pair in zip(rows["data_set"], rows["predicted"], strict=True)]
    rows["right"] = (floats(rows["group"]) == said).astype(float)
    rows["errs"] = (rows["predicted"] != rows["label"]).astype(float)
    rows["item"] = rows["image"]
    rows["seen"] = float("nan")
    return rows


def _cues(tables: Mapping[str, pd.DataFrame], plan: StudyPlan) -> pd.DataFrame:
    rows = tables["trials"]
    rows = rows[(rows["position"] > 0) & rows["cue_right"].notna()].copy()
    rows["right"] = rows["cue_right"].astype("boolean").astype(float)
    never = plan.settings.images_per_set + 1
    rows["seen"] = floats(rows["seen"]).where(rows["right"] == 1, float(never))
    rows["item"] = [f"{key}/{n}" for key, n in zip(rows["data_set"], rows["set"], strict=True)]
    rows["errs"] = float("nan")
    return rows


def by_person(rows: pd.DataFrame, measure: str, stage: str) -> pd.Series:
    """Mean of a measure of each participant of a stage, by number."""
    own = rows[(rows["stage"] == stage) & rows[measure].notna()]
    return own.groupby("participant")[measure].mean()
