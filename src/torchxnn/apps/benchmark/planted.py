"""`xnn benchmark planted`: all methods against a network that is a known sum of known detectors.

Every seed has images, a mixing of the network and fits of its own, and is one file: a run that was
killed goes on with the seeds that are missing.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchxnn.apps.benchmark.class_by_class import claim_folder, read_whole
from torchxnn.apps.benchmark.job_settings import PlantedConfig
from torchxnn.apps.benchmark.maps import UnitMaps
from torchxnn.apps.benchmark.measure import class_faithfulness
from torchxnn.apps.benchmark.methods import BLIND
from torchxnn.apps.benchmark.over_classes import mean
from torchxnn.apps.benchmark.planted_methods import OpenedSeed, fit_methods, open_seed
from torchxnn.apps.benchmark.tables import planted_text
from torchxnn.data.removals import RecordedRemovals, record_removals
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import XNNError, XNNWarning
from torchxnn.metrics.planted import Score, place_score, planted_truth, score_planted
from torchxnn.models.attached import AttachedLayer
from torchxnn.models.planted import CLASSES, LAYER
from torchxnn.parallel.engine import LocalEngine
from torchxnn.storage.artifact import Format, plain, to_json
from torchxnn.storage.files import replace_file

FIGURES = {
    "r2": "R² ↑",
    "intervention_r2": "R² when a thing goes ↑",
    "recovery": "recovery ↑",
    "recovery_chance": "(chance)",
    "specificity": "specificity ↑",
    "sign": "sign ↑",
    "sign_chance": "(chance)",
    "against": "against found ↑",
    "share_error": "error of shares ↓",
    "share_error_chance": "(chance)",
    "place": "place ↑",
    "place_chance": "(chance)",
    "place_uniform": "(uniform map)",
    "false_concepts": "false concepts ↓",
    "active": "active",
}
"""Figures of a method, and what the table calls them; see `metrics.planted.PlantedScores`."""

MAPS_AT_ONCE = 5
_JOB = Format("torchxnn.planted-seed", 1, "what the planted benchmark measured of a seed")


def run_planted(
    config: PlantedConfig,
    folder: Path,
    jobs: int = 1,
    on_seed: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure all methods on every seed that is not done yet; write `results.json`, `tables.md`.

    Args:
        config: settings; a folder that holds a run with others is refused.
        folder: for everything that is written.
        jobs: processes; the results do not depend on them.
        on_seed: called with (seeds done, seeds).

    Returns:
        What `results.json` holds: `methods`, means over seeds and classes; `spread`, the standard
        deviation over seeds of the means over classes; `seeds`, by seed and class.

    Raises:
        DataError: the folder holds something else.
        XNNError: settings out of range.
    """
    for target in config.classes:
        if not 0 <= target < len(CLASSES):
            raise XNNError(f"there is no class {target}; classes are 0 to {len(CLASSES) - 1}")
    engine = LocalEngine(jobs)
    claim_folder(folder, {"config": replace(config, seeds=1)})  # more seeds can be added
    there = [seed for seed in range(config.seeds) if _file(folder, seed).is_file()]
    found = {seed: _read(_file(folder, seed)) for seed in there}
    todo = [seed for seed in range(config.seeds) if seed not in found]
    for at, figures in engine.run(_State, (config, folder), _measure, todo):
        found[todo[at]] = figures
        if on_seed is not None:
            on_seed(len(found), config.seeds)
    results = summarise({str(seed): found[seed] for seed in range(config.seeds)}, config.methods)
    replace_file(folder / "results.json", to_json(results))
    replace_file(folder / "tables.md", planted_text(results, FIGURES).encode())
    return results


@dataclass(frozen=True)
class _State:
    config: PlantedConfig
    folder: Path


def _file(folder: Path, seed: int) -> Path:
    return folder / "seeds" / f"{seed:04d}.json"


