"""How much of an explanation another seed finds again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from torchxnn.apps.benchmark.class_by_class import (
    Measurement,
    Opened,
    Plan,
    measure_classes,
    open_benchmark,
)
from torchxnn.apps.benchmark.methods import SEEN, fit_variant
from torchxnn.apps.benchmark.summary import mean
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.errors import XNNError
from torchxnn.metrics.stability import measure_stability


def run_stability(plan: Plan, fits: int = 5) -> dict[str, Any]:
    """Refit SRAE, SRAE-R, NN and SAE with other seeds and match their x-features by assignment.

    The figure is the mean correlation of matched x-features over the class's measured images, on
    the positives, where it says whether the same concepts are found (`measure_stability`), beside
    that of shuffled values. Held-out images change with the seed, too. Resumable class by class.
    There are at least 2 fits per class and method.

    Returns:
        `methods`: mean correlation and chance level; `classes`: the same per class.
    """
    if fits < 2:
        raise XNNError(f"stability needs at least 2 fits, got {fits}")
    opened, wanted = open_benchmark(plan)
    refits = Measurement(
        "stability", partial(_refit_class, fits), settings={"fits": fits}, key=str(fits)
    )
    found = measure_classes(plan, refits, opened, wanted)
    return {
        "fits": fits,
        "methods": {
            name: {
                key: mean([row[name][key] for row in found.values()])
                for key in ("correlation", "chance")
            }
            for name in SEEN
        },
        "classes": found,
    }


def _refit_class(fits: int, opened: Opened, target: int) -> dict[str, Any]:
    z = opened.recorded.located.z[opened.task.positives(target)]
    features: dict[str, list[Tensor]] = {name: [] for name in SEEN}
    for seed in range(fits):
        config = replace(opened.config.train, seed=opened.config.train.seed + seed)
        data = opened.recorded.fit_data(config)
        for name, of_fits in features.items():
            embedding, _ = fit_variant(name, data, (target,), opened.config.n_features, config)
            of_fits.append(apply_embedding(embedding, z).features)
    found = {name: measure_stability(of_fits) for name, of_fits in features.items()}
    return {name: {"correlation": s.value, "chance": s.chance} for name, s in found.items()}
