from .errors import DegenerateFitWarning, XNNError, XNNWarning
from .explanations.contrast import Contrast, contrast
from .explanations.image import Explanation
from .storage.artifact import __version__
from .training.config import TrainConfig
from .xnn import XNN

__all__ = [
    "XNN",
    "Contrast",
    "DegenerateFitWarning",
    "Explanation",
    "TrainConfig",
    "XNNError",
    "XNNWarning",
    "__version__",
    "contrast",
]
