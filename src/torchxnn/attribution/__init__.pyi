from .base import Attributor, BaselineMethod, Certificate, LayerCertificate, MapMethod
from .captum_methods import (
    DeepLift,
    GradCAM,
    Gradient,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
)
from .effective_weights import EffectiveExcitationBackprop
from .excitation_backprop.method import ExcitationBackprop
from .methods import METHODS
from .removal import Removal
from .rise import RISE
from .sanity import RandomizedStep, randomize_from_the_top
from .tokens_and_rows import attribute_rows, attribute_tokens

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
