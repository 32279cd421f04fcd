"""Attribution methods: from a module, images and a target to heatmaps.

`METHODS` maps the names that users pass to the classes; a new method is one file and one line
there. Texts and rows are shown to the same methods by `attribute_tokens` and `attribute_rows`.
"""

from torchxnn.attribution.base import (
    Attributor,
    BaselineMethod,
    Certificate,
    LayerCertificate,
    MapMethod,
)
from torchxnn.attribution.captum_methods import (
    DeepLift,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
)
from torchxnn.attribution.effective_weights import EffectiveExcitationBackprop
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.methods import METHODS
from torchxnn.attribution.removal import Removal
from torchxnn.attribution.rise import RISE
from torchxnn.attribution.sanity import RandomizedStep, randomize_from_the_top
from torchxnn.attribution.tokens_and_rows import attribute_rows, attribute_tokens

__all__ = [
    "METHODS",
    "RISE",
    "Attributor",
    "BaselineMethod",
    "Certificate",
    "DeepLift",
    "EffectiveExcitationBackprop",
    "ExcitationBackprop",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "InputXGradient",
    "IntegratedGradients",
    "LayerCertificate",
    "MapMethod",
    "Occlusion",
    "RandomizedStep",
    "Removal",
    "attribute_rows",
    "attribute_tokens",
    "randomize_from_the_top",
]
