"""Which rule draws the maps of x-features best: judged by hiding squares of the image.

A map of an x-feature is to lie where that x-feature falls when the place is hidden, and not where
the others do. One pass of occlusion serves all x-features of a class. Where images are there again
without each part, a map is to lie on the parts that its own x-feature answers to, too.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from torchxnn.apps.benchmark.class_by_class import (
    Measurement,
    Opened,
    Plan,
    measure_classes,
    open_benchmark,
)
from torchxnn.apps.benchmark.funnybirds.causes import ask, find_removals
from torchxnn.apps.benchmark.funnybirds.maps import Answered, Seen, lie, see, truth_figures
from torchxnn.apps.benchmark.job_settings import RulesConfig
from torchxnn.apps.benchmark.maps import SQUARES, layer_of, occluded_activations
from torchxnn.apps.benchmark.methods import fit_variant
from torchxnn.apps.benchmark.over_classes import mean
from torchxnn.apps.benchmark.tasks import Task
from torchxnn.apps.gallery import evenly_spaced
from torchxnn.attribution.base import Attributor, contrast_mass
from torchxnn.attribution.effective_weights import EFFECTIVE
from torchxnn.attribution.methods import PAPER, attributor, check_method
from torchxnn.data.datasets.base import Sample
from torchxnn.data.datasets.funnybirds import PARTS
from torchxnn.embeddings.matching import feature_correlation
from torchxnn.errors import DataError, XNNWarning
from torchxnn.explanations.maps import Units
from torchxnn.metrics.ground_truth import moving
from torchxnn.metrics.orthogonality import MapCovariance
from torchxnn.metrics.pointing import pixels_inside, pointing_hits
from torchxnn.models.layers import run_above_layer
from torchxnn.xnn import XNN

ABSORBING = {f"{rule}:absorb": rule for rule in (PAPER, EFFECTIVE)}
"""The same rules where relevance ends at units that their biases decided."""

METHOD = "XNN"
"""What is fitted: by default what `xnn fit` does."""


def run_rules(plan: Plan, config: RulesConfig) -> dict[str, dict[str, Any]]:
    """Fit one XNN to every class and compare the maps of its x-features by every rule.

    Every class is one file in `rules/`; a run that was killed goes on with those that are missing.

    Returns:
        Records by class index in ascending order, see `_measure`.

    Raises:
        DataError: broken data, images without boxes, or the folder belongs to another run.
        XNNError: there is no such rule.
    """
    for rule in config.rules:
        check_method(ABSORBING.get(rule, rule))
    opened, wanted = open_benchmark(plan, _check_boxes)
    measurement = Measurement("rules", partial(_measure, config), settings={"rules": config})
    return measure_classes(plan, measurement, opened, wanted)


def _check_boxes(task: Task, wanted: list[int]) -> None:
    rows = [row for target in wanted for row in task.positives(target)[:1]]
    if not rows:
        raise DataError(f"{task.located.name} has no images of these classes")
    _box(task, task.located[rows[0]])


@dataclass(frozen=True, eq=False)
class _Judged:
    """The images of a class, and what every x-feature loses where a square is hidden.

    Attributes:
        images: preprocessed (M, C, H, W).
        boxes: of the objects (M, 4).
        features: E of the whole images (M, n).
        falls: E minus E without each square (M, squares, n).
        logit_falls: the same of the network's own logit (M, squares, 1).
        parts: where the parts are, and what the x-features lose without each; None where no such
            images are there.
    """

    images: Float[Tensor, "images channels height width"]
    boxes: Float[Tensor, "images 4"]
    features: Float[Tensor, "images features"]
    falls: Float[Tensor, "images squares features"]
    logit_falls: Float[Tensor, "images squares 1"]
    parts: tuple[Seen, Answered] | None


def _measure(config: RulesConfig, opened: Opened, target: int) -> dict[str, Any]:
    """What one class gives, in plain values.

    Returns:
        `r2` of the fit on test images, `rules`: figures and the rows of all maps by rule, `logit`:
        correlation of the logit's own map with its falls by rule.
    """
    xnn, r2 = _fit(opened, target)
    judged = _judge(opened, xnn, target, config.images)
    rules = {rule: _rule_figures(xnn, rule, judged) for rule in config.rules}
    logit = {}
    for rule in (each for each in config.rules if ABSORBING.get(each, each) in (PAPER, EFFECTIVE)):
        options = {"layer": xnn.layer} if ABSORBING.get(rule, rule) == EFFECTIVE else {}
        drawing = _drawing(rule, xnn.model, **options)
        with warnings.catch_warnings(action="ignore", category=XNNWarning):
            maps = [drawing.attribute_many(each, [target]) for each in judged.images.split(1)]
        logit[rule] = mean([row["own"] for row in _rows(torch.cat(maps), judged.logit_falls)])
    return {"name": xnn.class_name(target), "r2": r2, "rules": rules, "logit": logit}


def _fit(opened: Opened, target: int) -> tuple[XNN, float]:
    data = opened.recorded.fit_data(opened.config.train)
    n = opened.config.n_features
    embedding, report = fit_variant(METHOD, data, (target,), n, opened.config.train)
    xnn = opened.task.xnn(n)
    xnn.attach_embedding(embedding, (target,), opened.recorded.train.n_outputs, report)
    return xnn, report.validation.r2


def _drawing(rule: str, module: nn.Module, **options: Any) -> Attributor:
    """The attribution method of a rule of `METHODS` or `ABSORBING`."""
    if rule in ABSORBING:
        return attributor(ABSORBING[rule], module, undecided="absorb", **options)
    return attributor(rule, module, **options)


def _box(task: Task, sample: Sample) -> Float[Tensor, " 4"]:
    """The object's box (x, y, width, height); of rendered birds that of their parts and body."""
    if sample.box is not None:
        return sample.box
    if task.removals is None or sample.masks is None:
        raise DataError(f"{task.located.name} has no boxes of the objects; choose another data set")
    rows, columns = ((sample.masks > 0) & (sample.masks <= len(task.parts) + 1)).nonzero().T
    left, top = columns.min(), rows.min()
    return torch.stack([left, top, columns.max() + 1 - left, rows.max() + 1 - top]).float()


