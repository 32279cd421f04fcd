"""The way through a piecewise linear module in one step instead of layer by layer.

Between two kinks a network of linear layers and rectifiers is one linear map: at the activations z,
its units are E = J(z) z + b(z) exactly. Excitation backprop through two or three dense layers mixes
until a unit and its dual are nearly equal; through J(z) alone it asks once what speaks for the unit
and what against it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.attribution.base import Attributor, Certificate, Targets, check_range
from torchxnn.attribution.excitation_backprop.drawn_maps import DrawnMaps
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.piecewise_linear import between, check_piecewise_linear
from torchxnn.errors import DataError, XNNError
from torchxnn.models.hooks import preserve_state
from torchxnn.models.layers import (
    as_activations,
    check_images,
    resolve_layer,
    run_above_layer,
    run_to_layer,
)

EFFECTIVE = "excitation_backprop_effective"
"""Name of excitation backprop through effective weights in `METHODS`."""


@runtime_checkable
class ReadsLayer(Protocol):
    """A module that makes its outputs of one layer of a model, and of nothing else in the image."""

    def layer_output(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to the activations Z (B, S_z); gradients flow."""

    def units(self, z: Tensor) -> Tensor:
        """Z (B, S_z) to the outputs (B, n), each row for itself; gradients flow."""


@dataclass(eq=False, repr=False)
class EffectiveExcitationBackprop(Attributor):
    r"""Excitation backprop that passes everything above one layer in a single step.

    Above the layer the module is, at each image, the linear map :math:`E=J(z)z+b(z)`; relevance is
    shared out once by :math:`(J_{ik}z_k)^\pm` and goes on by the rules of excitation backprop below
    the layer. J is found anew for every image, so any batch may be given.

    Args:
        module: what is explained: the units of an XNN (`XNN.attributor`), which know their layer,
            or any module with (B, k) outputs.
        layer: of any other module, the submodule or dotted name from which it is piecewise linear,
            such as the layer that an XNN is attached to.
        contrastive: as `ExcitationBackprop`.
        undecided: as `ExcitationBackprop`.

    Raises:
        XNNError: it is not said where the linear part begins, or it is not piecewise linear.

    Example:
        >>> method = EffectiveExcitationBackprop(model, layer="classifier.1")
        >>> maps = method.attribute(images, target=3)        # (B, H, W)
    """

    layer: str | nn.Module | None = None
    contrastive: bool = True
    undecided: str = "share"

    def __post_init__(self) -> None:
        """Find the layer."""
        super().__post_init__()
        if self.layer is not None:
            self._parts: ReadsLayer = _AboveLayer(self._network, self.layer)
        elif isinstance(self._network, ReadsLayer):
            self._parts = self._network
        else:
            raise XNNError(
                f"{EFFECTIVE} needs the layer from which the {type(self._network).__name__} is "
                "piecewise linear, such as the one that an XNN is attached to: give layer=, or use "
                "excitation_backprop"
            )

    def check(self, images: Float[Tensor, "batch channels height width"]) -> None:
        """Find out, on one image, whether there are effective weights.

        Raises:
            DataError: the layer gives maps.
            XNNError: what is above the layer is not piecewise linear.
        """
        with preserve_state(self._network):
            self._linear(images[:1], torch.zeros(1, 1, dtype=torch.int64))

    def _linear(self, images: Tensor, targets: Targets) -> EffectiveUnits:
        layer_output = self._parts.layer_output
        return EffectiveUnits(layer_output, self._parts.units, images, targets)

    def draw(self, images: Tensor, targets: Targets, certify: bool) -> DrawnMaps:
        """Maps of targets (B, n), and what was measured; as `attribute`, without warnings.

        Raises:
            XNNError: as `attribute`.
        """
        check_images(self._network, images)
        with preserve_state(self._network):
            linear = self._linear(images, targets.to(images.device, torch.int64))
            method = ExcitationBackprop(
                linear, contrastive=self.contrastive, undecided=self.undecided
            )
            columns = torch.arange(targets.shape[1]).expand(len(images), -1)
            return replace(method.draw(images, columns, certify), method=EFFECTIVE)

    def _explain(
        self, images: Tensor, targets: Tensor, certify: bool
    ) -> tuple[Tensor, Certificate | None]:
        found = self.draw(images, targets, certify)
        found.warn(stacklevel=3)
        return found.maps, found.certificate() if certify else None