def _read(path: Path) -> dict[str, Any]:
    figures: dict[str, Any] = read_whole(_JOB, path, "figures")["figures"]
    return figures


def _measure(state: _State, seed: int) -> dict[str, Any]:
    figures: dict[str, Any] = plain(measure_seed(state.config, seed))
    replace_file(_file(state.folder, seed), _JOB.encode({"figures": figures}))
    return figures


def measure_seed(config: PlantedConfig, seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Figures by class and method of one seed."""
    opened = open_seed(config, seed)
    blind = {
        name: fit(opened.data, config.n_features, replace(config.train, seed=seed))
        for name, fit in BLIND.items()
        if name in config.methods
    }
    return {str(target): measure_target(opened, blind, target) for target in config.classes}


def measure_target(
    opened: OpenedSeed, blind: Mapping[str, Embedding], target: int
) -> dict[str, dict[str, Any]]:
    """Fit all methods to the logit of a class and measure them, by method."""
    config = opened.config
    removals = record_removals(opened.network, LAYER, opened.shapes, target, config.removal_images)
    fitted, seconds = fit_methods(opened, blind, target)
    found = {}
    places = _place(opened, fitted, removals, target)
    for name, embedding in fitted.items():
        faithfulness = class_faithfulness(embedding, opened.test, target)
        shares = torch.tensor(faithfulness.share[0])
        scores = score_planted(embedding, removals, target, shares)
        place, uniform = places[name](scores.pairs)
        found[name] = {
            "r2": faithfulness.r2,
            "intervention_r2": scores.intervention.r2,
            "intervention_correlation": scores.intervention.correlation,
            "recovery": scores.recovery.value,
            "recovery_chance": scores.recovery.chance,
            "specificity": scores.specificity,
            "sign": scores.sign.value,
            "sign_chance": scores.sign.chance,
            "against": scores.against,
            "share_error": scores.share.value,
            "share_error_chance": scores.share.chance,
            "place": place.value,
            "place_chance": place.chance,
            "place_uniform": uniform,
            "false_concepts": len(scores.false_features),
            "active": scores.active,
            "seconds": seconds[name],
        }
    return found


PlaceOf = Callable[[tuple[tuple[int, int], ...]], tuple[Score, float]]


def _place(
    opened: OpenedSeed, fitted: dict[str, Embedding], removals: RecordedRemovals, target: int
) -> dict[str, PlaceOf]:
    """By method, the score of its maps for matched pairs of x-feature and thing."""
    count = min(opened.config.map_images, len(removals.images))
    reasons = planted_truth(removals, target).reasons
    units = UnitMaps(AttachedLayer(opened.network, LAYER).run_to, fitted)
    drawn: dict[str, list[Tensor]] = {name: [] for name in fitted}
    for images in removals.images[:count].split(MAPS_AT_ONCE):
        with warnings.catch_warnings(action="ignore", category=XNNWarning):  # off units
            for name, maps in units.draw(images).items():
                drawn[name].append(maps)

    def place_of(name: str) -> PlaceOf:
        maps = torch.cat(drawn[name])
        masks, present = removals.masks[:count], removals.present[:count]
        return lambda pairs: place_score(maps, masks, present, pairs, reasons)

    return {name: place_of(name) for name in fitted}


def summarise(seeds: Mapping[str, Any], methods: Sequence[str]) -> dict[str, Any]:
    """Means over classes and seeds, and the spread of the former over the latter."""
    figures = (*FIGURES, "intervention_correlation", "seconds")
    by_seed = {
        name: {
            figure: [mean([row[name][figure] for row in rows.values()]) for rows in seeds.values()]
            for figure in figures
        }
        for name in methods
    }
    return {
        "methods": {
            name: {figure: mean(values) for figure, values in found.items()}
            for name, found in by_seed.items()
        },
        "spread": {
            name: {figure: _deviation(values) for figure, values in found.items()}
            for name, found in by_seed.items()
        },
        "seeds": seeds,
    }


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None
