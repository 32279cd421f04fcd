"""Fit every method to one class and ask whether what it says is true."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from torchxnn.apps.benchmark.blind import Blind
from torchxnn.apps.benchmark.class_by_class import Opened
from torchxnn.apps.benchmark.funnybirds.causes import (
    Answers,
    Removals,
    ask,
    cause_figures,
    find_removals,
)
from torchxnn.apps.benchmark.funnybirds.maps import (
    Seen,
    by_rules,
    feature_maps,
    lie,
    logit_maps,
    see,
    truth_figures,
)
from torchxnn.apps.benchmark.funnybirds.settings import TruthConfig
from torchxnn.apps.benchmark.measure import class_faithfulness
from torchxnn.apps.benchmark.methods import SEEN, FitData, fit_lasso_sizes, fit_variant, read_class
from torchxnn.apps.gallery import evenly_spaced
from torchxnn.data.activations import Activations
from torchxnn.data.datasets.funnybirds import PARTS
from torchxnn.embeddings.base import Embedding
from torchxnn.metrics import ground_truth as truth

PAPER_RULE = "excitation_backprop"


@dataclass(frozen=True, eq=False)
class Ready:
    """What a worker needs for every class.

    Attributes:
        opened: network, images and settings.
        data: what is fitted.
        blind: embeddings that do not see the target.
        config: what is measured.
    """

    opened: Opened
    data: FitData
    blind: Blind
    config: TruthConfig


def measure_class(ready: Ready, target: int) -> tuple[dict[str, Any], Embedding]:
    """Fit and measure one class.

    Returns:
        Its record in plain values, and the embedding of today's default.
    """
    start = time.perf_counter()
    task, recorded = ready.opened.task, ready.opened.recorded
    rows = task.positives(target)
    removals = find_removals(recorded, rows, target, len(PARTS))
    fitted = fit_methods(ready, target)
    answers = {name: ask(embedding, removals) for name, embedding in fitted.items()}
    methods: dict[str, dict[str, Any]] = {}
    for name, embedding in fitted.items():
        faithful = class_faithfulness(embedding, recorded.test, target)
        methods[name] = {
            "r2": faithful.r2,
            "active": faithful.active,
            "degenerate_classes": int(bool(faithful.degenerate)),
            **cause_figures(answers[name], removals),
        }
    chosen = evenly_spaced(range(len(rows)), ready.opened.config.map_images)
    seen = see(task, [rows[index] for index in chosen])
    rules = _measure_maps(ready, target, fitted, _at(answers, chosen), removals, chosen, seen)
    for name, of_method in rules.items():
        methods.setdefault(name, {}).update(of_method[PAPER_RULE])
    record = {
        "name": task.classes[target],
        "images": len(rows),
        "map_images": len(chosen),
        "methods": methods,
        "rules": {name: rules[name] for name in ("XNN", "1-heatmap")},
        "profiles": {name: each.profiles.tolist() for name, each in answers.items()},
        "causes": removals.causes.mean(0).tolist(),
        "refits": _refit(ready, target, removals),
        "seconds": time.perf_counter() - start,
    }
    return record, fitted["XNN"]


def fit_methods(ready: Ready, target: int) -> dict[str, Embedding]:
    """Every method that gives x-features of one class, by name."""
    data, config = ready.data, ready.opened.config
    fitted: dict[str, Embedding] = {"XNN": _fit_default(ready, data, target)}
    for name in SEEN:
        fitted[name] = fit_variant(name, data, (target,), config.n_features, config.train)[0]
    for name, embedding in ready.blind.usual.items():
        fitted[name] = read_class(embedding, data, target, config.train)
    fitted["Lasso"] = fit_lasso_sizes(data, target, config.train, (config.n_features,))[
        config.n_features
    ]
    return fitted


def _fit_default(ready: Ready, data: FitData, target: int, seed: int = 0) -> Embedding:
    default = ready.config.default
    config = replace(default, seed=default.seed + seed)
    return fit_variant("SRAE", data, (target,), ready.opened.config.n_features, config)[0]


def _refit(ready: Ready, target: int, removals: Removals) -> dict[str, Any]:
    """Recovery and specificity of today's default on bootstrap samples, with other seeds."""
    found: dict[str, list[float | None]] = {"recovery": [], "specificity": []}
    for seed in range(1, ready.config.refits + 1):
        data = FitData(resample(ready.data.train, seed), ready.data.validation)
        profiles = ask(_fit_default(ready, data, target, seed), removals).profiles
        recovered = truth.recovery(profiles)
        found["recovery"].append(None if recovered is None else recovered.value)
        found["specificity"].append(truth.specificity(profiles))
    return found


def resample(data: Activations, seed: int) -> Activations:
    """A bootstrap sample with as many images of every class as there are."""
    generator = torch.Generator().manual_seed(seed)
    labels = data.predicted if data.labels is None else data.labels
    drawn = []
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        places = torch.randint(len(members), (len(members),), generator=generator)
        drawn.append(members[places])
    return data.select(torch.cat(drawn))


def _at(answers: Mapping[str, Answers], chosen: list[int]) -> dict[str, Tensor]:
    return {name: each.feature_changes[chosen] for name, each in answers.items()}


def _measure_maps(
    ready: Ready,
    target: int,
    fitted: Mapping[str, Embedding],
    changes: Mapping[str, Tensor],
    removals: Removals,
    chosen: list[int],
    seen: Seen,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures of maps by method and rule; all rules for today's default and for the logit."""
    task, config = ready.opened.task, ready.config
    parts = len(PARTS)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, embedding in fitted.items():
        drawn = (
            by_rules(task, embedding, seen, config)
            if name == "XNN"
            else [(PAPER_RULE, feature_maps(task, embedding, seen, PAPER_RULE, config))]
        )
        found[name] = {
            rule: truth_figures(lie(maps, seen, parts), changes[name]) for rule, maps in drawn
        }
    causes = removals.causes[chosen]
    found["1-heatmap"] = {}
    for rule in config.rules:
        if rule != "effective_weights":
            lying = lie(logit_maps(task, target, seen, rule, config), seen, parts)
            shares = lying.parts[:, 0]
            found["1-heatmap"][rule] = truth_figures(lying, causes.unsqueeze(2)) | {
                "told": truth.correlate(truth.causal_shares(shares), truth.causal_shares(causes))
            }
    return found
