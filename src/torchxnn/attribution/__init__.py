"""Attribution methods: (module, images, target) -> heatmaps. A new method is one file and one line.

`METHODS` maps the names that users pass to the classes.
"""

from torchxnn.attribution.base import Attributor, BaselineMethod, Certificate, MapMethod
from torchxnn.attribution.captum_methods import (
    DeepLift,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
)
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.methods import METHODS
from torchxnn.attribution.rise import RISE

__all__ = [
    "METHODS",
    "RISE",
    "Attributor",
    "BaselineMethod",
    "Certificate",
    "DeepLift",
    "ExcitationBackprop",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "InputXGradient",
    "IntegratedGradients",
    "MapMethod",
    "Occlusion",
]
