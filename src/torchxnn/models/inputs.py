"""What a network may be given: images, rows of a table, or token ids; and how each is checked."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from torchxnn.errors import DataError
from torchxnn.models.layers import check_images, unwrap

Kind = Literal["image", "row", "text"]


def kind_of(inputs: Tensor) -> Kind:
    """What a batch holds, by type and shape.

    Integers (int32 or int64) of shape (B, T) are token ids, floating point numbers of shape (B, D)
    are rows; everything else counts as images (or signals) with channels.
    """
    if inputs.ndim == 2 and inputs.dtype in (torch.int64, torch.int32):
        return "text"
    return "row" if inputs.ndim == 2 and inputs.is_floating_point() else "image"


def check_inputs(model: nn.Module, inputs: Tensor) -> None:
    """Refuse a batch that the model cannot be run on in a meaningful way.

    Raises:
        DataError: images or rows that are not floating point, an empty batch, ids that are negative
            or beyond the model's largest embedding, or another device than the model's.
        NonFiniteError: NaN or infinity among pixels or values.
    """
    if kind_of(inputs) == "text":
        _check_tokens(model, inputs)
    else:
        check_images(model, inputs)


def _check_tokens(model: nn.Module, ids: Tensor) -> None:
    if ids.numel() == 0:
        raise DataError(f"expected a non-empty batch of token ids (B, T), got {tuple(ids.shape)}")
    reference = next(iter(model.parameters()), None)
    if reference is not None and reference.device != ids.device:
        raise DataError(
            f"the token ids are on {ids.device} and the model on {reference.device}; "
            f"move one: ids.to('{reference.device}')"
        )
    sizes = [m.num_embeddings for m in unwrap(model).modules() if isinstance(m, nn.Embedding)]
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or (sizes and high >= max(sizes)):
        wrong = low if low < 0 else high
        known = f", and the model embeds ids 0 to {max(sizes) - 1}" if sizes else ""
        raise DataError(f"there is a token id {wrong}{known}; check the vocabulary")
