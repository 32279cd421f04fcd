"""Fit every method to one class and ask whether what it says is true."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from torchxnn.apps.benchmark.blind import Blind
from torchxnn.apps.benchmark.bounds import BOUNDS
from torchxnn.apps.benchmark.class_by_class import Opened
from torchxnn.apps.benchmark.contenders import Case, Contender, Found, order_agreement
from torchxnn.apps.benchmark.funnybirds.causes import (
    Answers,
    Removals,
    ask,
    cause_figures,
    class_mean_figures,
    find_removals,
)
from torchxnn.apps.benchmark.funnybirds.maps import (
    Answered,
    Seen,
    by_rules,
    each_feature,
    feature_maps,
    lie,
    logit_maps,
    see,
    truth_figures,
)
from torchxnn.apps.benchmark.funnybirds.settings import TruthConfig
from torchxnn.apps.benchmark.measure import class_faithfulness
from torchxnn.apps.benchmark.methods import FitData, fit_lasso_sizes, fit_variant, read_class
from torchxnn.apps.benchmark.peers import PEERS
from torchxnn.apps.benchmark.run import saved_xnn
from torchxnn.apps.benchmark.variants import SEEN, XNN
from torchxnn.apps.gallery import evenly_spaced
from torchxnn.attribution.methods import PAPER
from torchxnn.data.datasets.funnybirds import PARTS, FunnyBirds
from torchxnn.data.positives import resample
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError
from torchxnn.metrics import ground_truth as truth
from torchxnn.models.layers import run_above_layer

CLASS_MEAN = "class mean of the removals"
"""The floor of what is told of parts: what other images of the class lose, for every image."""


@dataclass(frozen=True, eq=False)
class Ready:
    """What a worker needs for every class.

    Attributes:
        opened: network, images and settings.
        data: what is fitted.
        kept: which training images, and then which of their copies, `data.train` holds.
        blind: embeddings that do not see the target.
        config: what is measured.
    """

    opened: Opened
    data: FitData
    kept: Bool[Tensor, " images"]
    blind: Blind
    config: TruthConfig

    def case(self, target: int) -> Case:
        """What methods of others, ceilings and floors are given of a class."""
        task, birds = self.opened.task, self.opened.task.train
        if not isinstance(birds, FunnyBirds):
            raise DataError(f"nobody knows which parts {birds.name} shows")
        one = task.located[0].image.unsqueeze(0)
        return Case(
            data=self.data,
            target=target,
            n_features=self.opened.config.n_features,
            config=self.opened.config.train,
            visible=birds.shows(target).repeat(1 + self.opened.config.copies, 1)[self.kept],
            head=partial(run_above_layer, task.model, task.source.layer, one),
        )


def contenders(config: TruthConfig, maps: bool) -> dict[str, Contender]:
    """Methods of others, ceilings and floors that can be fitted here, by name."""
    found = (BOUNDS if config.bounds else {}) | (PEERS if config.peers else {})
    return {
        name: each
        for name, each in found.items()
        if each.maps == maps and wanted(config, name) and each.unavailable() is None
    }


def wanted(config: TruthConfig, name: str) -> bool:
    """Whether a row is to be measured."""
    return not config.methods or name in config.methods


def measure_class(ready: Ready, target: int) -> dict[str, Any]:
    """Fit and measure one class, and keep the XNN of today's default.

    Returns:
        Its record in plain values.
    """
    start = time.perf_counter()
    task, recorded = ready.opened.task, ready.opened.recorded
    rows = task.positives(target)
    removals = find_removals(recorded, rows, target, len(PARTS))
    fitted, not_fitted = fit_methods(ready, target)
    answers = {name: ask(found.embedding, removals) for name, found in fitted.items()}
    methods: dict[str, dict[str, Any]] = {}
    for name, found in fitted.items():
        faithful = class_faithfulness(found.embedding, recorded.test, target)
        methods[name] = {
            "r2": faithful.r2,
            "active": faithful.active,
            "degenerate_classes": int(bool(faithful.degenerate)),
            **cause_figures(answers[name], removals),
        }
        if found.importance is not None:
            moved = answers[name].changes.abs().mean((0, 1))
            methods[name]["importance_order"] = order_agreement(found.importance, moved)
    chosen, rules, features = list[int](), dict[str, Any](), list[dict[str, Any]]()
    if ready.config.maps:
        chosen = evenly_spaced(range(len(rows)), ready.opened.config.map_images)
        seen = see(task, [rows[index] for index in chosen])
        rules, features = _measure_maps(ready, target, fitted, answers, removals, chosen, seen)
    for name, of_method in rules.items():
        methods.setdefault(name, {}).update(of_method.get(PAPER, {}))
    methods[CLASS_MEAN] = class_mean_figures(removals.causes)
    save_default(ready, target, fitted["XNN"].embedding)
    return {
        "name": task.classes[target],
        "images": len(rows),
        "map_images": len(chosen),
        "methods": methods,
        "concepts": {name: found.embedding.n_features for name, found in fitted.items()},
        "not_fitted": not_fitted,
        "rules": {name: rules[name] for name in ("XNN", "1-heatmap") if name in rules},
        "profiles": {name: each.profiles.tolist() for name, each in answers.items()},
        "features": features,
        "causes": removals.causes.mean(0).tolist(),
        "refits": _refit(ready, target, removals),
        "seconds": time.perf_counter() - start,
    }


def save_default(ready: Ready, target: int, embedding: Embedding) -> None:
    """Keep today's default of a class as an XNN, for figures and for the authors' protocol."""
    xnn = ready.opened.task.xnn(embedding.n_features)
    xnn.attach_embedding(embedding, (target,), ready.opened.recorded.train.n_outputs)
    xnn.save_pretrained(saved_xnn(ready.opened.folder, target, "XNN"))


def fit_methods(ready: Ready, target: int) -> tuple[dict[str, Found], dict[str, str]]:
    """Every method that gives x-features of one class, by name.

    At a layer with positions these are today's default, ceilings and floors. What a method of the
    paper selects or finds without the class is read by the same least squares as all others.

    Returns:
        What was fitted, and why the others could not be.
    """
    data, config = ready.data, ready.opened.config
    fitted, refused = {"XNN": Found(fit_default(ready, target))}, dict[str, str]()
    if not data.train.are_maps:
        for name in (name for name in SEEN if name != XNN and wanted(ready.config, name)):
            found = fit_variant(name, data, (target,), config.n_features, config.of(name))[0]
            fitted[name] = Found(found)
        for name, embedding in ready.blind.usual.items():
            if wanted(ready.config, name):
                fitted[name] = Found(read_class(embedding, data, target, config.train))
        if wanted(ready.config, "Lasso"):
            sizes = (config.n_features,)
            (lasso,) = fit_lasso_sizes(data, target, config.train, sizes).values()
            fitted["Lasso"] = Found(read_class(lasso, data, target, config.train))
    case = ready.case(target)
    for name, contender in contenders(ready.config, data.train.are_maps).items():
        try:
            fitted[name] = contender.fit(case)
        except DataError as error:
            refused[name] = str(error)
    return fitted, refused


def fit_default(ready: Ready, target: int, data: FitData | None = None, seed: int = 0) -> Embedding:
    """Fit today's default to a class.

    Args:
        ready: settings, and the data if no others are given.
        target: class index.
        data: another sample.
        seed: added to that of the settings.
    """
    config = ready.opened.config
    train = replace(config.train, seed=config.train.seed + seed)
    return fit_variant(XNN, data or ready.data, (target,), config.n_features, train)[0]


def _refit(ready: Ready, target: int, removals: Removals) -> dict[str, Any]:
    """Recovery and specificity of today's default on bootstrap samples, with other seeds."""
    found: dict[str, list[float | None]] = {"recovery": [], "specificity": []}
    for seed in range(1, ready.config.refits + 1):
        drawn = resample(ready.data.train, seed, ready.opened.config.copies)
        data = FitData(drawn, ready.data.validation)
        profiles = ask(fit_default(ready, target, data, seed), removals).profiles
        recovered = truth.recovery(profiles, removals.causes.mean(0))
        found["recovery"].append(None if recovered is None else recovered.value)
        found["specificity"].append(truth.specificity(profiles))
    return found


