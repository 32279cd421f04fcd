"""Activations that a benchmark fits to, recorded once and kept in its folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from torchxnn.apps.benchmark.methods import FitData
from torchxnn.apps.benchmark.tasks import Task
from torchxnn.data.activations import Activations
from torchxnn.data.datasets.augment import AugmentedImages
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.positives import sample_classes, split_validation
from torchxnn.data.record import cache_activations
from torchxnn.errors import DataError, ModelError
from torchxnn.training.config import TrainConfig

FOLDER = "activations"

OnImages = Callable[[str, int, int], None]
"""Called with what is recorded, images so far, and their total."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """What the network did on every image of a task.

    Attributes:
        train: training images.
        altered: their altered copies, all first copies first; empty for none.
        test: images that faithfulness is measured on.
        located: images whose maps are measured; the same as `test` where they are.
        removals: located images without each part; empty where there are none.
    """

    train: Activations
    altered: Activations
    test: Activations
    located: Activations
    removals: Activations

    @property
    def measured(self) -> tuple[Activations, Activations]:
        """What faithfulness is measured on: training and test images."""
        return self.train, self.test

    def fit_data(self, config: TrainConfig) -> FitData:
        """Training images without and with a held-out share of each class, copies included."""
        held_out = self.held_out(config)
        return FitData(self._side(~held_out), self._side(held_out))

    def held_out(self, config: TrainConfig) -> Bool[Tensor, " images"]:
        """Mask of the training images that are held out, the same share of every class."""
        kinds = torch.nn.functional.one_hot(sample_classes(self.train)).bool()
        return split_validation(kinds, config.validation_share, config.seed)

    def _side(self, chosen: Bool[Tensor, " images"]) -> Activations:
        copies = len(self.altered) // max(1, len(self.train))
        if not copies:
            return self.train.select(chosen)
        altered = self.altered.select(chosen.repeat(copies))
        return Activations.cat([self.train.select(chosen), altered])


def record_task(
    task: Task, copies: int, folder: Path, on_images: OnImages | None = None, jobs: int = 1
) -> Recorded:
    """Record a task's activations in caches of the folder, or read those that are there.

    Args:
        task: network and images.
        copies: altered copies per training image.
        folder: of the benchmark.
        on_images: progress.
        jobs: processes that read images ahead; 1 reads them in this one.

    Raises:
        DataError: the folder holds the activations of another network, layer or data set, or
            images have no labels.
        ModelError: the network has another number of outputs than the task has classes.
    """
    datasets = {"train": task.train, "test": task.test}
    if copies:
        datasets["altered"] = AugmentedImages(task.train, copies, originals=False)
    if task.located is not task.test:
        datasets["located"] = task.located
    if task.removals is not None:
        datasets["removals"] = task.removals
    found = {}
    for name, dataset in datasets.items():
        found[name] = _record(task, dataset, folder / FOLDER / name, on_images, jobs)
        _check_outputs(task, found[name])  # before anything else is recorded
    nothing = found["train"].select(torch.zeros(0, dtype=torch.long))
    return Recorded(
        train=found["train"],
        altered=found.get("altered", nothing),
        test=found["test"],
        located=found.get("located", found["test"]),
        removals=found.get("removals", nothing),
    )


def _check_outputs(task: Task, recorded: Activations) -> None:
    outputs, classes = recorded.n_outputs, len(task.classes)
    if outputs != classes:
        raise ModelError(
            f"{task.source.model} with {task.source.weights} has {outputs} outputs, "
            f"{task.train.name} has {classes} classes: it is a network for something else; choose "
            "one for these classes, and another --out"
        )


def _record(
    task: Task, dataset: ImageDataset, place: Path, on_images: OnImages | None, jobs: int
) -> Activations:
    seen = 0

    def count(images: int) -> None:
        nonlocal seen
        seen += images
        if on_images is not None:
            on_images(place.name, seen, len(dataset))

    cache = cache_activations(
        task.model,
        task.source.layer,
        dataset,
        place,
        workers=jobs if jobs > 1 else 0,
        on_images=count,
    )
    if cache.labels is None:
        raise DataError(f"{dataset.name} has no labels, which the benchmark needs")
    return cache.activations(cache.layers[0])
