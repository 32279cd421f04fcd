"""Data sets: each yields frozen samples; a new one is one file and one line in `DATASETS`."""

from torchxnn.data.datasets.ade20k import ADE20K
from torchxnn.data.datasets.augment import AugmentedImages
from torchxnn.data.datasets.base import ImageDataset, ImageSubset, Sample, make_loader, subset
from torchxnn.data.datasets.cub import CUB
from torchxnn.data.datasets.elpv import ELPV
from torchxnn.data.datasets.folder import ImageFolder, SkippedImage
from torchxnn.data.datasets.images import UnreadableImageError, read_image
from torchxnn.data.datasets.mnist import MNIST, MNIST_PREPROCESSING
from torchxnn.data.datasets.nyu import NYUDepth
from torchxnn.data.datasets.official import OfficialDataset
from torchxnn.data.datasets.open import DATASETS, DataConfig, OpenedData, open_dataset
from torchxnn.data.datasets.places365 import PLACES_ROOMS, Places365
from torchxnn.models.preprocessing import Frame, Preprocessing

__all__ = [
    "ADE20K",
    "CUB",
    "DATASETS",
    "ELPV",
    "MNIST",
    "MNIST_PREPROCESSING",
    "PLACES_ROOMS",
    "AugmentedImages",
    "DataConfig",
    "Frame",
    "ImageDataset",
    "ImageFolder",
    "ImageSubset",
    "NYUDepth",
    "OfficialDataset",
    "OpenedData",
    "Places365",
    "Preprocessing",
    "Sample",
    "SkippedImage",
    "UnreadableImageError",
    "make_loader",
    "open_dataset",
    "read_image",
    "subset",
]
