"""Data sets, what a layer gives for them, and who is a positive.

Data sets yield frozen samples and are images with labels to PyTorch, too. `record_activations`
keeps what a layer gives in memory, `cache_activations` on disk.
"""

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.activations import Activations
from torchxnn.data.datasets.ade20k import ADE20K
from torchxnn.data.datasets.augment import AugmentedImages
from torchxnn.data.datasets.base import ImageDataset, ImageSubset, Sample, make_loader
from torchxnn.data.datasets.class_order import ClassOrder, read_class_map
from torchxnn.data.datasets.cub import CUB
from torchxnn.data.datasets.elpv import ELPV
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.datasets.funnybirds import FunnyBirds, FunnyBirdsInterventions
from torchxnn.data.datasets.images import read_image
from torchxnn.data.datasets.mnist import MNIST
from torchxnn.data.datasets.nyu import NYUDepth
from torchxnn.data.datasets.open import DATASETS, DataConfig, open_dataset
from torchxnn.data.datasets.places365 import Places365
from torchxnn.data.datasets.planted import PlantedShapes
from torchxnn.data.record import cache_activations, record_activations, record_chunk
from torchxnn.data.removals import RecordedRemovals, record_removals

__all__ = [
    "ADE20K",
    "CUB",
    "DATASETS",
    "ELPV",
    "MNIST",
    "ActivationCache",
    "Activations",
    "AugmentedImages",
    "ClassOrder",
    "DataConfig",
    "FunnyBirds",
    "FunnyBirdsInterventions",
    "ImageDataset",
    "ImageFolder",
    "ImageSubset",
    "NYUDepth",
    "Places365",
    "PlantedShapes",
    "RecordedRemovals",
    "Sample",
    "cache_activations",
    "make_loader",
    "open_dataset",
    "read_class_map",
    "read_image",
    "record_activations",
    "record_chunk",
    "record_removals",
]