class EffectiveUnits(nn.Module):
    """Images to the units of a module, by the linear map that the module is at these images.

    It belongs to one batch: `attribute` must be given the same images in the same order. The units
    are those of the module, to rounding; what an attribution method sees between the layer and
    them is one matrix product per image.

    Args:
        layer_output: images (B, C, H, W) to the activations Z (B, S_z).
        units: Z (B, S_z) to units (B, n), piecewise linear (linear layers, rectifiers, sums) and
            each image for itself.
        images: the batch (B, C, H, W).
        targets: which units of each image, (B, m); None for all.

    Raises:
        DataError: `layer_output` gives maps.
        XNNError: `units` is not piecewise linear.

    Example:
        >>> units = EffectiveUnits(layer_output, embedding.units(), images)
        >>> maps = ExcitationBackprop(units).attribute_many(images, range(5))  # (B, 5, H, W)
    """

    weights: Tensor
    offsets: Tensor

    def __init__(
        self,
        layer_output: Callable[[Tensor], Tensor],
        units: Callable[[Tensor], Tensor],
        images: Tensor,
        targets: Targets | None = None,
    ) -> None:
        super().__init__()
        self._layer_output = layer_output
        with torch.inference_mode(False), torch.no_grad():
            z = layer_output(images.clone())
        weights, offsets = effective_weights(units, z, targets)
        self.register_buffer("weights", weights)
        self.register_buffer("offsets", offsets)

    def forward(self, images: Tensor) -> Float[Tensor, "batch units"]:
        """The units (B, n)."""
        return self.at(self._layer_output(images))

    def at(self, z: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch units"]:
        """The units (B, n) that the linear maps of the images give for Z (B, S_z)."""
        return torch.baddbmm(self.offsets.unsqueeze(2), self.weights, z.unsqueeze(2)).squeeze(2)


def effective_weights(
    units: Callable[[Tensor], Tensor],
    activations: Float[Tensor, "batch *dims"],
    targets: Targets | None = None,
) -> tuple[Float[Tensor, "batch units dims"], Float[Tensor, "batch units"]]:
    """The linear map J (B, n, S_z) and offset b (B, n) that a module is at each row of Z.

    J z + b are the units of a piecewise linear module exactly.

    Args:
        units: Z to units (B, n), each row for itself.
        activations: Z (B, S_z).
        targets: which units of each row, (B, m); None for all.

    Raises:
        DataError: Z are maps.
        XNNError: the module is not piecewise linear, or a target is none of its units.
    """
    if activations.ndim != 2:
        raise DataError(
            "effective weights are those of vectors (B, S_z), got activations of shape "
            f"{tuple(activations.shape)}; use excitation_backprop"
        )
    with torch.inference_mode(False), torch.enable_grad():
        z = activations.detach().clone().requires_grad_()
        values = units(z)
        check_piecewise_linear(values, z)
        if targets is not None:
            check_range(targets, values)
            values = values.gather(1, targets.clone())  # they may come from inference mode
        rows = [
            torch.autograd.grad(values[:, unit].sum(), z, retain_graph=True)[0]
            for unit in range(values.shape[1])
        ]
    weights = torch.stack(rows, 1)
    return weights, values.detach() - torch.einsum("bls,bs->bl", weights, z.detach())


@final
class _AboveLayer:
    """The two parts of a model that one of its layers separates."""

    def __init__(self, model: nn.Module, layer: str | nn.Module) -> None:
        self._model = model
        self._name, _ = resolve_layer(model, layer)

    def layer_output(self, images: Tensor) -> Tensor:
        """The layer's activations Z (B, S_z), in float32 or float64."""
        self._image = images[:1].detach()
        output = run_to_layer(self._model, self._name, images)
        z = as_activations(output, self._name, images)
        return z if z.dtype == torch.float64 else z.float()

    def units(self, z: Tensor) -> Tensor:
        """The model's outputs (B, k).

        Raises:
            XNNError: they depend on the image in another way than through the layer.
        """
        image = self._image.clone().requires_grad_()
        values = run_above_layer(self._model, self._name, image, z)
        if between(values, image):
            raise XNNError(
                f"the outputs read the image past layer {self._name!r}, so they are no function of "
                "its activations; use excitation_backprop, or a layer that everything passes"
            )
        return values
