"""Data sets: each yields frozen samples; a new one is one file and one line here."""

from torchxnn.datasets.ade20k import ADE20K
from torchxnn.datasets.augment import AugmentedImages
from torchxnn.datasets.base import (
    Frame,
    ImageDataset,
    ImageSubset,
    Preprocessing,
    Sample,
    make_loader,
    subset,
)
from torchxnn.datasets.cub import CUB
from torchxnn.datasets.elpv import ELPV
from torchxnn.datasets.folder import ImageFolder, SkippedImage
from torchxnn.datasets.images import UnreadableImageError, read_image
from torchxnn.datasets.mnist import MNIST, MNIST_PREPROCESSING
from torchxnn.datasets.nyu import NYUDepth
from torchxnn.datasets.places import PLACES_ROOMS, Places365

DATASETS: dict[str, type[ImageDataset]] = {
    "folder": ImageFolder,
    "cub": CUB,
    "elpv": ELPV,
    "nyu": NYUDepth,
    "places": Places365,
    "ade20k": ADE20K,
    "mnist": MNIST,
}

__all__ = [
    "ADE20K",
    "CUB",
    "DATASETS",
    "ELPV",
    "MNIST",
    "MNIST_PREPROCESSING",
    "PLACES_ROOMS",
    "AugmentedImages",
    "Frame",
    "ImageDataset",
    "ImageFolder",
    "ImageSubset",
    "NYUDepth",
    "Places365",
    "Preprocessing",
    "Sample",
    "SkippedImage",
    "UnreadableImageError",
    "make_loader",
    "read_image",
    "subset",
]
