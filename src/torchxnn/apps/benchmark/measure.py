"""Fit every method to one class and measure all of them on the same images."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from torchxnn.apps.benchmark.blind import Blind
from torchxnn.apps.benchmark.class_by_class import Opened
from torchxnn.apps.benchmark.maps import (
    INTEGRATED,
    OCCLUSION,
    MapFigures,
    OtherMaps,
    UnitMaps,
    layer_of,
    occluded_activations,
)
from torchxnn.apps.benchmark.methods import (
    LASSO_SIZES,
    SEEN,
    FitData,
    UnitsOfMany,
    fit_lasso_sizes,
    fit_ridge,
    fit_variant,
    read_class,
)
from torchxnn.apps.gallery import evenly_spaced
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.data.activations import Activations
from torchxnn.data.positives import find_positives
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.dimensions import fit_dimensions
from torchxnn.errors import XNNWarning
from torchxnn.metrics.evaluation import measure_activations
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.metrics.masking import combine_maps, masked_accuracy
from torchxnn.training.config import TrainConfig
from torchxnn.training.report import FitReport

IMAGES_AT_ONCE = 4
"""Images whose maps of all methods are carried at once; bounds the memory."""

LASSO_SHOWN = LASSO_SIZES[0]


FIGURES = (
    *("f_reg_train", "f_reg_test", "f_cls_train", "f_cls_test", "f_reg_positives"),
    *("f_cls_positives", "r2", "o1", "o2", "mean_squared_correlation", OCCLUSION, INTEGRATED),
    *("locality", "locality_chance", "locality_without_context"),
    *("locality_without_context_chance", "off_object", "off_object_chance", "active", "dead"),
    *("degenerate_classes", "margin", "margin_changed", "top_share", "n_features", "void_share"),
    "seconds",
)
"""Names of the figures of one method for one class, in the order of `results.json`."""

FIT_FIGURES = (
    *("r2", "f_reg", "f_reg_positives", "f_cls_positives", "active", "dead", "o1", "o2"),
    *("mean_squared_correlation", "locality", OCCLUSION),
)
"""Names of the figures that settings are compared by."""

READOUT_FIGURES = ("r2", "f_reg_test", "f_reg_positives", "f_cls_positives")
"""Names of the figures of other readouts."""

RIDGE = "ridge on Z"

NO_FIGURES = dict.fromkeys(FIGURES)
"""Figures of a method that reproduces no logit, before its maps are measured."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a worker needs for every class.

    Attributes:
        opened: network, images and settings.
        data: what is fitted.
        blind: embeddings that do not see the target.
    """

    opened: Opened
    data: FitData
    blind: Blind


@dataclass(eq=False)
class ClassRecord:
    """What was measured for one class; plain values, kept as JSON.

    Attributes:
        target: class index.
        name: class name.
        methods: figures by method; see `figures`.
        lasso: rows of the tables .4 and .6: by wanted size the size found, F_reg on training and
            test images.
        masking: accuracy by score and kept pixels; None if it was not measured.
        more: R^2 of the methods without target at more concepts.
        readouts: faithfulness of other readouts; see `READOUT_FIGURES`.
        positives: images whose maps were measured.
        seconds: of the whole class.
    """

    target: int
    name: str
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    lasso: dict[str, dict[str, float]] = field(default_factory=dict)
    masking: dict[str, Any] | None = None
    more: dict[str, float] = field(default_factory=dict)
    readouts: dict[str, dict[str, float]] = field(default_factory=dict)
    positives: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class ClassFits:
    """Everything that was fitted to one class.

    Attributes:
        methods: embeddings by method.
        reports: of the methods that are variants of eq. 5.
        path: points of the Lasso path by wanted size.
        seconds: by method.
    """

    methods: dict[str, Embedding]
    reports: dict[str, FitReport]
    path: dict[int, Embedding]
    seconds: dict[str, float]


def fit_class(ready: Prepared, target: int) -> ClassFits:
    """Fit all methods to one class; those that do not see it get their readouts."""
    data, config = ready.data, ready.opened.config
    fitted: dict[str, Embedding] = {}
    reports: dict[str, FitReport] = {}
    seconds = dict(ready.blind.seconds)
    for name in SEEN:
        start = time.perf_counter()
        fitted[name], reports[name] = fit_variant(
            name, data, (target,), config.n_features, config.of(name)
        )
        seconds[name] = time.perf_counter() - start
    for name, embedding in ready.blind.usual.items():
        fitted[name] = read_class(embedding, data, target, config.train)
    start = time.perf_counter()
    path: dict[int, Embedding] = dict(fit_lasso_sizes(data, target, config.train))
    fitted["Lasso"] = path[LASSO_SHOWN]
    seconds["Lasso"] = time.perf_counter() - start
    return ClassFits(fitted, reports, path, seconds)


def class_faithfulness(embedding: Embedding, data: Activations, target: int) -> Faithfulness:
    """Faithfulness of an embedding of one class on recorded activations."""
    return measure_activations(embedding, data, (target,)).faithfulness


def measure_class(ready: Prepared, target: int) -> tuple[ClassRecord, ClassFits]:
    """Fit and measure one class."""
    start = time.perf_counter()
    recorded = ready.opened.recorded
    record = ClassRecord(target, ready.opened.task.classes[target])
    fits = fit_class(ready, target)
    for name, embedding in fits.methods.items():
        train, test = (class_faithfulness(embedding, part, target) for part in recorded.measured)
        own = faithfulness_figures(train, test)
        record.methods[name] = own | {"seconds": fits.seconds.get(name)}
    for size, embedding in fits.path.items():
        train, test = (class_faithfulness(embedding, part, target) for part in recorded.measured)
        read = read_class(embedding, ready.data, target, ready.opened.config.train)
        record.lasso[str(size)] = {
            "num_x": embedding.n_features,
            "f_reg_train": train.f_reg,
            "f_reg_test": test.f_reg,
            "f_reg_test_refitted": class_faithfulness(read, recorded.test, target).f_reg,
        }
    _measure_readouts(ready, fits, record)
    _measure_maps(ready, fits.methods, record)
    record.seconds = time.perf_counter() - start
    return record, fits


def _measure_readouts(ready: Prepared, fits: ClassFits, record: ClassRecord) -> None:
    """Readouts that favour the others, and a regression without concepts.

    Unweighted least squares is what R^2 asks for: methods that see no target fall far behind it
    with weighted positives. Lasso's coefficients are shrunken until they are fitted again.
    """
    data, weighted = ready.data, ready.opened.config.train
    alike = replace(weighted, positive_share=None)
    blind = {name: fits.methods[name] for name in ready.blind.usual}
    refitted = {"Lasso": fits.methods["Lasso"]}

    def read(embeddings: dict[str, Embedding], how: str, base: TrainConfig) -> dict[str, Embedding]:
        return {
            f"{name}, {how}": read_class(embedding, data, record.target, base)
            for name, embedding in embeddings.items()
        }

    found = {
        RIDGE: fit_ridge(data, record.target, weighted),
        f"{RIDGE}, unweighted": fit_ridge(data, record.target, alike),
        **read(refitted, "refitted", weighted),
        **read(refitted, "refitted, unweighted", alike),
        **read(blind, "unweighted", alike),
    }
    test = ready.opened.recorded.test
    for name, embedding in found.items():
        of_test = class_faithfulness(embedding, test, record.target)
        kept = of_test.f_cls_positives or 0.0  # of classes, which always have it
        values = of_test.r2, of_test.f_reg, of_test.f_reg_positives, kept
        record.readouts[name] = dict(zip(READOUT_FIGURES, values, strict=True))
    for name, embedding in ready.blind.more.items():
        more = read_class(embedding, data, record.target, alike)
        record.more[name] = class_faithfulness(more, test, record.target).r2


def faithfulness_figures(train: Faithfulness, test: Faithfulness) -> dict[str, Any]:
    """What `results.json` holds of the faithfulness on training and on test images."""
    return NO_FIGURES | {
        "f_reg_train": train.f_reg,
        "f_reg_test": test.f_reg,
        "f_cls_train": train.f_cls,
        "f_cls_test": test.f_cls,
        "f_reg_positives": test.f_reg_positives,
        "f_cls_positives": test.f_cls_positives,
        "margin": test.margin,
        "margin_changed": test.margin_changed,
        "r2": test.r2,
        "active": test.active,
        "dead": test.dead,
        "degenerate_classes": int(bool(test.degenerate)),
        "top_share": max(test.share[0]),
        "n_features": test.n_features,
    }


def _measure_maps(ready: Prepared, fitted: dict[str, Embedding], record: ClassRecord) -> None:
    task, config, target = ready.opened.task, ready.opened.config, record.target
    chosen = evenly_spaced(task.positives(target), config.map_images)
    record.positives = len(chosen)
    start = time.perf_counter()
    for name in ("Z", "1-heatmap"):
        record.methods[name] = dict(NO_FIGURES)
    if not chosen:
        return
    gathered = {name: MapFigures(e.n_features, task.parts) for name, e in fitted.items()}
    gathered["1-heatmap"] = MapFigures(1, task.parts)
    units = UnitMaps(layer_of(task), fitted)
    logit = ExcitationBackprop(task.model)
    scores: dict[str, list[Tensor]] = {"x-features": [], "1-heatmap": [], "random": []}
    generator = torch.Generator().manual_seed(config.train.seed * 1009 + target)
    z = ready.opened.recorded.located.z[chosen]
    contributions = apply_embedding(fitted["SRAE"], z).contributions[:, 0]
    pictures: list[tuple[Tensor, Tensor]] = []
    others = OtherMaps(layer_of(task), list(fitted.values()))
    for first in range(0, len(chosen), IMAGES_AT_ONCE):
        samples = [task.located[index] for index in chosen[first : first + IMAGES_AT_ONCE]]
        images = torch.stack([sample.image for sample in samples])
        # off units are left out below
        with warnings.catch_warnings(action="ignore", category=XNNWarning):
            parts = units.draw(images) | {"1-heatmap": logit.attribute_many(images, [target])}
        others.occlude(occluded_activations(layer_of(task), images))
        weights = [task.weigh(sample) for sample in samples]
        for name, maps in parts.items():
            gathered[name].add(maps, weights)
        if config.masking:
            part, one = contributions[first : first + IMAGES_AT_ONCE], parts["1-heatmap"]
            scores["x-features"].append(combine_maps(parts["SRAE"], part))
            scores["1-heatmap"].append(one[:, 0].clamp(min=0))
            scores["random"].append(torch.rand(one[:, 0].shape, generator=generator))
            pictures.append((images, torch.full((len(images),), target)))
    for name, maps_of in gathered.items():
        features = apply_embedding(fitted[name], z).features if name in fitted else None
        record.methods[name] |= maps_of.figures(features, many=name != "1-heatmap")
    _integrate(ready, fitted, chosen, record)
    for place, (name, embedding) in enumerate(fitted.items()):
        features = apply_embedding(embedding, z).features
        record.methods[name] |= others.figures(features, place)
    record.methods["1-heatmap"]["seconds"] = time.perf_counter() - start
    _measure_dimensions(ready, chosen, record)
    if config.masking:
        record.masking = _measure_masking(ready.opened, pictures, scores)


def _integrate(
    ready: Prepared, fitted: dict[str, Embedding], chosen: list[int], record: ClassRecord
) -> None:
    """Overlap of integrated gradients, which cost most, of those that see the logit."""
    task, config = ready.opened.task, ready.opened.config
    few = evenly_spaced(chosen, config.integrated_images)
    seen = {name: fitted[name] for name in SEEN}
    drawn = OtherMaps(layer_of(task), list(seen.values()))
    drawn.integrate(
        torch.stack([task.located[index].image for index in few]), config.integrated_steps
    )
    z = ready.opened.recorded.located.z[few]
    for place, (name, embedding) in enumerate(seen.items()):
        record.methods[name] |= drawn.figures(apply_embedding(embedding, z).features, place)


def _measure_dimensions(ready: Prepared, chosen: list[int], record: ClassRecord) -> None:
    """Locality of single dimensions of Z, the most active ones.

    On the same images as all others: the entropy of a mean histogram rises with their number.
    """
    start = time.perf_counter()
    task, config, train = ready.opened.task, ready.opened.config, ready.data.train
    positives = find_positives(train, [record.target])[0][:, 0]
    count = min(config.z_dimensions, train.z.shape[1])
    embedding = fit_dimensions(train.z, train.logits[:, [record.target]], positives, count)
    units = ExcitationBackprop(UnitsOfMany(layer_of(task), [embedding]))
    histograms = MapFigures(count, task.parts)
    for index in chosen:
        sample = task.located[index]
        with warnings.catch_warnings(action="ignore", category=XNNWarning):
            maps = units.attribute_many(sample.image.unsqueeze(0), range(count))
        histograms.add(maps, [task.weigh(sample)])
    features = ready.opened.recorded.located.z[chosen][:, embedding.index]
    found = histograms.figures(features, many=False)
    del found["histogram"]
    record.methods["Z"] |= found | {"n_features": count, "seconds": time.perf_counter() - start}


def _measure_masking(
    opened: Opened, pictures: list[tuple[Tensor, Tensor]], scores: dict[str, list[Tensor]]
) -> dict[str, Any]:
    """Accuracy on batches of images and labels, masked by each score."""
    task, kept = opened.task, opened.config.kept
    found: dict[str, Any] = {}
    for name, maps in scores.items():
        batches = ((*batch, part) for batch, part in zip(pictures, maps, strict=True))
        result = masked_accuracy(task.model, task.preprocessing, batches, kept=kept)
        found[name] = list(result.accuracy)
        found["original"] = result.original
    return found | {"kept": list(kept)}
