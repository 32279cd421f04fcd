"""Layers that give tokens: how one vector per image is read from them and put back.

A layer of a transformer gives T tokens of D dimensions per image, (B, T, D), or a grid of them with
the channels last, (B, h, w, C). An XNN embeds one of them, or their mean. Which one stands behind
the layer's name, `blocks.3[cls]`, so that two tokens of one layer are two places: in a saved XNN,
in an activation cache and in every message.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.errors import LayerError, near_ones

Token = int | Literal["cls", "mean"]
"""The class token (the first one), the mean over all tokens that the layer gives, or an index from
0; in a grid the index counts along its rows."""

_NAMED = re.compile(r"(?P<layer>.+)\[(?P<token>cls|mean|\d+)\]")
_MOST_EXTRA_TOKENS = 8
"""Class, distillation and register tokens that may stand beside those of the patches."""


def layer_with_token(layer: str, token: Token | str | None) -> str:
    """The name of a place: `layer` alone, or `layer[token]`.

    Raises:
        LayerError: the token is none of "cls", "mean" and the indices from 0, or the layer's name
            has one already.
    """
    if token is None:
        return layer
    if split_token(layer)[1] is not None:
        raise LayerError(f"layer {layer!r} names its token already; leave the other one out")
    named = f"{layer}[{token}]"
    if isinstance(token, bool) or split_token(named)[1] is None:
        near = near_ones(str(token), ("cls", "mean"), most=1)
        raise LayerError(f"token must be cls, mean or an index from 0, got {token!r}{near}")
    return named


def split_token(layer: str) -> tuple[str, Token | None]:
    """The dotted name and the token of a place; None without a token."""
    found = _NAMED.fullmatch(layer)
    if found is None:
        return layer, None
    token = found["token"]
    return found["layer"], int(token) if token.isdigit() else token  # type: ignore[return-value]


def main_tensor(output: Any) -> Tensor | None:
    """The tensor that a layer gives: what it returns, or the first entry of a tuple.

    Blocks and attention layers of transformers return such tuples: the tokens and what else they
    found. None if there is no such tensor.
    """
    first = output[0] if isinstance(output, tuple) and output else output
    return first if isinstance(first, Tensor) else None


def with_main_tensor(output: Any, tensor: Tensor) -> Any:
    """What a layer returned, with another `main_tensor`."""
    if not isinstance(output, tuple):
        return tensor
    rest = output[1:]
    return type(output)(tensor, *rest) if hasattr(output, "_fields") else (tensor, *rest)


def gives_tokens(shape: tuple[int, ...], images: Tensor) -> bool:
    """Whether a layer's output per image is tokens (T, D), or a grid (h, w, C) of them."""
    return len(shape) == 2 or channels_last(shape, images)


def channels_last(shape: tuple[int, ...], images: Tensor) -> bool:
    """Whether maps have the proportions of the images only if read as (h, w, C).

    Of volumes (B, C, D, H, W) and maps (d, h, w, C) height and width decide.
    """
    if images.ndim < 4 or len(shape) != images.ndim - 1:
        return False
    ratio = images.shape[-2] / images.shape[-1]
    fits = [abs(h - ratio * w) <= max(1.0, ratio) for h, w in (shape[-3:-1], shape[-2:])]
    return fits[0] and not fits[1]


def _fits_as_grid(shape: tuple[int, ...], images: Tensor) -> bool:
    """Whether (h, w, C) has the image's proportions, though (C, h, w) may have them as well."""
    if images.ndim < 4 or len(shape) != images.ndim - 1:
        return False
    return shape[-3] == round(shape[-2] * images.shape[-2] / images.shape[-1])


def missing_token(name: str, shape: tuple[int, ...]) -> LayerError:
    """The error for a layer that gives tokens, attached to without saying which."""
    *grid, dims = shape
    if len(grid) == 1:
        tokens, choice = f"{grid[0]} tokens of {dims} dimensions", "cls, mean or an index"
    else:
        size = " x ".join(map(str, grid))
        tokens = f"a grid of {size} tokens of {dims} dimensions, channels last"
        choice = "mean or an index"
    return LayerError(
        f"layer {name!r} gives {tokens}; choose --token {choice} (token= of XNN in Python)"
    )


def read_token(
    output: Tensor, layer: str, token: Token, images: Tensor
) -> Float[Tensor, "batch dims"]:
    """The token that an XNN embeds, (B, D); gradients flow.

    Args:
        output: (B, T, D), or a grid (B, h, w, C); where (B, C, h, w) is as likely, asking for a
            token decides.
        layer: the place, for messages.
        token: which token, or the mean over all of them: those of the patches and, where the layer
            has them, of the class and the registers.
        images: what the model was given.

    Raises:
        LayerError: the layer gives no tokens, they seem to be its last dimension, or there is no
            such token.
    """
    shape, name = tuple(output.shape[1:]), split_token(layer)[0]
    if not gives_tokens(shape, images) and not _fits_as_grid(shape, images):
        raise LayerError(
            f"layer {name!r} gives {shape} per image, no tokens (T, D) and no grid (h, w, C) of "
            f"them; leave the token {token!r} out, or choose a layer that gives tokens"
        )
    if len(shape) == 2 and _tokens_last(shape, images):
        raise LayerError(
            f"layer {name!r} gives {shape} for images {tuple(images.shape[1:])}: its tokens seem "
            "to come last; choose a layer that gives (tokens, dimensions)"
        )
    tokens = output.flatten(1, -2)
    if token == "mean":
        return tokens.mean(1)
    index = _index(token)
    if index >= tokens.shape[1]:
        raise LayerError(
            f"layer {name!r} gives {tokens.shape[1]} tokens, 0 to {tokens.shape[1] - 1}; there is "
            f"no token {index}"
        )
    return tokens[:, index]


def put_token(
    own: Tensor, token: Token, values: Float[Tensor, "samples dims"]
) -> Float[Tensor, "samples *tokens"]:
    """A layer's output with another vector in the place that `read_token` reads.

    Args:
        own: what the layer gave, (B, T, D) or (B, h, w, C), for as many images as there are
            values, or for one, whose other tokens then serve all.
        token: which token; instead of the mean every token is moved by the same vector.
        values: (N, D); gradients flow.
    """
    tokens = own.flatten(1, -2).expand(len(values), -1, -1)
    if token == "mean":
        changed = tokens + (values - tokens.mean(1)).unsqueeze(1)
    else:
        index = _index(token)
        parts = [tokens[:, :index], values.unsqueeze(1), tokens[:, index + 1 :]]
        changed = torch.cat(parts, 1)
    return changed.reshape(len(values), *own.shape[1:])


def _index(token: int | Literal["cls"]) -> int:
    return 0 if token == "cls" else token


def _tokens_last(shape: tuple[int, ...], images: Tensor) -> bool:
    """Whether (T, D) makes sense as patches of the images only if read as (D, T)."""
    if images.ndim != 4:
        return images.ndim == 2 and images.shape[1] == shape[1] != shape[0]
    ratio = images.shape[2] / images.shape[3]
    return _covers(shape[1], 1, ratio) and not _covers(shape[0], _MOST_EXTRA_TOKENS, ratio)


def _covers(count: int, extra: int, ratio: float) -> bool:
    """Whether so many tokens are a grid in the proportions of the image, and a few beside it."""
    for width in range(1, count + 1):
        height = max(1, round(ratio * width))
        if 0 <= count - height * width <= extra:
            return True
    return False
