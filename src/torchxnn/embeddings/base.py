"""The contract of an embedding: activations Z to x-features E, back to Z, and to the logits."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Embedding(nn.Module, ABC):
    """Embeds activations into x-features that linearly reproduce the logits.

    Subclasses define `encode` and `decode`; the readout is always linear with an intercept, so that
    a contribution is a product :math:`v_i E_i` and their sum plus the intercept is the reproduced
    logit (paper section 2.1). An embedding whose x-features are maps (`ConvSRAE`) says with
    `summarise`, `contributions` and `reproduce` how they are read.

    Attributes:
        n_features: number of x-features n.
        readout: `nn.Linear(n, k)`, one row of weights v per target.
    """

    n_features: int
    readout: nn.Linear

    @abstractmethod
    def encode(self, activations: Tensor) -> Tensor:
        """X-features E of activations Z."""

    @abstractmethod
    def decode(self, features: Tensor) -> Tensor:
        """Reconstruction of Z from E."""

    def forward(self, activations: Tensor) -> Tensor:
        """The same as `encode`."""
        return self.encode(activations)

    def summarise(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch features"]:
        """One number per x-feature: itself."""
        return features

    def contributions(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch targets features"]:
        r""":math:`v_i E_i` per target; with the intercept their sum is the reproduced logit."""
        return features.unsqueeze(1) * self.readout.weight

    def reproduce(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch targets"]:
        """Reproduced logits, (B, k)."""
        return self.readout(features)
