"""Explain a trained network as "A is B because of C, D and E".

An Explanation Neural Network (XNN) embeds one layer of a trained network into a few x-features that
linearly reproduce the logit, draws each as a heatmap, and measures how good the explanation is.

Example:
    >>> from torchxnn import XNN
    >>> xnn = XNN(model, layer="classifier.1")
    >>> xnn.fit(loader, target=47)
    >>> xnn.explain(image).to_html("goldfinch.html")
"""

from torchxnn.errors import DegenerateFitWarning, XNNError, XNNWarning
from torchxnn.explanations.contrast import Contrast, contrast
from torchxnn.explanations.image import Explanation
from torchxnn.storage.artifact import __version__
from torchxnn.training.config import TrainConfig
from torchxnn.xnn import XNN

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
