"""Run a model with another output of one of its layers: what would the rest of it say?"""

from __future__ import annotations

import threading
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.errors import DataError, LayerError
from torchxnn.models.layers import check_images, preserve_state, resolve_layer, unwrap
from torchxnn.models.outputs import as_logits


def run_with_output(
    model: nn.Module,
    layer: str | nn.Module,
    images: Tensor,
    output: Float[Tensor, "batch *dims"],
) -> Float[Tensor, "batch outputs"]:
    """The logits if a layer gave something else for these images.

    The part below the layer runs as well, since a model may use its other results; the layer's own
    output is replaced by a copy, in its shape and precision. The model is left as it was.

    Args:
        model: the explained model.
        layer: dotted name or submodule; it must run once.
        images: (B, C, H, W) or whatever the model takes.
        output: what the layer is to give, with as many numbers as it gives, such as
            `embedding.decode(E)`.

    Raises:
        LayerError: the layer does not exist, or runs another number of times than once.
        DataError: a wrong number of values, or a model that returns no logits.

    Example:
        >>> logits = run_with_output(model, "classifier.1", images, embedding.decode(features))
    """
    name, module = resolve_layer(model, layer)
    check_images(model, images)
    inner, thread, runs = unwrap(model), threading.get_ident(), 0

    def replace(_: nn.Module, __: Any, own: Any) -> Any:
        nonlocal runs
        if threading.get_ident() != thread:
            return None
        runs += 1
        if not isinstance(own, Tensor) or own.numel() != output.numel():
            shape = tuple(own.shape) if isinstance(own, Tensor) else type(own).__name__
            raise DataError(
                f"layer {name!r} gives {shape}, which {tuple(output.shape)} cannot replace"
            )
        return output.detach().clone().reshape(own.shape).to(own)

    with torch.no_grad(), preserve_state(inner):
        handle = module.register_forward_hook(replace)
        try:
            logits = inner(images)
        finally:
            handle.remove()
    if runs != 1:
        raise LayerError(
            f"layer {name!r} runs {runs} times in one forward pass, so its output cannot be "
            "replaced; choose a layer that runs once (`xnn layers MODEL` shows the calls)"
        )
    return as_logits(logits)
