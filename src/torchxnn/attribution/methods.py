"""The attribution methods by the names that users pass; a new one is one file and one line here."""

from typing import Any

from torch import nn

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
from torchxnn.attribution.effective_weights import EFFECTIVE, EffectiveExcitationBackprop
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.removal import Removal
from torchxnn.attribution.rise import RISE
from torchxnn.errors import XNNError, near_ones

PAPER = "excitation_backprop"
"""Name of the paper's rule: excitation backprop layer by layer."""

OF_PROBABILITIES = "integrated_gradients"
"""What draws outputs that are no logits: excitation backprop has no rule for a softmax."""

METHODS: dict[str, type[Attributor]] = {
    PAPER: ExcitationBackprop,
    EFFECTIVE: EffectiveExcitationBackprop,
    "gradient": Gradient,
    "input_x_gradient": InputXGradient,
    "integrated_gradients": IntegratedGradients,
    "deep_lift": DeepLift,
    "grad_cam": GradCAM,
    "guided_backprop": GuidedBackprop,
    "occlusion": Occlusion,
    "rise": RISE,
    "removal": Removal,
}

OF_ANY_MODULE = tuple(name for name in METHODS if name != EFFECTIVE)
"""Methods that need to know nothing but the module."""

CERTIFIED = (PAPER, EFFECTIVE)
"""Methods that share out a relevance of 1, so that conservation and contrast mass are known."""


def check_method(method: str) -> None:
    """Refuse a name that is not in `METHODS`.

    Raises:
        XNNError: there is no such method.
    """
    if method not in METHODS:
        near = near_ones(method, METHODS, most=1)
        raise XNNError(f"unknown attribution method {method!r}{near}; known: {', '.join(METHODS)}")


def attributor(method: str, module: nn.Module, **options: Any) -> Attributor:
    """The attribution method of a name, for the outputs of a module.

    Args:
        method: name in `METHODS`.
        module: any module with (B, k) outputs.
        options: parameters of the method.

    Raises:
        XNNError: there is no such method.
        TypeError: the method has no such parameter.
    """
    check_method(method)
    return METHODS[method](module, **options)
