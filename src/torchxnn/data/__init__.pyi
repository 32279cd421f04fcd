from .activation_cache import ActivationCache
from .activations import Activations
from .config import DataConfig
from .datasets.ade20k import ADE20K
from .datasets.augment import AugmentedImages
from .datasets.base import ImageDataset, ImageSubset, Sample, make_loader
from .datasets.class_order import ClassOrder, read_class_map
from .datasets.cub import CUB
from .datasets.elpv import ELPV
from .datasets.folder import ImageFolder
from .datasets.funnybirds import FunnyBirds, FunnyBirdsInterventions
from .datasets.images import read_image
from .datasets.mnist import MNIST
from .datasets.nyu import NYUDepth
from .datasets.open import DATASETS, open_dataset
from .datasets.places365 import Places365
from .datasets.planted import PlantedShapes
from .record import cache_activations, record_activations, record_chunk
from .removals import RecordedRemovals, record_removals

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
