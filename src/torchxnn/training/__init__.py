"""Eq. 5 of the paper, one fit, its restarts, and many classes.

`TrainConfig` and `ComputeConfig` are what a fit obeys, `FitReport` says what came out, and
`fit_many` fits an XNN to every class of a cache. The terms of the loss are pure functions.
"""

from torchxnn.training.class_results import FittedClass, ManyFits
from torchxnn.training.config import ComputeConfig, ConvConfig, Losses, TrainConfig
from torchxnn.training.fit import fit_embedding
from torchxnn.training.losses import faithfulness, pull_away, sparse_reconstruction
from torchxnn.training.many import ManyConfig, fit_many
from torchxnn.training.report import FitReport

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
