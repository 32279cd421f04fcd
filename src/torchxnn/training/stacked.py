"""Several autoencoders of equal sizes whose layers are computed together, each as if alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchxnn.embeddings.autoencoder import Autoencoder
from torchxnn.embeddings.linear import products
from torchxnn.embeddings.subspace import Subspace


@final
class Stack:
    """The parameters of G SRAEs or ConvSRAEs, each name with the fits as its first dimension.

    A layer of all of them is one batched matrix product: 1x1 convolutions are fully connected
    layers on positions. They are of equal kind and sizes, and share Z's scale and the subspace.

    A *sample* is what the layers see at once: an image's vector Z, or one position of its maps. A
    batch of B images has B P samples, with P = 1 for vectors.

    Attributes:
        values: name of a parameter -> (G, ...), leaves. Weights lie transposed, (G, inputs,
            outputs), so that a batched product gives contiguous gradients: fused optimisers take
            parameters and gradients in the order of memory, whatever their strides.
        scale: of Z.
        like: the first embedding, for what all of them have in common.
        positions: P.
    """

    def __init__(self, embeddings: Sequence[Autoencoder], device: torch.device) -> None:
        like = embeddings[0]
        self.nonnegative, self.depth = like.nonnegative, len(like.encoder)
        self.like, self.positions = like, math.prod(like.size)
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

    def samples(self, z: Float[Tensor, "batch dims *map"]) -> Float[Tensor, "samples dims"]:
        """Z as samples in the precision of the fits, (B P, S_z): image by image."""
        rows = z.flatten(2).mT.flatten(0, 1) if self.like.has_maps else z
        return rows.to(self.scale)

    def inputs(self, scaled: Float[Tensor, "*batch dims"]) -> Float[Tensor, "*batch inputs"]:
        """What the first layers see of scaled Z."""
        return scaled if self.subspace is None else self.subspace.project(scaled)

    def encode(self, inputs: Float[Tensor, "fits samples inputs"]) -> Tensor:
        """X-features (G, B P, n) of what the first layers see; see `Autoencoder.inputs`."""
        hidden = inputs
        for level in range(self.depth):
            hidden = torch.relu(self._linear(f"encoder.{level}", hidden))
        return hidden

    def decode_scaled(self, features: Float[Tensor, "fits samples features"]) -> Tensor:
        """Reconstructions (G, B P, S_z) of scaled Z."""
        hidden = features
        for level in range(self.depth - 1):
            hidden = torch.relu(self._linear(f"decoder.{level}", hidden))
        output = self._linear(f"decoder.{self.depth - 1}", hidden)
        if self.subspace is not None:
            offset = self.values["offset"].unsqueeze(1)
            output = self.subspace.span(output).add_(offset)
        return output.relu_() if self.nonnegative else output

    def readout(self, features: Float[Tensor, "fits samples features"]) -> Tensor:
        """Reproduced logits, (G, B, k); see `Embedding.reproduce`."""
        if self.like.has_maps:
            maps = features.unflatten(1, (-1, *self.like.size)).permute(0, 1, 4, 2, 3)
            read = self.like.readout_inputs(maps.flatten(0, 1))
            features = read.unflatten(0, maps.shape[:2])
        return self._linear("readout", features)

    def summarise(self, features: Float[Tensor, "fits samples features"]) -> Tensor:
        """One number per x-feature and image, (G, B, n); see `Embedding.summarise`."""
        if not self.like.has_maps:
            return features
        return features.unflatten(1, (-1, self.positions)).mean(2)

    def at(
        self, samples: Float[Tensor, "fits samples values"], places: Int64[Tensor, "fits places"]
    ) -> Float[Tensor, "fits chosen values"]:
        """The samples at some positions of every image alone, each fit's own."""
        by_image = samples.unflatten(1, (-1, self.positions))
        chosen = [own[:, place] for own, place in zip(by_image, places, strict=True)]
        return torch.stack(chosen).flatten(1, 2)

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
    def take(self, fit: int, into: Autoencoder, values: Mapping[str, Tensor] | None = None) -> None:
        """Copy one fit's parameters, now or as some kept `values`, into an embedding of its own."""
        values = self.values if values is None else values
        for name, parameter in into.named_parameters():
            parameter.copy_(_turned(values[name][fit]).view_as(parameter))

    @torch.no_grad()
    def put(self, fit: int, embedding: Autoencoder) -> None:
        """Copy an embedding's parameters to the place of one fit."""
        for name, parameter in embedding.named_parameters():
            self.values[name][fit].copy_(_turned(parameter))

    def _linear(self, name: str, inputs: Tensor) -> Tensor:
        weight, bias = self.values[f"{name}.weight"], self.values[f"{name}.bias"]
        return products(inputs, weight, bias.unsqueeze(1))


def _turned(parameter: Tensor) -> Tensor:
    """A weight transposed, also that of a 1x1 convolution; a bias as it is."""
    return parameter.flatten(1).mT if parameter.ndim > 1 else parameter
