"""What the planted benchmark fits: all methods, random directions, and the detectors themselves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from torchxnn.apps.benchmark.bounds import fit_components
from torchxnn.apps.benchmark.job_settings import PLANTED, RANDOM, PlantedConfig
from torchxnn.apps.benchmark.methods import BLIND, FitData, fit_lasso_sizes, fit_variant, read_class
from torchxnn.apps.benchmark.variants import XNN
from torchxnn.data.activations import Activations
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.datasets.planted import PlantedShapes
from torchxnn.data.positives import split_kinds
from torchxnn.data.record import record_activations
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.directions import as_directions
from torchxnn.errors import DataError
from torchxnn.models.planted import CLASSES, LAYER, PlantedNetwork, planted_network
from torchxnn.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class OpenedSeed:
    """What all fits of one seed see.

    Attributes:
        seed: of images, mixing and fits.
        config: settings.
        network: the planted one.
        data: images to fit to, and held-out ones.
        train: both of them.
        test: other images.
        shapes: the data set of `test`.
    """

    seed: int
    config: PlantedConfig
    network: PlantedNetwork
    data: FitData
    train: Activations
    test: Activations
    shapes: PlantedShapes


def open_seed(config: PlantedConfig, seed: int) -> OpenedSeed:
    """Draw images, make a network and record what it does on them."""
    network = planted_network(seed)
    shapes = [
        PlantedShapes(config.images, seed, "train"),
        PlantedShapes(math.ceil(config.images / config.test_part), seed, "test"),
    ]
    train, test = (record_activations(network, LAYER, make_loader(part)) for part in shapes)
    if train.labels is None:
        raise DataError("planted images have labels")
    held_out = split_kinds(train.labels, config.train.validation_share, seed)
    data = FitData(train.select(~held_out), train.select(held_out))
    return OpenedSeed(seed, config, network, data, train, test, shapes[1])


def fit_methods(
    opened: OpenedSeed, blind: Mapping[str, Embedding], target: int
) -> tuple[dict[str, Embedding], dict[str, float]]:
    """Embeddings of one logit by method, and seconds."""
    fitted, seconds = {}, {}
    for name in opened.config.methods:
        start = time.perf_counter()
        fitted[name] = _fit(name, opened, blind, target)
        seconds[name] = time.perf_counter() - start
    return fitted, seconds


def _fit(name: str, opened: OpenedSeed, blind: Mapping[str, Embedding], target: int) -> Embedding:
    train = replace(opened.config.train, seed=opened.seed)
    if name in OTHERS:
        return OTHERS[name](opened, target, train)
    if name in BLIND:
        return read_class(blind[name], opened.data, target, train)
    if name == XNN:  # as `xnn fit` does it
        train = TrainConfig(seed=opened.seed)
    return fit_variant(name, opened.data, (target,), opened.config.n_features, train)[0]


def _lasso(opened: OpenedSeed, target: int, train: TrainConfig) -> Embedding:
    sizes = (opened.config.n_features,)
    (lasso,) = fit_lasso_sizes(opened.data, target, train, sizes).values()
    return read_class(lasso, opened.data, target, train)


def random_directions(opened: OpenedSeed) -> Embedding:
    """As many orthogonal directions of Z, drawn at random: what nothing gives."""
    z, count = opened.train.z, opened.config.n_features
    generator = torch.Generator().manual_seed(opened.seed)
    weight = torch.linalg.qr(torch.randn(z.shape[1], count, generator=generator)).Q.T
    return as_directions(weight, -weight @ z.mean(0), z)


def planted_detectors(opened: OpenedSeed, target: int) -> Embedding:
    """The answers of the detectors that the logit is the sum of: what there is to be found."""
    weight, constant = opened.network.unmix()
    reasons = list(CLASSES[target].reasons)
    return as_directions(weight[reasons], constant[reasons], opened.train.z)


OTHERS: dict[str, Callable[[OpenedSeed, int, TrainConfig], Embedding]] = {
    "Lasso": _lasso,
    "ICA": lambda opened, target, train: fit_components(
        opened.data, target, opened.config.n_features, train
    ),
    RANDOM: lambda opened, target, train: read_class(
        random_directions(opened), opened.data, target, train
    ),
    PLANTED: lambda opened, target, train: read_class(
        planted_detectors(opened, target), opened.data, target, train
    ),
}
"""Methods that are neither of eq. 5 (`SEEN`) nor blind to the target (`BLIND`): name -> fit."""
