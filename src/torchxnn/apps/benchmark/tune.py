"""Choose beta, eta and q on the training split alone, by a stated objective."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import torch

from torchxnn.apps.benchmark.class_by_class import (
    Measurement,
    Opened,
    Plan,
    measure_classes,
    open_benchmark,
)
from torchxnn.apps.benchmark.maps import MapFigures, layer_of
from torchxnn.apps.benchmark.measure import FIT_FIGURES, class_faithfulness
from torchxnn.apps.benchmark.methods import FitData, UnitsOfMany, fit_variant, nn_config
from torchxnn.apps.benchmark.summary import mean
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.data.positives import sample_classes
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import XNNError, XNNWarning
from torchxnn.storage.artifact import digest, plain
from torchxnn.training.config import TrainConfig

R2_LOSS = 0.03
"""Largest loss of validation R^2 against NN that a setting may have to be chosen for its maps."""

IMAGES_AT_ONCE = 8


@dataclass(frozen=True)
class TuneGrid:
    """Settings to try, and how.

    Attributes:
        betas: weights of the reconstruction.
        etas: weights of the pull-away term.
        qs: sparsity parameters.
        relevances: weights of the pull-away term on relevance.
        folds: random splits of the training images that the figures are means over.
    """

    betas: tuple[float, ...] = (0.1, 0.5, 1.0)
    etas: tuple[float, ...] = (0.1, 0.5)
    qs: tuple[float, ...] = (100.0,)
    relevances: tuple[float, ...] = (0.0,)
    folds: int = 1

    def __post_init__(self) -> None:
        if not (self.betas and self.etas and self.qs and self.relevances):
            raise XNNError("betas, etas, qs and relevances each need at least one value to try")
        for name, least in (("betas", 0.0), ("etas", 0.0), ("relevances", 0.0), ("qs", 1e-12)):
            if min(getattr(self, name)) < least:
                raise XNNError(f"{name} must not be negative, nor qs 0, got {getattr(self, name)}")
        if self.folds < 1:
            raise XNNError(f"folds must be at least 1, got {self.folds}")

    def settings(self, base: TrainConfig) -> dict[str, TrainConfig]:
        """The settings by name, NN first: it is the yardstick of faithfulness."""
        found = {"NN": nn_config(base)}
        for beta, eta, q, weight in product(self.betas, self.etas, self.qs, self.relevances):
            name = f"beta {beta:g}, eta {eta:g}, q {q:g}"
            if weight:
                name += f", relevance {weight:g}"
            found[name] = replace(base, beta=beta, eta=eta, q=q, relevance=weight)
        return found


def run_tuning(plan: Plan, grid: TuneGrid) -> dict[str, Any]:
    """Fit every setting to every class and measure it on held-out training images.

    Objective: of the settings whose mean validation R^2 is at most 0.03 below NN's, the one with
    the lowest mean squared correlation of maps; if there is none, the one with the highest R^2.
    The test images are not looked at. Resumable like `run_benchmark`.

    Returns:
        `settings` (means over classes and folds), `chosen`, and `front`: the names of the settings
        that no other one beats in both R^2 and the correlation of maps.
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
    """The objective on records of classes: setting -> figures."""
    names = list(next(iter(records.values()), {}))
    settings: dict[str, dict[str, Any]] = {
        name: {
            figure: mean([record[name].get(figure) for record in records.values()])
            for figure in FIT_FIGURES
        }
        for name in names
    }
    tried = {name: row for name, row in settings.items() if name != "NN" and row["r2"] is not None}
    if not tried:
        return {"settings": settings, "chosen": None, "front": [], "by": None}
    limit = (settings["NN"]["r2"] or -1.0) - R2_LOSS
    faithful = {
        name: row
        for name, row in tried.items()
        if row["r2"] >= limit and row["mean_squared_correlation"] is not None
    }
    if faithful:
        chosen = min(faithful, key=lambda name: faithful[name]["mean_squared_correlation"])
    else:
        chosen = max(tried, key=lambda name: tried[name]["r2"])
    return {
        "settings": settings,
        "chosen": chosen,
        "by": "correlation of maps" if faithful else "R^2",
        "front": pareto_front(tried, "mean_squared_correlation"),
    }


def pareto_front(rows: Mapping[str, Mapping[str, Any]], figure: str) -> list[str]:
    """Settings for which no other one has both a higher R^2 and a lower figure of maps."""
    known = {n: (row["r2"], -row[figure]) for n, row in rows.items() if row[figure] is not None}

    def beaten(own: tuple[float, float]) -> bool:
        return any(o != own and o[0] >= own[0] and o[1] >= own[1] for o in known.values())

    return [name for name, own in known.items() if not beaten(own)]


def _tune_class(grid: TuneGrid, opened: Opened, target: int) -> dict[str, Any]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for fold in range(grid.folds):
        base = replace(opened.config.train, seed=opened.config.train.seed + fold)
        data = opened.recorded.fit_data(base)
        for name, config in grid.settings(base).items():
            rows.setdefault(name, []).append(_measure(opened, data, target, name, config))
    return {
        name: {figure: mean([row[figure] for row in found]) for figure in FIT_FIGURES}
        for name, found in rows.items()
    }


def _measure(
    opened: Opened, data: FitData, target: int, name: str, config: TrainConfig
) -> dict[str, Any]:
    """Figures of one setting on the held-out part of the training images."""
    method = "NN" if name == "NN" else "SRAE"
    embedding, _ = fit_variant(method, data, (target,), opened.config.n_features, config)
    found = class_faithfulness(embedding, data.validation, target)
    held_out = opened.recorded.held_out(config)
    own = sample_classes(opened.recorded.train) == target
    images = (held_out & own).nonzero().flatten().tolist()
    return {
        "r2": found.r2,
        "f_reg": found.f_reg,
        "f_reg_positives": found.f_reg_positives,
        "f_cls_positives": found.f_cls_positives,
        "active": float(found.active),
        "dead": float(found.dead),
        **_measure_maps(opened, embedding, images),
    }


def _measure_maps(opened: Opened, embedding: Embedding, images: list[int]) -> dict[str, Any]:
    task, found = opened.task, MapFigures(embedding.n_features, opened.task.parts)
    units = ExcitationBackprop(UnitsOfMany(layer_of(task), [embedding]))
    located = task.located is task.test  # then training images have parts, too
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        for first in range(0, len(images), IMAGES_AT_ONCE):
            samples = [task.train[index] for index in images[first : first + IMAGES_AT_ONCE]]
            batch = torch.stack([sample.image for sample in samples])
            maps = units.attribute_many(batch, range(embedding.n_features))
            found.add(maps, [task.weigh(sample) for sample in samples] if located else None)
    with torch.no_grad():
        features = embedding.encode(opened.recorded.train.z[images])
    return {"locality": None} | found.figures(features, many=True)
