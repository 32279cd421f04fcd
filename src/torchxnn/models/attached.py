"""A layer of a trained model, and the two forward passes that are made to look at its output."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.errors import NonFiniteError
from torchxnn.models.inputs import check_inputs
from torchxnn.models.layers import (
    as_activations,
    record_layer,
    resolve_layer,
    run_past_layers,
    run_to_layer,
)
from torchxnn.models.outputs import as_logits


class AttachedLayer:
    """Whatever reads the output Z of one layer of a model reads it here, with the same checks.

    The model is held as it is, outside any module registry, and left as it was by every pass.

    Args:
        model: the trained model; takes images (or token ids, or rows), returns logits (B, K).
        layer: dotted name of the layer, or the submodule itself.

    Attributes:
        model: as given.
        name: the layer's dotted name.

    Raises:
        LayerError: no such layer; the message lists the nearest names.
    """

    def __init__(self, model: nn.Module, layer: str | nn.Module) -> None:
        self.model = model
        self.name, self._module = resolve_layer(model, layer)
        self._runs_once = False

    @property
    def device(self) -> torch.device:
        """Where the model lies; what it is given must lie there too."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def run(
        self, images: Tensor
    ) -> tuple[Float[Tensor, "batch dims *map"], Float[Tensor, "batch outputs"]]:
        """The layer's output Z and the logits, from one full forward pass without gradients.

        Raises:
            DataError: an input that the model cannot take, on another device, or no logits.
            NonFiniteError: NaN or infinity in the input, in Z or in the logits.
            LayerError: the layer did not run exactly once, or gives neither vectors nor maps.
        """
        check_inputs(self.model, images)
        with torch.no_grad():
            return self.checked(*self.run_past(images))

    def run_past(self, images: Tensor) -> tuple[Float[Tensor, "batch dims *map"], Any]:
        """Z and whatever the model returns, from a full pass; gradients flow, nothing is checked.

        Raises:
            LayerError: as `run`.
        """
        (output,), returned = run_past_layers(self.model, [self._module], images)
        self._runs_once = True
        return as_activations(output, self.name, images), returned

    def checked(
        self, z: Float[Tensor, "batch dims *map"], returned: Any
    ) -> tuple[Float[Tensor, "batch dims *map"], Float[Tensor, "batch outputs"]]:
        """Z and the logits of `run_past`, if they are numbers.

        Raises:
            DataError: the model did not return logits.
            NonFiniteError: NaN or infinity in Z or in the logits.
        """
        logits = as_logits(returned)
        _check_finite(z, f"activations of layer {self.name!r}")
        _check_finite(logits, "the model's outputs")
        return z, logits

    def run_to(self, images: Tensor) -> Float[Tensor, "batch dims *map"]:
        """The layer's output Z alone; the pass stops there, and gradients flow if enabled.

        Raises:
            DataError: as `run`.
            NonFiniteError: NaN or infinity in the input.
            LayerError: as `run`.
        """
        check_inputs(self.model, images)
        if not self._runs_once:  # a pass that stops at the layer cannot see that it runs again
            record_layer(self.model, self._module, images[:1])
            self._runs_once = True
        return as_activations(run_to_layer(self.model, self._module, images), self.name, images)


def _check_finite(values: Tensor, what: str) -> None:
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise NonFiniteError(
            f"{what} contain {bad} NaN or infinite values; check the weights and the preprocessing"
        )
