"""Tables of forward simulation and of the odd cue, with effects that are known."""

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from torchxnn.apps.study.columns import COLUMNS, TYPES
from torchxnn.apps.study.design import draw_trials
from torchxnn.apps.study.plan import StudyDataSet, StudyImage, StudyPlan
from torchxnn.apps.study.settings import Cue, StudySettings

CLASSES = ("c0", "c1")
CUE = Cue(right="a yellow dot", others=("the shape", "the ground"))


def make_answer_plan(task="forward_simulation", keys=("birds",), images=6, rounds=2):
    """The plan of a study whose network errs on every second picture."""
    settings = {"title": "What does it say?", "seed": 7, "task": task, "images_per_set": images}
    made = StudySettings(**settings, rounds=rounds)
    sets = tuple(
        StudyDataSet(
            key=key, name=key.capitalize(), classes=CLASSES, agreement=0.5, about={},
            images=tuple(
                StudyImage(id=f"{key}-{s}-{i}", file="", label=CLASSES[i // 2 % 2],
                           predicted=CLASSES[i % 2], set=s, picture="", heatmaps={}, overlays=(),
                           contributions=())
                for s in range(1, made.sets + 1) for i in range(images)
            ),
            cue=CUE if task == "odd_cue" else None,
        )
        for key in keys
    )  # fmt: skip
    return StudyPlan(version="test", settings=made, data_sets=sets, practice=())


def make_answer_tables(
    plan, right, participants, *, sd_people=0.4, sd_items=0.3, sd_suits=0.0, seed=0
):
    """Tables of simulated participants, who take the places of the design in order.

    Args:
        plan: see `make_answer_plan`.
        right: probability of a right answer by stage, of the median participant and picture.
        participants: number.
        sd_people: of participants, in log odds.
        sd_items: of pictures, in log odds.
        sd_suits: by how much pictures suit a stage by chance, in log odds.
        seed: of everything.
    """
    rng = np.random.default_rng(seed)
    hard = {image.id: rng.normal(0, sd_items) for image in plan.images}
    suits = {(i.id, stage): rng.normal(0, sd_suits) for i in plan.images for stage in right}
    rows = {"participants": [], "trials": [], "placements": []}
    keys = [data.key for data in plan.data_sets]
    for number in range(1, participants + 1):
        who = {"participant": number, "arm": "main", "kind": "synthetic"}
        rows["participants"].append(who | {"status": "finished", "attention_passed": True})
        own = rng.normal(0, sd_people)
        for trial in draw_trials(plan.settings, plan.main, keys, number - 1):
            where = who | vars(trial)
            images = plan.data_set(trial.data_set).images_of(trial.set)
            base = logit(right[trial.stage]) + own
            done = {"active_seconds": 60.0, "confidence": int(rng.integers(2, 7)),
                    "submitted_at": "2026-11-29T10:00:00Z"}  # fmt: skip
            if plan.settings.task == "odd_cue":
                found = rng.random() < expit(base + suits[images[0].id, trial.stage])
                done |= {"cue_right": bool(found), "seen": int(rng.integers(1, len(images) + 1))}
            rows["trials"].append(where | done)
            for image in images if plan.settings.task == "forward_simulation" else ():
                chance = expit(base + hard[image.id] + suits[image.id, trial.stage])
                said = CLASSES.index(image.predicted)
                group = said if rng.random() < chance else 1 - said
                shown = {"image": image.id, "predicted": image.predicted, "label": image.label}
                rows["placements"].append(where | shown | {"group": group + 1})
    return {name: _frame(name, found) for name, found in rows.items()}


def _frame(name, rows):
    frame = pd.DataFrame(rows, columns=list(COLUMNS[name]))
    return frame.astype({column: TYPES[kind] for column, (kind, _) in COLUMNS[name].items()})
