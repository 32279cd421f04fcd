"""Tables of a study as they are exported, with simulated participants whose effects are known."""

from itertools import product

import numpy as np
import pandas as pd

from torchxnn.apps.study.plan import StudyDataSet, StudyImage, StudyPlan
from torchxnn.apps.study.settings import COMPLEMENTARY, Arm, StudySettings

CLASSES = ("c0", "c1", "c2", "c3")
METHODS = {"NoVis": "none", "XNN": "excitation_backprop"}
# chance that a picture is placed knowingly rather than at random, by data set and stage
SKILL = {
    "birds": {"NoVis": 0.2, "1-Heatmap": 0.45, "XNN": 0.75},
    "cells": {"NoVis": 0.6, "1-Heatmap": 0.5, "XNN": 0.75},
}
DTYPES = {
    "participant": "Int64", "position": "Int64", "set": "Int64", "slot": "Int64",
    "group": "Int64", "confidence": "Int64", "moves": "Int64", "toggles": "Int64",
    "zooms": "Int64", "difficulty": "Int64", "rating_one_heatmap": "Int64", "rating_xnn": "Int64",
    "screen_width": "Int64", "screen_height": "Int64", "seconds": "Float64",
    "active_seconds": "Float64", "attention_passed": "boolean",
}  # fmt: skip
COLUMNS = {
    "participants": [
        "participant",
        "arm",
        "kind",
        "slot",
        "status",
        "language",
        "consent_version",
        "consented_at",
        "finished_at",
        "expired_at",
        "seconds",
        "input",
        "inputs",
        "screen_width",
        "screen_height",
        "age",
        "gender",
        "computer_science",
        "ai_courses",
        "attention_passed",
        "difficulty",
        "rating_one_heatmap",
        "rating_xnn",
        "comments",
    ],
    "trials": [
        "participant",
        "arm",
        "kind",
        "position",
        "data_set",
        "stage",
        "method",
        "set",
        "started_at",
        "submitted_at",
        "seconds",
        "active_seconds",
        "confidence",
        "moves",
        "toggles",
        "zooms",
    ],
    "placements": [
        "participant",
        "arm",
        "kind",
        "position",
        "data_set",
        "stage",
        "set",
        "image",
        "group",
        "predicted",
        "label",
    ],
    "events": ["participant", "position", "at", "client_ms", "type", "image", "value"],
    "images": ["data_set", "image", "set", "predicted", "label", "file"],
}


def make_plan(data_sets=("birds", "cells"), complementary=True, **settings):
    """The plan of the study that `make_tables` simulates."""
    arms = [Arm(name="main", participants=30)]
    if complementary:
        arms.append(COMPLEMENTARY.model_copy(update={"participants": 14}))
    made = StudySettings(**{"title": "Which birds?", "seed": 7, "arms": tuple(arms)} | settings)
    sets = tuple(
        StudyDataSet(
            key=key, name=key.capitalize(), classes=CLASSES, agreement=0.9, about={},
            images=tuple(
                StudyImage(id=f"{key}-{s}-{i}", file="", label="c0", predicted="c0", set=s,
                           picture="", heatmaps={}, overlays=(), contributions=())
                for s in range(1, 6) for i in range(10)
            ),
        )
        for key in data_sets
    )  # fmt: skip
    return StudyPlan(version="test", settings=made, data_sets=sets, practice=())


