"""The layers of a model as they run on an example, and where an XNN can be attached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torchxnn.models.compiled import named_modules
from torchxnn.models.hooks import run_watched, takes_shape, watch_output
from torchxnn.models.layers import flat_shape, unwrap
from torchxnn.models.tokens import gives_tokens, main_tensor


@dataclass(frozen=True)
class LayerInfo:
    """One layer as it ran on an example input.

    Attributes:
        name: dotted name, as `XNN(model, layer=name)` takes it.
        kind: class name of the module.
        shape: output shape per image; None if the output is not one tensor with a row per image.
        calls: how often the layer ran in one forward pass; 0 if it did not.
        tokens: whether the output is tokens (T, D), or a grid of them (h, w, C).
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    calls: int
    tokens: bool = False

    @property
    def attachable(self) -> bool:
        """Whether an XNN can be attached: it runs once and gives one vector or maps per image."""
        shape = self.shape or ()
        whole = len(flat_shape(shape)) == 1 or len(shape) == 3
        return self.calls == 1 and whole and not self.tokens

    @property
    def takes_token(self) -> bool:
        """Whether an XNN can be attached to one of its tokens, or to their mean."""
        return self.calls == 1 and self.tokens


def list_layers(model: nn.Module, images: Tensor) -> list[LayerInfo]:
    """All named layers in registration order with output shapes, from one forward pass.

    The contents of `images`, an example batch, do not matter.
    """
    inner = unwrap(model)
    layers = {name: module for name, module in named_modules(inner).items() if name}
    calls: dict[str, list[tuple[tuple[int, ...] | None, bool]]] = {name: [] for name in layers}

    def note(name: str) -> Callable[[Any], None]:
        return lambda output: calls[name].append(_shape_and_kind(output, images))

    with torch.no_grad(), takes_shape(images):
        run_watched(inner, images, [watch_output(m, note(name)) for name, m in layers.items()])
    found = {name: ran[0] if ran else (None, False) for name, ran in calls.items()}
    return [
        LayerInfo(name, type(layers[name]).__name__, shape, len(calls[name]), tokens)
        for name, (shape, tokens) in found.items()
    ]


def _shape_and_kind(output: Any, images: Tensor) -> tuple[tuple[int, ...] | None, bool]:
    """The shape per image of what a layer gave, and whether it is tokens; see `LayerInfo`."""
    tensor = main_tensor(output)
    if tensor is None or tensor.ndim < 2 or tensor.shape[0] != images.shape[0]:
        return None, False
    shape = tuple(tensor.shape[1:])
    tokens = gives_tokens(shape, images) and len(flat_shape(shape)) > 1
    return (shape if tokens or isinstance(output, Tensor) else None), tokens
