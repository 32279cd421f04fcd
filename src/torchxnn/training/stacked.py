"""Several SRAEs of equal sizes whose layers are computed together, each as if it were alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.embeddings.srae import SRAE
from torchxnn.embeddings.subspace import Subspace


@final
class StackedSRAE:
    """The parameters of G SRAEs, each name with the fits as its first dimension.

    A layer of all of them is one batched matrix product. They share Z's scale and the subspace.

    Args:
        embeddings: of equal sizes, scale and subspace.
        device: where they are computed.

    Attributes:
        values: name of an SRAE's parameter -> (G, ...), leaves. Weights lie transposed, (G, inputs,
            outputs), so that a batched product gives contiguous gradients: fused optimisers take
            parameters and gradients in the order of memory, whatever their strides.
        scale: of Z.
    """

    def __init__(self, embeddings: Sequence[SRAE], device: torch.device) -> None:
        like = embeddings[0]
        self.nonnegative, self.settings = like.nonnegative, like.settings()
        self.depth = len(like.encoder)
        self.scale = like.scale.to(device)
        self.subspace: Subspace | None = None
        if like.subspace is not None:
            self.subspace = Subspace(like.subspace.mean.to(device), like.subspace.basis.to(device))
        states = [dict(embedding.named_parameters()) for embedding in embeddings]
        self.values: dict[str, Tensor] = {}
        for name in states[0]:
            stacked = torch.stack([_turned(state[name].detach()) for state in states])
            self.values[name] = stacked.to(device).requires_grad_()

    def __len__(self) -> int:
        return len(self.values["readout.bias"])

    def inputs(self, scaled: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch inputs"]:
        """What the first layers see of scaled Z."""
        return scaled if self.subspace is None else self.subspace.project(scaled)

    def encode(self, inputs: Float[Tensor, "fits batch inputs"]) -> Tensor:
        """X-features (G, B, n) of what the first layers see; see `SRAE.inputs`."""
        hidden = inputs
        for level in range(self.depth):
            hidden = torch.relu(self._linear(f"encoder.{level}", hidden))
        return hidden

    def decode_scaled(self, features: Float[Tensor, "fits batch features"]) -> Tensor:
        """Reconstructions (G, B, S_z) of scaled Z."""
        hidden = features
        for level in range(self.depth - 1):
            hidden = torch.relu(self._linear(f"decoder.{level}", hidden))
        output = self._linear(f"decoder.{self.depth - 1}", hidden)
        if self.subspace is not None:
            offset = self.values["offset"].unsqueeze(1)
            output = self.subspace.span(output) + offset
        return torch.relu(output) if self.nonnegative else output

    def readout(self, features: Float[Tensor, "fits batch features"]) -> Tensor:
        """Reproduced logits, (G, B, k)."""
        return self._linear("readout", features)

    def encoder_of(self, fit: int) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases of one fit's encoder on all dimensions of scaled Z."""
        weights, biases = (
            [_turned(self.values[f"encoder.{level}.{kind}"][fit]) for level in range(self.depth)]
            for kind in ("weight", "bias")
        )
        if self.subspace is not None:
            weights[0], biases[0] = self.subspace.unfold(weights[0], biases[0])
        return weights, biases

    @torch.no_grad()
    def take(self, fit: int, into: SRAE) -> None:
        """Copy one fit's parameters into an SRAE."""
        for name, parameter in into.named_parameters():
            parameter.copy_(_turned(self.values[name][fit]))

    @torch.no_grad()
    def put(self, fit: int, embedding: SRAE) -> None:
        """Copy an SRAE's parameters to the place of one fit."""
        for name, parameter in embedding.named_parameters():
            self.values[name][fit].copy_(_turned(parameter))

    def keep(self, fits: Sequence[int]) -> None:
        """Forget all fits but some."""
        index = torch.tensor(fits, device=self.scale.device)
        for name, value in self.values.items():
            self.values[name] = value.detach()[index].requires_grad_()

    def _linear(self, name: str, inputs: Tensor) -> Tensor:
        weight, bias = self.values[f"{name}.weight"], self.values[f"{name}.bias"]
        return torch.baddbmm(bias.unsqueeze(1), inputs, weight)


def _turned(parameter: Tensor) -> Tensor:
    """A weight transposed, a bias as it is."""
    return parameter.mT if parameter.ndim == 2 else parameter
