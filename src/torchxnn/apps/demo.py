"""The demonstrations: solar cells, the European Goldfinch, and drawn shapes with known causes.

They are `xnn demo`, `xnn demo --data cub` and `xnn demo --data planted`. All attach to
`classifier.1`, the first fully connected layer after its ReLU; for photographs it is that of
SqueezeNet 1.1 features with a fully connected head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import cast

import torch
from rich.progress import Progress
from torch import nn

from torchxnn.apps.solar_cells import SeenCells
from torchxnn.data.class_names import spoken
from torchxnn.data.datasets.base import ImageDataset, ImageSubset, make_loader
from torchxnn.data.datasets.cub import CUB
from torchxnn.data.datasets.elpv import CITATION, ELPV, LICENCE
from torchxnn.data.datasets.planted import PlantedShapes
from torchxnn.data.record import record_activations
from torchxnn.data.removals import record_removals
from torchxnn.errors import DataError, ModelError
from torchxnn.metrics.planted import PlantedScores, score_planted
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
from torchxnn.models.planted import ALWAYS, CLASSES, FACTORY, LAYER, THING_NAMES, planted_network
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.xnn import XNN

GOLDFINCH = 47

TOLD_APART = 0.5
"""Things are told apart if recovery is more than this share of the way from chance to 1."""


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
        accuracy: the network's share of right answers on `test`; None if not measured.
        title: of the report, a question.
        network: what the model is, for people.
        factory: its name for `load_model`.
        notes: licence and sources, to be printed with every image.
        preprocessing: how images become tensors.
        layer: where the XNN attaches.
        compare: what is known of the logit and what the fitted XNN found of it, in sentences; None
            if nothing is known.
        seen: what the network said of the test images, for names as an example and for what is odd;
            None of what has neither.
    """

    model: nn.Module
    train: ImageDataset
    validation: ImageDataset | None
    test: ImageDataset
    classes: tuple[str, ...]
    target: int
    target_name: str
    accuracy: float | None
    title: str
    network: str
    factory: str
    notes: tuple[str, ...]
    preprocessing: Preprocessing = PREPROCESSING
    layer: str = BUNDLED_LAYER
    compare: Callable[[XNN], tuple[str, ...]] | None = None
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
    pooled = pool_features(network, make_loader(ImageSubset(cells, drawn)), progress)
    labels = torch.tensor([cells.labels[index] for index in drawn])
    network.classifier = train_head(
        pooled[: ends[1]], labels[: ends[1]], 2, hidden=SOLAR_HIDDEN, seed=seed, progress=progress
    )
    network.eval()
    train, validation, test = parts
    seen = SeenCells(cells, drawn[ends[2] :], network, pooled[ends[2] :])
    return DemoSetup(
        model=network,
        train=train,
        validation=validation,
        test=test,
        classes=cells.classes,
        target=1,
        target_name=cells.classes[1],
        accuracy=seen.accuracy,
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
        seen=seen,
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
    names = tuple(spoken(name) for name in train.classes)
    return DemoSetup(
        model=loaded.model,
        train=train,
        validation=None,
        test=test,
        classes=names,
        target=target,
        target_name=names[target],
        accuracy=None,
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
    data = record_activations(network, LAYER, make_loader(test))
    right = data.predicted == torch.tensor(test.labels)
    planted = CLASSES[target]
    return DemoSetup(
        model=network,
        train=train,
        validation=None,
        test=test,
        classes=train.classes,
        target=target,
        target_name=planted.name,
        accuracy=float(right.double().mean()),
        title=f"Why is this a {planted.name}?",
        network="Planted network",
        factory=FACTORY,
        notes=(
            f"Drawn shapes, no photographs: {len(train)} images to fit, {len(test)} for the test.",
        ),
        preprocessing=network.preprocessing,
        compare=partial(compare_with_planted, shapes=test),
    )


def compare_with_planted(xnn: XNN, shapes: PlantedShapes) -> tuple[str, ...]:
    """What was planted, and what an XNN of the planted network found of it, in sentences.

    Args:
        xnn: fitted to one class.
        shapes: test images of its network.
    """
    target = xnn.targets[0]
    removals = record_removals(xnn.model, xnn.layer, shapes, target)
    data = record_activations(xnn.model, xnn.layer, make_loader(shapes))
    shares = xnn.measure(data).faithfulness.share[0]
    scores = score_planted(xnn.fitted(), removals, target, torch.tensor(shares))
    return (
        planted_sentence(target),
        *sentences(scores, shares, len(removals.images), xnn.feature_names),
    )


def planted_sentence(target: int) -> str:
    """What the logit of a class is the sum of, and what its images show besides."""
    planted = CLASSES[target]
    terms = " + ".join(f"{weight:g} x {name}" for name, weight in planted.weights.items())
    return (
        f"What was planted: the logit of {planted.name} is {terms.replace('+ -', '- ')} + a "
        "constant, where each name stands for the answer of a detector, 0 where the thing is "
        f"not. Most images of the class also show a {planted.spurious}, which the logit ignores; "
        f"the {ALWAYS} is on every image and is no reason."
    )


def sentences(
    scores: PlantedScores, shares: Sequence[float], images: int, names: Sequence[str]
) -> list[str]:
    """Scores in words: what was found, with which shares, in which direction, and what is false.

    Args:
        scores: of an XNN.
        shares: of its x-features, as its report has them.
        images: that things were taken out of.
        names: of the x-features.
    """
    truth = scores.truth
    recovery, specificity = scores.recovery, scores.specificity or 0.0
    apart = recovery.value - recovery.chance > TOLD_APART * (1 - recovery.chance)
    said = [
        f"What was found, by drawing {images} test images again without each of their things: the "
        f"things {'were' if apart else 'were not'} told apart. {recovery.value:.0%} of what the "
        "x-features change, up to what each thing causes, lies on pairs of an x-feature and the "
        "one thing that it is matched with (100% if every thing had an x-feature of its own, "
        f"{recovery.chance:.0%} with shuffled things). An x-feature's own largest thing has "
        f"{specificity:.0%} of its change.",
        "Shares of the logit, as the matched x-feature reports them and as they were planted: "
        + "; ".join(
            f"{THING_NAMES[thing]}: {names[feature]} says {shares[feature]:.0%}, planted "
            f"{truth.share[thing]:.0%}"
            for feature, thing in scores.pairs
        )
        + f". The mean error is {100 * scores.share.value:.0f} points (chance "
        f"{100 * scores.share.chance:.0f}).",
        f"Direction: {scores.sign.value * len(truth.reasons):.0f} of {len(truth.reasons)} things "
        "have an x-feature that pushes the logit their way.",
    ]
    if scores.against is not None:
        against = [THING_NAMES[thing] for thing in truth.reasons if truth.drop[thing] < 0]
        verdict = "is" if scores.against == 1 else "is not"
        said.append(
            f"What speaks against the class ({', '.join(against)}) {verdict} reported with a "
            "negative contribution."
        )
    wrong = [names[feature] for feature in scores.false_features]
    said.append(
        f"False concepts: {len(wrong)} of {scores.active} active x-features"
        + (f" ({', '.join(wrong)})" if wrong else "")
        + f" {'answers' if len(wrong) == 1 else 'answer'} most to something that is no reason, "
        "or to nothing."
    )
    change = scores.intervention
    if change.r2 is not None:
        said.append(
            f"The reproduced logit follows the network's when things go: R² {change.r2:.3f}."
        )
    return said
