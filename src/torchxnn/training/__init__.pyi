from .class_results import FittedClass, ManyFits
from .config import ComputeConfig, ConvConfig, Losses, ManyConfig, TrainConfig
from .fit import fit_embedding
from .losses import faithfulness, pull_away, sparse_reconstruction
from .many import fit_many
from .report import FitReport

__all__ = [
    "ComputeConfig",
    "ConvConfig",
    "FitReport",
    "FittedClass",
    "Losses",
    "ManyConfig",
    "ManyFits",
    "TrainConfig",
    "faithfulness",
    "fit_embedding",
    "fit_many",
    "pull_away",
    "sparse_reconstruction",
]
