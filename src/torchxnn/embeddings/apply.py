"""Apply an embedding to a whole recorded set, in batches where x-features are maps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.exact import exact
from torchxnn.embeddings.linear import WIDE

MAPS_AT_ONCE = 32

VALUES_AT_ONCE = 2**22
"""Numbers of wide vectors that an embedding sees at once."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """What an embedding makes of a set of activations, on the CPU.

    Attributes:
        features: E, (M, n); spatial means where x-features are maps.
        contributions: (M, k, n), anchored (`Embedding.contributions`); with the intercept of the
            embedding they add up to `reproduced`.
        reproduced: (M, k) logits.
    """

    features: Float[Tensor, "samples features"]
    contributions: Float[Tensor, "samples targets features"]
    reproduced: Float[Tensor, "samples targets"]

    @classmethod
    def cat(cls, parts: list[Embedded]) -> Embedded:
        """Several sets as one."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def batches(activations: Float[Tensor, "samples ..."]) -> Sequence[Float[Tensor, "batch ..."]]:
    """Vectors at once, but for wide ones; these and maps a few at a time, in bounded memory."""
    if activations.ndim > 2:
        return activations.split(MAPS_AT_ONCE)
    dims = activations.shape[1]
    return activations.split(max(1, VALUES_AT_ONCE // dims)) if dims > WIDE else (activations,)


@torch.no_grad()
def apply_embedding(embedding: Embedding, activations: Float[Tensor, "samples ..."]) -> Embedded:
    """X-features, contributions and reproduced logits of recorded activations; see `batches`.

    Z, (M, S_z) or (M, C, h, w) in any precision, is moved to the device of the embedding.
    """
    reference = embedding.readout.weight
    parts = []
    for z in batches(activations):
        features = embedding.encode(z.to(reference.device, reference.dtype))
        parts.append(
            Embedded(
                embedding.summarise(features).cpu(),
                embedding.contributions(features).cpu(),
                embedding.reproduce(features).cpu(),
            )
        )
    return Embedded.cat(parts) if len(parts) > 1 else parts[0]


@torch.no_grad()
def anchor(
    embedding: Embedding,
    activations: Float[Tensor, "samples ..."],
    positives: Bool[Tensor, "samples targets"],
) -> None:
    """Count the contributions of an embedding from what a typical other image gets.

    For each target the mean over the images that are not its positives; see `Embedding.typical`.
    Where a target has none, nothing is known of other images, and the embedding is not anchored.

    Args:
        embedding: with its readout; its `typical` is set.
        activations: Z of the training images, (M, S_z) or (M, C, h, w), in any precision.
        positives: (M, k).
    """
    reference, parts = embedding.readout.weight, batches(activations)
    read = (
        embedding.readout_inputs(embedding.encode(z.to(reference.device, reference.dtype)))
        for z in parts
    )
    anchor_readout(embedding, zip(read, positives.split([len(z) for z in parts]), strict=True))


@torch.no_grad()
def anchor_readout(embedding: Embedding, parts: Iterable[tuple[Tensor, Tensor]]) -> None:
    """The same from what the readout reads (B, inputs) and positives (B, k), part by part."""
    embedding.forget_typical()
    total = torch.zeros_like(exact(embedding.typical))
    count = total.new_zeros(len(total), 1)
    for inputs, positives in parts:
        others = (~positives).mT.to(total.device).to(total.dtype)
        total += others @ exact(inputs)
        count += others.sum(1, keepdim=True)
    if bool((count > 0).all()):
        embedding.typical.copy_(total / count)
        embedding.anchored.fill_(True)
