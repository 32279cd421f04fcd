"""The demonstrations: solar cells, the European Goldfinch, and drawn shapes with known causes.

They are `xnn demo`, `xnn demo --data cub` and `xnn demo --data planted`. All attach to
`classifier.1`, the first fully connected layer after its ReLU; for photographs it is that of
SqueezeNet 1.1 features with a fully connected head.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from rich.progress import Progress
from torch import nn

from torchxnn.apps.planted_things import PlantedTruth
from torchxnn.apps.solar_cells import SeenCells
from torchxnn.data.class_names import spoken_all
from torchxnn.data.datasets.base import ImageDataset, ImageSubset, make_loader
from torchxnn.data.datasets.cub import CUB
from torchxnn.data.datasets.elpv import CITATION, ELPV, LICENCE
from torchxnn.data.datasets.planted import PlantedShapes
from torchxnn.errors import DataError, ModelError
from torchxnn.models.bundled import (
    PREPROCESSING,
    SOLAR_HIDDEN,
    SqueezeNetWithHead,
    pool_features,
    squeezenet_from_ndf,
    train_head,
)
from torchxnn.models.config import BUNDLED_LAYER
from torchxnn.models.load import load_model
from torchxnn.models.planted import CLASSES, FACTORY, planted_network
from torchxnn.models.preprocessing import Preprocessing

GOLDFINCH = 47


@dataclass(frozen=True, eq=False)
class DemoSetup:
    """A network ready to be explained, and the images to do it with.

    Attributes:
        model: in evaluation mode.
        train: images to fit the XNN on.
        validation: held-out images that decide when to stop; None lets the fit split `train`.
        test: images that neither the network nor the XNN has seen.
        classes: class names by index.
        target: the class that is explained.
        target_name: its name for people.
        title: of the report, a question.
        network: what the model is, for people.
        factory: its name for `load_model`.
        notes: licence and sources, to be printed with every image.
        preprocessing: how images become tensors.
        layer: where the XNN attaches.
        truth: what is known of the logit, to compare the fitted XNN with; None if nothing is.
        seen: the test images as solar cells, for names as an example and for what is odd; None of
            what has neither.
    """

    model: nn.Module
    train: ImageDataset
    validation: ImageDataset | None
    test: ImageDataset
    classes: tuple[str, ...]
    target: int
    target_name: str
    title: str
    network: str
    factory: str
    notes: tuple[str, ...]
    preprocessing: Preprocessing = PREPROCESSING
    layer: str = BUNDLED_LAYER
    truth: PlantedTruth | None = None
    seen: SeenCells | None = None


# --- solar cells


def prepare_solar(seed: int = 0, progress: Progress | None = None, images: int = 1200) -> DemoSetup:
    """Train a head on solar cells, on the spot, and set up the explanation of "defective".

    Takes the cells whose label the experts were sure of (probability 0 or 1), a stratified part of
    them: 65% to train the head, 10% for validation, 25% for the test. The features stay as ImageNet
    made them, so every image goes through them once; the head is trained on the result. The same
    seed gives the same network on the same machine.

    Args:
        seed: of the choice of cells and of the training.
        progress: shows the bars.
        images: cells taken in all.

    Raises:
        DataError: if `elpv-dataset` is not installed.
        ModelError: if `ndf` is not installed.
    """
    cells = ELPV(PREPROCESSING)
    network = SqueezeNetWithHead(cast(nn.Module, squeezenet_from_ndf().features), 2, SOLAR_HIDDEN)
    sure = set(cells.sure())
    drawn = [index for index in cells.stratified(len(cells), seed) if index in sure][:images]
    ends = [round(len(drawn) * share) for share in (0.0, 0.65, 0.75, 1.0)]
    parts = [ImageSubset(cells, drawn[start:end]) for start, end in pairwise(ends)]
    train, validation, test = parts
    pooled = pool_features(network, make_loader(train), progress)
    labels = torch.tensor([cells.labels[index] for index in drawn[: ends[1]]])
    network.classifier = train_head(
        pooled, labels, 2, hidden=SOLAR_HIDDEN, seed=seed, progress=progress
    )
    network.eval()
    return DemoSetup(
        model=network,
        train=train,
        validation=validation,
        test=test,
        classes=cells.classes,
        target=1,
        target_name=cells.classes[1],
        title="Why is this solar cell defective?",
        network="SqueezeNet 1.1 with a head trained on solar cells",
        factory="torchxnn.models.bundled:solar_network",
        notes=(
            LICENCE,
            f"Source: {CITATION}",
            f"{len(drawn)} of the {len(cells)} cells were taken, from those whose label the "
            f"experts were sure of: {len(train)} to train, {len(validation)} for validation, "
            f"{len(test)} for the test.",
            "Network: SqueezeNet 1.1 with ImageNet weights from the package ndf 0.1.4 (MIT), its "
            "head trained just now on a processor.",
        ),
        seen=SeenCells(cells, drawn[ends[2] :]),
    )


# --- birds


def prepare_cub(root: str | Path, weights: str | Path, target: int = GOLDFINCH) -> DemoSetup:
    """Set up the explanation of the European Goldfinch (paper figure 1), or of another bird.

    Args:
        root: CUB-200-2011 in its official layout.
        weights: state dict of `squeezenet_with_head` for the classes in `classes.txt`.
        target: 0-based class index.

    Raises:
        DataError: if the data set is incomplete or has no such class.
        ModelError: if the weights do not fit.
    """
    train, test = CUB(root, PREPROCESSING, "train"), CUB(root, PREPROCESSING, "test")
    if not 0 <= target < len(train.classes):
        raise DataError(f"target must be 0 to {len(train.classes) - 1}, got {target}")
    loaded = load_model("torchxnn.models.bundled:squeezenet_with_head", weights)
    outputs = cast(SqueezeNetWithHead, loaded.model).num_classes
    if outputs != len(train.classes):
        raise ModelError(
            f"{weights} has {outputs} classes, but {train.root / 'classes.txt'} lists "
            f"{len(train.classes)}"
        )
    names = spoken_all(train.classes)
    return DemoSetup(
        model=loaded.model,
        train=train,
        validation=None,
        test=test,
        classes=names,
        target=target,
        target_name=names[target],
        title=f"Why is this a {names[target]}?",
        network=f"SqueezeNet 1.1 trained on {len(names)} kinds of birds",
        factory="torchxnn.models.bundled:squeezenet_with_head",
        notes=(
            "Birds: Caltech-UCSD Birds-200-2011 (Wah et al., technical report CNS-TR-2011-001, "
            "2011), for non-commercial research; the copyright is the photographers'.",
            f"{len(train)} images of the official training split, {len(test)} of the test split.",
        ),
    )


# --- planted shapes


def prepare_planted(seed: int = 0, images: int = 1000) -> DemoSetup:
    """Draw shapes, make the network that is a known sum of detectors, and set up its explanation.

    Args:
        seed: of the images and of the network's mixing.
        images: to fit the XNN on; a quarter as many, other ones, are for the test.

    Raises:
        DataError: no images.
    """
    network, target = planted_network(seed), 0
    train, test = PlantedShapes(images, seed), PlantedShapes(max(images // 4, 1), seed, "test")
    planted = CLASSES[target]
    return DemoSetup(
        model=network,
        train=train,
        validation=None,
        test=test,
        classes=train.classes,
        target=target,
        target_name=planted.name,
        title=f"Why is this a {planted.name}?",
        network="Planted network",
        factory=FACTORY,
        notes=(
            f"Drawn shapes, no photographs: {len(train)} images to fit, {len(test)} for the test.",
        ),
        preprocessing=network.preprocessing,
        truth=PlantedTruth(test),
    )
