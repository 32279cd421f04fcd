"""Which images are positives of which target, how they are weighted, and which are held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.data.activations import Activations
from torchxnn.errors import DataError


def find_positives(
    data: Activations, targets: Sequence[int]
) -> tuple[Bool[Tensor, "samples targets"], Literal["label", "prediction"]]:
    """Which images are positives of which target, by label if there are labels, else by arg max.

    With a single output and no labels, images with a positive logit are positives.

    Raises:
        DataError: a target out of the range of the model's outputs.
    """
    outputs = data.logits.shape[1]
    for target in targets:
        if not 0 <= target < outputs:
            raise DataError(
                f"target {target} is out of range: the model has {outputs} output(s), "
                f"so 0 to {outputs - 1}"
            )
    if data.labels is not None:
        single = outputs == 1
        return torch.stack([data.labels == (1 if single else t) for t in targets], 1), "label"
    if outputs == 1:
        return data.logits > 0, "prediction"
    predicted = data.logits.argmax(1)
    return torch.stack([predicted == t for t in targets], 1), "prediction"


def split_validation(
    positives: Bool[Tensor, "samples targets"], share: float, seed: int
) -> Bool[Tensor, " samples"]:
    """Mask of a random held-out part, with the same share of each kind of positive."""
    return split_kinds(positives.unique(dim=0, return_inverse=True)[1], share, seed)


def split_kinds(
    kinds: Int64[Tensor, " samples"], share: float, seed: int
) -> Bool[Tensor, " samples"]:
    """Mask of a random held-out part, with the same share of each kind of sample."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.argsort(kinds, stable=True)
    held_out = torch.zeros(len(kinds), dtype=torch.bool)
    for members in order.split(kinds.unique(return_counts=True)[1].tolist()):
        count = max(1, round(share * len(members))) if len(members) > 1 else 0
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held_out


def sample_weights(
    data: Activations, targets: Sequence[int], positive_share: float | None
) -> Float[Tensor, " samples"]:
    """Weights (M,) of sum 1 with which samples enter a fit: see `TrainConfig.positive_share`."""
    positives = find_positives(data, targets)[0].any(1)
    weights = torch.ones(len(data), dtype=data.logits.dtype)
    share, count = positive_share, int(positives.sum())
    if share is not None and 0 < count < len(data):
        weights[positives] = share / count
        weights[~positives] = (1 - share) / (len(data) - count)
    return weights / weights.sum()
