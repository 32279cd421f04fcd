"""What is explained and measured: one description of a network with its data sets per benchmark."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from torchxnn.apps.benchmark.settings import BUNDLED
from torchxnn.data.class_names import spoken_all
from torchxnn.data.datasets.ade20k import ADE20K
from torchxnn.data.datasets.base import ImageDataset, Sample
from torchxnn.data.datasets.cub import CUB
from torchxnn.data.datasets.funnybirds import FunnyBirds, FunnyBirdsInterventions
from torchxnn.data.datasets.nyu import NYUDepth
from torchxnn.data.datasets.places365 import PLACES_ROOMS, Places365
from torchxnn.errors import DataError, ModelError, XNNWarning
from torchxnn.metrics.part_weights import (
    CONTEXT,
    PixelWeights,
    pixel_weights_masks,
    pixel_weights_voronoi,
)
from torchxnn.models.bundled import PREPROCESSING
from torchxnn.models.config import BUNDLED_LAYER
from torchxnn.models.load import load_model
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.xnn import XNN

ROOMS = ("bathroom", "bedroom", "dining_room", "entrance_hall", "kitchen", "living_room")


@dataclass(frozen=True)
class TaskSource:
    """Where a benchmark finds its data and its network; plain values, so that workers can open it.

    Attributes:
        kind: name in `TASKS`.
        root: the images to fit on.
        weights: state dict of the network.
        model: `torchvision:NAME`, `timm:NAME` or `package.module:factory`.
        layer: dotted name of the layer to attach to.
        measured: images with masks to measure locality on, where that is another data set.
    """

    kind: str
    root: Path
    weights: Path
    model: str = BUNDLED
    layer: str = BUNDLED_LAYER
    measured: Path | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """A network, its data, and how relevance is assigned to parts.

    Attributes:
        source: where it came from.
        model: the explained network.
        train: images to fit on.
        test: images to measure faithfulness on.
        located: images whose maps are measured; their labels are indices of the network's
            outputs.
        classes: names of the network's outputs.
        parts: names of the parts or objects, in the order of the pixel weights.
        weigh: pixel weights of one image.
        removals: every located image again without each part, image by image and part by part,
            where such images are there.
    """

    source: TaskSource
    model: nn.Module
    train: ImageDataset
    test: ImageDataset
    located: ImageDataset
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    weigh: Callable[[Sample], PixelWeights]
    removals: ImageDataset | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the network's input."""
        return self.train.preprocessing

    def xnn(self, n_features: int) -> XNN:
        """An XNN of so many x-features on the layer, not fitted yet."""
        return XNN(
            self.model,
            self.source.layer,
            n_features,
            class_names=self.classes,
            preprocessing=self.preprocessing,
        )

    def positives(self, target: int) -> list[int]:
        """Indices of the located images of a class."""
        labels = self.located.labels or ()
        return [index for index, label in enumerate(labels) if label == target]


def _load(source: TaskSource, classes: int) -> tuple[nn.Module, Preprocessing]:
    loaded = load_model(source.model, source.weights)
    outputs = getattr(loaded.model, "num_classes", None)
    if outputs is not None and outputs != classes:
        raise ModelError(f"{source.weights} has {outputs} outputs for {classes} classes")
    bundled = source.model == BUNDLED
    return loaded.model, PREPROCESSING if bundled else loaded.preprocessing


def open_cub(source: TaskSource) -> Task:
    """Birds: fitted on the training split, measured on the test split with parts and boxes."""
    names = CUB(source.root, PREPROCESSING, "train").classes
    model, preprocessing = _load(source, len(names))
    train, test = (CUB(source.root, preprocessing, split) for split in ("train", "test"))
    size = (preprocessing.height, preprocessing.width)

    def weigh(sample: Sample) -> PixelWeights:
        if sample.parts is None or sample.box is None:
            raise DataError(f"{sample.path} has no parts or no box")
        return pixel_weights_voronoi(sample.parts, sample.box, size)

    return Task(
        source=source,
        model=model,
        train=train,
        test=test,
        located=test,
        classes=spoken_all(names),
        parts=(*test.part_names, CONTEXT),
        weigh=weigh,
    )


def _weigh_masks(objects: int) -> Callable[[Sample], PixelWeights]:
    def weigh(sample: Sample) -> PixelWeights:
        if sample.masks is None:
            raise DataError(f"{sample.path} has no masks")
        return pixel_weights_masks(sample.masks, objects)

    return weigh


def _open_rooms(
    source: TaskSource,
    rooms: tuple[str, ...],
    masks: Callable[[Path, Preprocessing], NYUDepth | ADE20K],
) -> Task:
    """Rooms of Places365, measured on images of the same kinds of rooms with masks."""
    if source.measured is None:
        raise DataError(f"the {source.kind} benchmark needs --masks, the folder with the masks")
    model, preprocessing = _load(source, len(rooms))
    train, test = (
        Places365(source.root, preprocessing, split, classes=rooms) for split in ("train", "test")
    )
    # rooms without images are not measured
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        located = masks(source.measured, preprocessing)
    objects = located.object_names[1:]  # number 0 is void
    return Task(
        source=source,
        model=model,
        train=train,
        test=test,
        located=located,
        classes=rooms,
        parts=tuple(objects),
        weigh=_weigh_masks(len(objects)),
    )


def open_nyu(source: TaskSource) -> Task:
    """Six rooms of Places365, measured on the masks of NYU Depth v2, which has no entrance hall."""
    return _open_rooms(source, ROOMS, lambda root, size: NYUDepth(root, size, "all", classes=ROOMS))


def open_places(source: TaskSource) -> Task:
    """The paper's ten rooms of Places365, measured on the object masks of ADE20K."""
    return _open_rooms(
        source, PLACES_ROOMS, lambda root, size: ADE20K(root, size, "all", classes=PLACES_ROOMS)
    )


def open_funnybirds(source: TaskSource) -> Task:
    """Rendered birds of five parts, each test image also without each part."""
    names = FunnyBirds(source.root, PREPROCESSING, "test").classes
    model, preprocessing = _load(source, len(names))
    train, test = (FunnyBirds(source.root, preprocessing, split) for split in ("train", "test"))
    return Task(
        source=source,
        model=model,
        train=train,
        test=test,
        located=test,
        classes=names,
        parts=test.object_names[1:],  # number 0 is the background
        weigh=_weigh_masks(len(test.object_names) - 1),
        removals=FunnyBirdsInterventions(test),
    )


TASKS: dict[str, Callable[[TaskSource], Task]] = {
    "cub": open_cub,
    "nyu": open_nyu,
    "places": open_places,
    "funnybirds": open_funnybirds,
}
"""Benchmarks on vectors, by name."""
