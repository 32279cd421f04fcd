"""Data sets: each yields frozen samples; a new one is one file and one line here."""

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

DATASETS: dict[str, type[ImageDataset]] = {"folder": ImageFolder, "cub": CUB, "elpv": ELPV}

__all__ = [
    "CUB",
    "DATASETS",
    "ELPV",
    "Frame",
    "ImageDataset",
    "ImageFolder",
    "ImageSubset",
    "Preprocessing",
    "Sample",
    "SkippedImage",
    "UnreadableImageError",
    "make_loader",
    "read_image",
    "subset",
]
