"""Whether what a layer gives reaches the outputs of a model at all."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from torchxnn.errors import XNNWarning
from torchxnn.models.layers import as_activations, record_layers, run_with_output

FEW = 2
"""Images that suffice to see it."""

_ROUNDING = 1e-6
"""The same sum in another order, as a share of the largest output."""


def check_reaches(model: nn.Module, layer: str, images: Tensor) -> None:
    """Warn of a layer beside the path to the outputs: x-features of it go along with them at most.

    What it gives is replaced by noise, and the outputs must change. With a token that token alone
    is replaced, such as the class token after the last block of a network that takes the mean of
    its patches.

    Args:
        model: the explained model; left as it was.
        layer: the place, with its token.
        images: a few of what the model takes; token ids are not looked at.
    """
    if not images.is_floating_point():
        return
    (output,), logits = record_layers(model, [layer], images)
    own = as_activations(output, layer, images).float()
    noise = torch.randn(own.shape, generator=torch.Generator().manual_seed(0)).to(own.device)
    changed = run_with_output(model, layer, images, own + noise * (1 + own.abs().amax()))
    if float((changed - logits).abs().max()) <= _ROUNDING * float(logits.abs().max()):
        warnings.warn(
            f"layer {layer!r} does not reach the model's outputs, which stay the same whatever it "
            "gives: its x-features may go along with them and are no reason for them; choose a "
            "layer, or a token, on the way to them",
            XNNWarning,
            stacklevel=2,
        )
