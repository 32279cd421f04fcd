"""XNNs of four classes on a folder of tiny pictures, for the tests of the atlas."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from conftest import make_images, make_net
from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.record import cache_activations
from torchxnn.errors import DegenerateFitWarning
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.training.class_results import class_folder
from torchxnn.training.config import TrainConfig
from torchxnn.training.many import fit_many

CLASSES = ("001.Black_crow", "002.Blue_<b>jay & co", "003.Cr\u00eape_finch", "004.Dove")
LAYER = "classifier.1"
QUICK = TrainConfig(
    hidden=(16,), epochs=15, patience=2, batch_size=32, learning_rate=0.02, pretrain_epochs=2,
    trials=1,
)  # fmt: skip


def small_network(num_classes=4):
    """Factory for `xnn ... atlas_examples:small_network`."""
    net = make_net(num_classes)
    net.preprocessing = Preprocessing(size=12, resize="squash")
    return net


@dataclass
class Parts:
    """What an atlas is made of."""

    images: Path
    runs: Path
    dataset: ImageDataset
    cache: ActivationCache
    folders: tuple[str, ...]


def write_pictures(root, count=64):
    images, labels = make_images(count)
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = root / CLASSES[label]
        place.mkdir(parents=True, exist_ok=True)
        pixels = (image / 3).clamp(0, 1).permute(1, 2, 0).numpy() * 255
        Image.fromarray(pixels.astype(np.uint8)).resize((48, 48)).save(place / f"{i:02d}.png")
    return root


def make_parts(path):
    """Pictures, their activations, and an XNN of each class."""
    images = write_pictures(path / "images")
    net = small_network()
    dataset = ImageFolder(images, net.preprocessing, classes=CLASSES)
    source = {"model": "atlas_examples:small_network", "weights": None, "description": "a net"}
    cache = cache_activations(
        net, LAYER, dataset, path / "cache", chunk_rows=24, class_names=CLASSES, source=source
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateFitWarning)
        fit_many(cache, config=QUICK, n_features=3, out=path / "runs")
    folders = tuple(class_folder((target,), CLASSES) for target in range(4))
    return Parts(images, path / "runs", dataset, cache, folders)
