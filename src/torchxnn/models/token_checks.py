"""Whether the token of a layer is what it is taken for, from a few small passes of the model.

Shapes cannot tell everything: tokens may come first, (T, B, D), a network may have no class token,
or one that joins the others in a later block only.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from torchxnn.errors import LayerError
from torchxnn.models.hooks import preserve_state
from torchxnn.models.layers import as_activations, resolve_layer, run_to_layer, unwrap
from torchxnn.models.tokens import split_token

_CLASS_TOKEN = re.compile(r"(cls|class)_?(token|emb)")
"""Names that libraries give to the parameter that is the class token before the first block."""

_ALONE = 0.05
"""How much an image's token may differ alone and in a batch, as a share of its largest entry; more
than half precision and the order of sums make of it."""


def check_token(model: nn.Module, layer: str | nn.Module, images: Tensor) -> None:
    """Refuse a token that is not one vector per image; layers without tokens pass.

    Args:
        model: the explained model; left as it was.
        layer: the place, with its token.
        images: a batch of what the model takes; the first one is looked at.

    Raises:
        LayerError: the token of one image changes with another image of the batch, it is the same
            for every image, or it is called the class token and is none.
    """
    name, token = split_token(resolve_layer(model, layer)[0])
    if token is None:
        return
    _check_rows(model, f"{name}[{token}]", images[:1])
    if token == "cls":
        _check_class_token(model, name, images[:1])


def _check_rows(model: nn.Module, place: str, image: Tensor) -> None:
    other = image.flip(-1) * 0.5 + 0.1 if image.is_floating_point() else image.flip(-1)
    pair = torch.cat([image, other.to(image.dtype)])
    with torch.no_grad():
        together, alone = (
            as_activations(run_to_layer(model, place, images), place, images).float()
            for images in (pair, pair[1:])
        )
    if float((alone[0] - together[1]).abs().max()) > _ALONE * float(together.abs().max()):
        raise LayerError(
            f"at layer {place!r} an image gets another vector when another image is in its batch; "
            "choose a layer that keeps the images apart"
        )
    if not torch.equal(*pair) and torch.equal(*together):
        raise LayerError(
            f"layer {place!r} gives the same vector for every image; choose a later layer, or "
            "another token"
        )


def _check_class_token(model: nn.Module, name: str, image: Tensor) -> None:
    inner = unwrap(model)
    named = [
        parameter
        for path, parameter in inner.named_parameters()
        if _CLASS_TOKEN.search(path.rsplit(".", 1)[-1])
    ]
    if not named:
        raise LayerError(
            f"{type(inner).__name__} has no class token (no parameter such as cls_token), so "
            f"layer {name!r} has none to take; choose --token mean or an index"
        )
    with preserve_state(inner), torch.inference_mode(False), torch.enable_grad():
        for parameter in named:
            parameter.requires_grad_()
        place, image = f"{name}[0]", image.clone()
        first = as_activations(run_to_layer(model, place, image), place, image).float()
        if not first.requires_grad:  # the model computes without gradients: nothing to be seen
            return
        direction = torch.linspace(-1, 1, first.shape[1], device=first.device)
        reached = torch.autograd.grad((first * direction).sum(), named, allow_unused=True)
    if not any(gradient is not None and bool(gradient.any()) for gradient in reached):
        raise LayerError(
            f"the class token of the {type(inner).__name__} is not among the tokens of layer "
            f"{name!r} yet; choose a later layer, or --token mean or an index"
        )
