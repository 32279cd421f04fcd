"""The way through a piecewise linear module in one step instead of layer by layer.

Between two kinks a network of linear layers and rectifiers is one linear map: at the activations z,
its units are E = J(z) z + b(z) exactly. Excitation backprop through two or three dense layers mixes
until a unit and its dual are nearly equal; through J(z) alone it asks once what speaks for the unit
and what against it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.errors import DataError


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

    Raises:
        DataError: `layer_output` gives maps.

    Example:
        >>> units = EffectiveUnits(layer_output, embedding.units(), images)
        >>> maps = ExcitationBackprop(units).attribute_many(images, range(5))  # (B, 5, H, W)
    """

    weights: Tensor
    offsets: Tensor

    def __init__(
        self, layer_output: Callable[[Tensor], Tensor], units: nn.Module, images: Tensor
    ) -> None:
        super().__init__()
        self._layer_output = layer_output
        with torch.no_grad():
            z = layer_output(images)
        weights, offsets = effective_weights(units, z)
        self.register_buffer("weights", weights)
        self.register_buffer("offsets", offsets)

    def forward(self, images: Tensor) -> Float[Tensor, "batch units"]:
        """The units (B, n)."""
        z = self._layer_output(images)
        return torch.baddbmm(self.offsets.unsqueeze(2), self.weights, z.unsqueeze(2)).squeeze(2)


def effective_weights(
    units: nn.Module, activations: Float[Tensor, "batch *dims"]
) -> tuple[Float[Tensor, "batch units dims"], Float[Tensor, "batch units"]]:
    """The linear map J (B, n, S_z) and offset b (B, n) that a module is at each row of Z.

    J z + b are the units of a piecewise linear module exactly; of any other module J is the
    gradient, and J z + b its tangent.

    Args:
        units: Z to units (B, n), each row for itself.
        activations: Z (B, S_z).

    Raises:
        DataError: Z are maps.
    """
    if activations.ndim != 2:
        raise DataError(
            "effective weights are those of vectors (B, S_z), got activations of shape "
            f"{tuple(activations.shape)}"
        )
    with torch.enable_grad():
        z = activations.detach().clone().requires_grad_()
        values = units(z)
        rows = [
            torch.autograd.grad(values[:, unit].sum(), z, retain_graph=True)[0]
            for unit in range(values.shape[1])
        ]
    weights = torch.stack(rows, 1)
    return weights, values.detach() - torch.einsum("bls,bs->bl", weights, activations)