@torch.no_grad()
def _judge(opened: Opened, xnn: XNN, target: int, most: int) -> _Judged:
    task = opened.task
    positives = task.positives(target)
    chosen = evenly_spaced(range(len(positives)), most)
    samples = [task.located[positives[index]] for index in chosen]
    images = torch.stack([sample.image for sample in samples])
    boxes = torch.stack([_box(task, sample) for sample in samples])
    features, falls, logit_falls = [], [], []
    for image in images.split(1):
        z = occluded_activations(layer_of(task), image)[0]
        e = xnn.fitted().salience(xnn.fitted().encode(z))
        logits = run_above_layer(task.model, xnn.layer, image, z)[:, [target]]
        features.append(e[0])
        falls.append(e[:1] - e[1:])
        logit_falls.append(logits[:1] - logits[1:])
    return _Judged(
        images=images,
        boxes=boxes,
        features=torch.stack(features),
        falls=torch.stack(falls),
        logit_falls=torch.stack(logit_falls),
        parts=_without_parts(opened, xnn, target, chosen),
    )


def _without_parts(
    opened: Opened, xnn: XNN, target: int, chosen: list[int]
) -> tuple[Seen, Answered] | None:
    """Of these images of the class; which x-features move is said by all of its images."""
    task = opened.task
    if task.removals is None:
        return None
    positives = task.positives(target)
    removals = find_removals(opened.recorded, positives, target, len(PARTS))
    answers = ask(xnn.fitted(), removals)
    seen = see(task, [positives[index] for index in chosen])
    whole, changes = answers.whole.features[chosen], answers.feature_changes[chosen]
    return seen, Answered(whole, changes, moving(answers.changes))


def _rule_figures(xnn: XNN, rule: str, judged: _Judged) -> dict[str, Any]:
    start = time.perf_counter()
    drawing = _drawing(rule, Units(xnn.attached, xnn.fitted()))
    n = xnn.fitted().n_features
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        parts = [drawing.attribute_many(each, range(n)) for each in judged.images.split(1)]
    seconds, maps = (time.perf_counter() - start) / len(parts), torch.cat(parts)
    covariance = MapCovariance(n)
    covariance.update(maps)
    dead = tuple((judged.features == 0).all(0).nonzero().flatten().tolist())
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        overlap = covariance.result(dead).mean_squared_correlation
    rows = _rows(maps, judged.falls)
    for row in rows:
        one, box = maps[row["image"], [row["feature"]]], judged.boxes[row["image"]][None]
        positive, inside = one.clamp(min=0), pixels_inside(box, (one.shape[1], one.shape[2]))
        total = float(positive.sum())
        row["off"] = float(positive[~inside].sum()) / total if total > 0 else None
        row["pointing"] = float(pointing_hits(one, box)[0])
        row["mass"] = float(contrast_mass(one[None])[0, 0])
    names = ("own", "others", "told", "chance", "off", "pointing", "mass")
    figures = {name: mean([row[name] for row in rows]) for name in names}
    truth = None
    if judged.parts is not None:
        seen, answered = judged.parts
        truth = truth_figures(lie(maps, seen, len(PARTS)), answered)["map_truth"]
    return figures | {"truth": truth, "overlap": overlap, "seconds": seconds, "maps": rows}


def _rows(maps: Tensor, falls: Tensor) -> list[dict[str, Any]]:
    """Figures of every map (M, n, H, W) whose unit reacts to a square, against the falls.

    `own`: correlation over the squares of the map's positive relevance there with the fall of its
    own unit; `others`: mean of those with the other units, `told`: their difference; `chance`: with
    its own unit on the next image.
    """
    side = -(-max(maps.shape[2:]) // SQUARES)
    sums = functional.avg_pool2d(maps.clamp(min=0), side, ceil_mode=True, divisor_override=1)
    blocks = sums.flatten(2).transpose(1, 2)
    found = []
    for image, (mine, fall) in enumerate(zip(blocks, falls, strict=True)):
        reacts = (fall.amax(0) > fall.amin(0)).nonzero().flatten().tolist()
        agreement = feature_correlation(mine, fall)
        elsewhere = feature_correlation(mine, falls[(image + 1) % len(falls)])
        for unit in reacts:
            own = float(agreement[unit, unit])
            others = mean([float(agreement[unit, other]) for other in reacts if other != unit])
            found.append({
                "image": image, "feature": unit, "own": own, "others": others,
                "told": None if others is None else own - others,
                "chance": float(elsewhere[unit, unit]),
            })  # fmt: skip
    return found
