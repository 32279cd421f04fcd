"""Gradient, perturbation and DeepLIFT maps, computed by Captum on any network or XNN.

Captum is imported when the first map is drawn. Its methods that hook modules see an `Unrolled` or
`Tapped` wrapper, never the network itself, so they work on an XNN, on reused and in-place modules
and on functional calls; what they would get wrong all the same is refused.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxnn.attribution.base import BaselineMethod, Images, MapMethod, Maps, Targets
from torchxnn.attribution.captum_wrappers import (
    GUIDED,
    NO_RESCALE,
    RECTIFIERS,
    RESCALE,
    Tapped,
    Unrolled,
)
from torchxnn.errors import AttributionWarning, UnsupportedOperationError, XNNError
from torchxnn.models.layers import resolve_layer

INCOMPLETE = 0.05
"""Completeness error of integrated gradients from which a warning is given."""

_lock = threading.RLock()


@dataclass(eq=False, repr=False, kw_only=True)
class Gradient(MapMethod):
    r"""The gradient of the output, :math:`\sum_c \partial f/\partial x_c`, signed.

    Which pixels the output rises with. Source: Simonyan, Vedaldi, Zisserman, Deep inside
    convolutional networks, 2014; they take the largest absolute value over the channels, here the
    channels are summed as for every other method.

    Args:
        absolute: sum the absolute values instead: where the output is sensitive at all.
    """

    name = "gradient"
    absolute: bool = False

    def _maps(self, images: Images, targets: Targets) -> Maps:
        method = _captum("Saliency", self._outputs)
        return _each_target(
            lambda target: method.attribute(_leaf(images), target, abs=self.absolute), targets
        )


class InputXGradient(MapMethod):
    r"""The gradient times the image, :math:`\sum_c x_c\,\partial f/\partial x_c`, signed.

    Complete (with 0 as the baseline) for piecewise linear networks without biases. Source:
    Shrikumar, Greenside, Shcherbina, Kundaje, Not just a black box, 2016.
    """

    name = "input_x_gradient"
    complete = True

    def _maps(self, images: Images, targets: Targets) -> Maps:
        method = _captum("InputXGradient", self._outputs)
        return _each_target(lambda target: method.attribute(_leaf(images), target), targets)


@dataclass(eq=False, repr=False, kw_only=True)
class IntegratedGradients(BaselineMethod):
    r"""Mean gradient on the way from a baseline b to the image, times x - b, signed.

    .. math:: (x-b)\int_0^1 \nabla f(b+t(x-b))\,dt

    The map sums to f(x) - f(b) (completeness) but for the numerical integral; more than 5% off is
    a warning. Source: Sundararajan, Taly, Yan, Axiomatic attribution for deep networks, 2017.

    Args:
        steps: points of the Gauss-Legendre quadrature.
    """

    name = "integrated_gradients"
    complete = True
    steps: int = 50

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.steps < 1:
            raise XNNError(f"steps is {self.steps}; it must be at least 1")
        super().__post_init__()

    def _maps(self, images: Images, targets: Targets) -> Maps:
        method, baseline = _captum("IntegratedGradients", self._outputs), self._baseline(images)
        settings = {"n_steps": self.steps, "internal_batch_size": self.chunk_size}
        maps = _each_target(
            lambda target: method.attribute(_leaf(images), baseline, target, **settings), targets
        )
        error = self._completeness(images, targets, maps)
        if error > INCOMPLETE:
            warnings.warn(
                f"integrated gradients miss {error:.0%} of the difference to the baseline; take "
                f"more than {self.steps} steps, or another baseline, such as baseline=0.5, where "
                "a layer norm jumps beside an image of zeros (ConvNeXt)",
                AttributionWarning,
                stacklevel=5,
            )
        return maps


class DeepLift(BaselineMethod):
    r"""DeepLIFT with the rescale rule: differences to a baseline b, shared out layer by layer.

    A nonlinearity passes its multiplier times :math:`\Delta y/\Delta x` instead of the derivative;
    the map sums to f(x) - f(b). Source: Shrikumar, Greenside, Kundaje, Learning important features
    through propagating activation differences, 2017; section 3.5.2. The paper's second baseline.

    Rules exist for ReLU, ReLU6, hardtanh, leaky ReLU, ELU, softplus, sigmoid, tanh and max pooling;
    everything that is not linear besides is refused, if not by name then because the map does not
    add up. Captum's rules mix up images, so they pass one at a time, whatever `chunk_size` says.
    """

    name = "deep_lift"
    complete = True

    def _maps(self, images: Images, targets: Targets) -> Maps:
        why = "DeepLIFT has no rule for this network; use integrated_gradients"
        refused = dict.fromkeys(NO_RESCALE, why)
        network = Unrolled(self._outputs, _leaf(images[:1]), RESCALE, refused)
        baseline = self._baseline(images)
        rows = []
        # One by one: for an input that equals its baseline, Captum's rule for pooling takes the
        # gradient of the first image of the batch, whichever image it is about.
        for image, reference, wanted in zip(
            images.split(1), baseline.split(1), targets, strict=True
        ):

            def one(target: Tensor, x: Tensor = image, b: Tensor = reference) -> Tensor:
                with _without_hook_warnings():
                    return _captum("DeepLift", network).attribute(_leaf(x), b, target)

            rows.append(_each_target(one, wanted.unsqueeze(0)))
        maps = torch.cat(rows)
        self._check_sums(images, targets, maps)
        return maps

    @torch.no_grad()
    def _check_sums(self, images: Tensor, targets: Tensor, maps: Tensor) -> None:
        delta, sums = self._delta(images, targets), maps.sum((2, 3))
        eps = torch.finfo(maps.dtype).eps
        size = self._outputs(images).gather(1, targets).abs()
        rounding = max(1e-4, eps) * maps.abs().sum((2, 3)) + 100 * eps * size
        allowed = max(0.01, 10 * eps) * delta.abs() + rounding
        wrong = (sums - delta).abs() > allowed
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise UnsupportedOperationError(
                f"DeepLIFT maps must sum to the difference to the baseline, "
                f"{float(delta[row, column]):.3g}, here it is {float(sums[row, column]):.3g}: the "
                "network has an operation without a rule, such as a product of activations; use "
                "integrated_gradients"
            )


class GuidedBackprop(MapMethod):
    r"""The gradient, with negative parts cut at every ReLU on the way down, signed at the pixels.

    Sharp, but in large part independent of the target. At ReLU6 and hardtanh likewise; none passes
    where their value is cut. Source: Springenberg, Dosovitskiy, Brox, Riedmiller, Striving for
    simplicity, 2015. Networks without any of these, or with another rectifier, are refused.
    """

    name = "guided_backprop"

    def _maps(self, images: Images, targets: Targets) -> Maps:
        why = "guided backprop is defined for ReLU alone, cut above (ReLU6) or not"
        refused = dict.fromkeys(RECTIFIERS, f"{why}; use gradient")
        network = Unrolled(self._outputs, _leaf(images[:1]), GUIDED, refused)
        if len(network.calls) == 0:
            raise UnsupportedOperationError(f"{why}, this network has none; use gradient")
        method = _captum("GuidedBackprop", network)
        with _without_hook_warnings():
            return _each_target(lambda target: method.attribute(_leaf(images), target), targets)


@dataclass(eq=False, repr=False, kw_only=True)
class GradCAM(MapMethod):
    r"""Grad-CAM: feature maps A_c of one layer, weighted by their mean gradient, enlarged, signed.

    .. math:: \sum_c A_c\,\frac1{hw}\sum_{ij}\frac{\partial f}{\partial A_{c,ij}}

    Bilinear to the size of the image. The source cuts it at 0; drawings and metrics do that.
    Source: Selvaraju et al., Grad-CAM, 2017.

    Args:
        layer: a submodule with outputs (B, C, h, w) or its dotted name; None takes the last feature
            maps before the final pooling. For a layer of the model that an XNN explains, give the
            module itself.
    """

    name = "grad_cam"
    layer: str | nn.Module | None = None

    def __post_init__(self) -> None:
        """Check the parameters and find the layer."""
        super().__post_init__()
        layer = self.layer
        self._layer = resolve_layer(self._network, layer)[1] if isinstance(layer, str) else layer

    def _maps(self, images: Images, targets: Targets) -> Maps:
        network = Tapped(self._outputs, _leaf(images[:1]), self._layer)
        method = _captum("LayerGradCam", network, network.tap)
        size = tuple(images.shape[2:])

        def one(target: Tensor) -> Tensor:
            small = method.attribute(_leaf(images), target)
            return functional.interpolate(small, size, mode="bilinear", align_corners=False)

        return _each_target(one, targets)


@dataclass(eq=False, repr=False, kw_only=True)
class Occlusion(BaselineMethod):
    r"""How far the output falls when a square that covers the pixel is hidden, signed.

    The mean of f(x) - f(x with the square set to the baseline) over the squares that cover the
    pixel; all targets share the passes. Source: Zeiler, Fergus, Visualizing and understanding
    convolutional networks, 2014.

    Args:
        window: side of the square in pixels; None takes a seventh of the longer side.
        stride: pixels between squares; None takes half a window.
    """

    name = "occlusion"
    needs_gradient = False
    window: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        window, stride = self.window, self.stride
        for name, value in (("window", window), ("stride", stride)):
            if value is not None and value < 1:
                raise XNNError(f"{name} is {value}; it must be at least 1")
        if window is not None and stride is not None and stride > window:
            raise XNNError(f"stride {stride} above window {window} leaves pixels uncovered")
        super().__post_init__()

    def _maps(self, images: Images, targets: Targets) -> Maps:
        channels, height, width = images.shape[1:]
        side = min(self.window or -(-max(height, width) // 7), height, width)
        step = min(self.stride or max(1, side // 2), side)
        baseline = self._baseline(images)
        maps = []
        for image, hidden, wanted in zip(images, baseline, targets, strict=True):
            # The flat outputs of one image: Captum then treats every output on its own.
            method = _captum("Occlusion", lambda x, t=wanted: self._outputs(x)[:, t].flatten())
            found = method.attribute(
                image.unsqueeze(0),
                sliding_window_shapes=(channels, side, side),
                strides=(channels, step, step),
                baselines=hidden.unsqueeze(0),
                perturbations_per_eval=self.chunk_size,
            )
            maps.append(found[:, 0])  # the square covers all channels: they are alike
        return torch.stack(maps)


def _captum(name: str, *about: Any) -> Any:
    """A method of Captum, for a network and what else it is about."""
    return getattr(import_module("captum.attr"), name)(*about)


def _leaf(images: Tensor) -> Tensor:
    return images.detach().clone().requires_grad_()


def _each_target(one: Callable[[Tensor], Tensor], targets: Tensor) -> Tensor:
    """Stack the maps of every column of targets, summed over channels."""
    return torch.stack([one(target).detach().sum(1) for target in targets.T], 1)


@contextmanager
def _without_hook_warnings() -> Iterator[None]:
    """Captum says each time that it sets hooks. Filters of warnings are global, hence the lock."""
    with _lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Setting (forward, )?backward hooks")
        yield
