"""The attribution methods by the names that users pass; a new one is one file and one line here."""

from torchxnn.attribution.base import Attributor
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
from torchxnn.attribution.rise import RISE

METHODS: dict[str, type[Attributor]] = {
    "excitation_backprop": ExcitationBackprop,
    "gradient": Gradient,
    "input_x_gradient": InputXGradient,
    "integrated_gradients": IntegratedGradients,
    "deep_lift": DeepLift,
    "grad_cam": GradCAM,
    "guided_backprop": GuidedBackprop,
    "occlusion": Occlusion,
    "rise": RISE,
}