def _measure_maps(
    ready: Ready,
    target: int,
    fitted: Mapping[str, Found],
    answers: Mapping[str, Answers],
    removals: Removals,
    chosen: list[int],
    seen: Seen,
) -> tuple[dict[str, dict[str, dict[str, Any]]], list[dict[str, Any]]]:
    """Figures of maps by method and rule; all rules for today's default and for the logit.

    Returns:
        The figures, and those of each x-feature of today's default by the paper's rule; none of
        these if it is not among the rules.
    """
    task, config = ready.opened.task, ready.config
    parts = len(PARTS)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    features: list[dict[str, Any]] = []
    for name, method in fitted.items():
        drawn = (
            by_rules(task, method.embedding, seen, config)
            if name == "XNN"
            else [(PAPER, feature_maps(task, method.embedding, seen, PAPER, config))]
        )
        answer = answers[name]
        answered = Answered(
            answer.whole.features[chosen],
            answer.feature_changes[chosen],
            truth.moving(answer.changes),
        )
        by_rule = {rule: lie(maps, seen, parts) for rule, maps in drawn}
        found[name] = {rule: truth_figures(each, answered) for rule, each in by_rule.items()}
        if name == "XNN" and PAPER in by_rule:
            features = each_feature(by_rule[PAPER], answered)
    causes = removals.causes[chosen]
    logit = Answered(torch.ones(len(chosen), 1), causes.unsqueeze(2), (0,))
    found["1-heatmap"] = {}
    for rule in config.rules:
        if rule != "effective_weights":
            lying = lie(logit_maps(task, target, seen, rule, config), seen, parts)
            shares = lying.parts[:, 0]
            found["1-heatmap"][rule] = truth_figures(lying, logit) | {
                "told": truth.correlate(truth.causal_shares(shares), truth.causal_shares(causes))
            }
    return found, features
