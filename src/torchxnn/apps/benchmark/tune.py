"""Choose beta, eta and q of every method on the training split alone, by a stated objective.

Every method is tried with the same values; which of them are settings of their own depends on what
it uses of them, and the numbers stand in the table.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.apps.benchmark.class_by_class import (
    Measurement,
    Opened,
    Plan,
    measure_classes,
    open_benchmark,
)
from torchxnn.apps.benchmark.job_settings import NN, TuneGrid
from torchxnn.apps.benchmark.maps import (
    OCCLUSION,
    MapFigures,
    OtherMaps,
    layer_of,
    occluded_activations,
)
from torchxnn.apps.benchmark.measure import FIT_FIGURES, class_faithfulness
from torchxnn.apps.benchmark.methods import FitData, UnitsOfMany, fit_to
from torchxnn.apps.benchmark.over_classes import mean
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.data.positives import sample_classes
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import XNNWarning
from torchxnn.storage.artifact import digest, plain
from torchxnn.training.config import TrainConfig

JUDGED = OCCLUSION
"""What is minimised: overlap of maps by a method that no fit was trained on (SRAE-R sees relevance
that is much like excitation backprop's)."""

R2_LOSS = 0.03
"""Largest loss of validation R^2 against NN that a setting may have to be chosen for its maps."""

IMAGES_AT_ONCE = 8

SETTING = ("method", "beta", "eta", "q")
"""What says which setting a record is of, beside its figures."""


def run_tuning(plan: Plan, grid: TuneGrid) -> dict[str, Any]:
    """Fit every setting to every class and measure it on held-out training images.

    Objective, for every method: of its settings whose mean validation R^2 is at most 0.03 below
    NN's, the one with the lowest mean squared correlation of occlusion maps; if there is none, the
    one with the highest R^2. The test images are not looked at. Resumable like `run_benchmark`.

    Returns:
        `settings` (means over classes and folds, with their `method`); `chosen` and `by`, what and
        why, for every method; `edges`: for every method the values of the chosen setting that lie
        at the edge of its grid; `front`: the names of the settings that no other one beats in both
        R^2 and that correlation.
    """
    opened, chosen = open_benchmark(plan)
    labels = set(opened.task.train.labels or ())
    settings = plain(grid)
    tuning = Measurement(
        "tuning", partial(_tune_class, grid), settings=settings, key=digest(settings)
    )
    wanted = [target for target in chosen if target in labels]
    return choose(measure_classes(plan, tuning, opened, wanted))


def choose(records: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """The objective on records of classes: setting -> figures, its method, beta, eta and q."""
    first = next(iter(records.values()), {})
    settings: dict[str, dict[str, Any]] = {
        name: {key: about[key] for key in SETTING}
        | {
            figure: mean([record[name].get(figure) for record in records.values()])
            for figure in FIT_FIGURES
        }
        for name, about in first.items()
    }
    tried = {
        name: row for name, row in settings.items() if row["method"] != NN and row["r2"] is not None
    }
    limit = (settings.get(NN, {}).get("r2") or -1.0) - R2_LOSS
    found: dict[str, Any] = {"settings": settings, "chosen": {}, "by": {}, "edges": {}}
    for method in dict.fromkeys(row["method"] for row in tried.values()):
        own = {name: row for name, row in tried.items() if row["method"] == method}
        name, found["by"][method] = _best(own, limit)
        found["chosen"][method] = name
        found["edges"][method] = _edges(own, own[name])
    return found | {"front": pareto_front(tried, JUDGED)}


def _best(rows: Mapping[str, Mapping[str, Any]], limit: float) -> tuple[str, str]:
    """The setting of one method that is chosen, and by what."""
    faithful = {
        name: row for name, row in rows.items() if row["r2"] >= limit and row[JUDGED] is not None
    }
    if faithful:
        return min(faithful, key=lambda name: faithful[name][JUDGED]), "overlap of occlusion maps"
    return max(rows, key=lambda name: rows[name]["r2"]), "R^2"


def _edges(rows: Mapping[str, Mapping[str, Any]], chosen: Mapping[str, Any]) -> list[str]:
    """The values of a chosen setting beyond which nothing was tried, of those that were varied."""
    tried = {key: {row[key] for row in rows.values()} for key in ("beta", "eta", "q")}
    return [
        key
        for key, values in tried.items()
        if len(values) > 1 and chosen[key] in (min(values), max(values))
    ]


def pareto_front(rows: Mapping[str, Mapping[str, Any]], figure: str) -> list[str]:
    """Settings for which no other one has both a higher R^2 and a lower figure of maps."""
    known = {n: (row["r2"], -row[figure]) for n, row in rows.items() if row[figure] is not None}

    def beaten(own: tuple[float, float]) -> bool:
        return any(o != own and o[0] >= own[0] and o[1] >= own[1] for o in known.values())

    return [name for name, own in known.items() if not beaten(own)]


@dataclass(frozen=True, eq=False)
class _HeldOut:
    """The held-out training images of a class and, once for all settings, what occlusion makes."""

    rows: list[int]
    occluded: Float[Tensor, "images looks dims"] | None

    @classmethod
    def of(cls, opened: Opened, config: TrainConfig, target: int) -> _HeldOut:
        """Those of one split."""
        own = sample_classes(opened.recorded.train) == target
        rows = (opened.recorded.held_out(config) & own).nonzero().flatten().tolist()
        if not rows:
            return cls(rows, None)
        images = torch.stack([opened.task.train[row].image for row in rows])
        return cls(rows, occluded_activations(layer_of(opened.task), images))


def _tune_class(grid: TuneGrid, opened: Opened, target: int) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for fold in range(grid.folds):
        base = replace(opened.config.train, seed=opened.config.train.seed + fold)
        data, held_out = opened.recorded.fit_data(base), _HeldOut.of(opened, base, target)
        for name, setting in grid.settings(base).items():
            rows.setdefault(name, []).append(
                _measure(opened, data, held_out, target, setting.config)
            )
    about = grid.settings(opened.config.train)
    return {
        name: {figure: mean([row[figure] for row in found]) for figure in FIT_FIGURES}
        | {"method": about[name].method}
        | {key: getattr(about[name].config, key) for key in SETTING[1:]}
        for name, found in rows.items()
    }


def _measure(
    opened: Opened, data: FitData, held_out: _HeldOut, target: int, config: TrainConfig
) -> dict[str, Any]:
    """Figures of one setting on the held-out part of the training images."""
    embedding = fit_to(data, (target,), opened.config.n_features, config)[0]
    found = class_faithfulness(embedding, data.validation, target)
    return {
        "r2": found.r2,
        "f_reg": found.f_reg,
        "f_reg_positives": found.f_reg_positives,
        "f_cls_positives": found.f_cls_positives,
        "active": float(found.active),
        "dead": float(found.dead),
        **_measure_maps(opened, embedding, held_out),
    }


def _measure_maps(opened: Opened, embedding: Embedding, held_out: _HeldOut) -> dict[str, Any]:
    task, found = opened.task, MapFigures(embedding.n_features, opened.task.parts)
    drawn = ExcitationBackprop(UnitsOfMany(layer_of(task), [embedding]))
    judged, images = OtherMaps(layer_of(task), [embedding]), held_out.rows
    if held_out.occluded is not None:
        judged.occlude(held_out.occluded)
    located = task.located is task.test  # then training images have parts, too
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        for first in range(0, len(images), IMAGES_AT_ONCE):
            samples = [task.train[index] for index in images[first : first + IMAGES_AT_ONCE]]
            batch = torch.stack([sample.image for sample in samples])
            maps = drawn.attribute_many(batch, range(embedding.n_features))
            found.add(maps, [task.weigh(sample) for sample in samples] if located else None)
    with torch.no_grad():
        features = embedding.encode(opened.recorded.train.z[images])
    return {"locality": None} | found.figures(features, many=True) | judged.figures(features)