def make_tables(
    participants=30,
    complementary=14,
    *,
    skill=SKILL,
    sets=5,
    images=10,
    participant_sd=0.08,
    kind="synthetic",
    seed=0,
):
    """Tables of simulated participants.

    Args:
        participants: in the main arm, numbered from 1.
        complementary: in the other arm, numbered after them.
        skill: chance that a picture is placed knowingly, by data set and stage.
        sets: batches per data set.
        images: pictures per batch; classes are spread evenly.
        participant_sd: of a participant's skill in all stages.
        kind: of all participants.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    pictures = [
        {"data_set": key, "image": f"{key}-{s}-{i}", "set": s, "predicted": CLASSES[(i + s) % 4],
         "label": CLASSES[(i + s + (i == 0)) % 4], "file": f"{key}/{s}/{i}.jpg"}
        for key in skill for s in range(1, sets + 1) for i in range(images)
    ]  # fmt: skip
    rows = {"participants": [], "trials": [], "placements": [], "events": [], "images": pictures}
    for number in range(1, participants + complementary + 1):
        arm = "main" if number <= participants else "complementary"
        _participant(rows, number, arm, kind, skill, sets, participant_sd, rng)
    return {name: _frame(name, found) for name, found in rows.items()}


def _participant(rows, number, arm, kind, skill, sets, participant_sd, rng):
    assisted = ["1-Heatmap", "XNN"] if arm == "main" else ["1-Heatmap"]
    stages = ["NoVis", *rng.permutation(assisted).tolist()]
    keys = rng.permutation(list(skill)).tolist()
    drawn = {key: rng.permutation(sets)[: len(stages)] + 1 for key in keys}
    who = {"participant": number, "arm": arm, "kind": kind}
    shift = rng.normal(0, participant_sd)
    for position, (stage, key) in enumerate(product(stages, keys), 1):
        knows = float(np.clip(skill[key][stage] + shift, 0, 1))
        where = who | {"position": position, "data_set": key, "stage": stage,
                       "set": int(drawn[key][stages.index(stage)])}  # fmt: skip
        heatmap = "deep_lift" if arm == "complementary" else "excitation_backprop"
        seconds = float(rng.uniform(40, 200))
        rows["trials"].append(
            where
            | {"method": METHODS.get(stage, heatmap), "started_at": "2026-11-24T10:00:00Z",
               "submitted_at": "2026-11-24T10:02:00Z", "seconds": seconds + 3,
               "active_seconds": seconds, "moves": int(rng.integers(10, 20)),
               "confidence": int(np.clip(np.round(7 * knows + rng.normal(0, 1)), 1, 7)),
               "toggles": 0 if stage == "NoVis" else int(rng.integers(1, 40)), "zooms": 1}
        )  # fmt: skip
        names = rng.permutation(4)  # a participant's numbers of groups mean nothing
        for picture in rows["images"]:
            if picture["data_set"] == key and picture["set"] == where["set"]:
                right = CLASSES.index(picture["predicted"])
                place = right if rng.random() < knows else int(rng.integers(4))
                kept = {name: picture[name] for name in ("image", "predicted", "label")}
                rows["placements"].append(where | kept | {"group": int(names[place]) + 1})
    rows["participants"].append(who | _person(number, arm, rng))


def _person(number, arm, rng):
    return {
        "slot": number - 1, "status": "finished", "language": "en", "consent_version": "1",
        "consented_at": "2026-11-24T10:00:00Z", "finished_at": "2026-11-24T10:30:00Z",
        "seconds": 1800.0, "input": str(rng.choice(["mouse", "touch"])),
        "screen_width": 1280, "screen_height": 800,
        "age": str(rng.choice(["18-30", "31-40", "41-50"], p=[0.7, 0.2, 0.1])),
        "gender": str(rng.choice(["Female", "Male"])),
        "computer_science": str(rng.choice(["No course", "1 course", "4 courses or more"])),
        "ai_courses": str(rng.choice(["No course", "2 courses"])),
        "attention_passed": True, "difficulty": int(rng.integers(2, 7)),
        "rating_one_heatmap": int(rng.integers(2, 6)),
        "rating_xnn": int(rng.integers(4, 8)) if arm == "main" else None,
        "comments": "Hard!" if number % 5 == 0 else None,
    }  # fmt: skip


def _frame(name, rows):
    frame = pd.DataFrame(rows, columns=COLUMNS[name])
    return frame.astype({column: DTYPES.get(column, "string") for column in frame.columns})
