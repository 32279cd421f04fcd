"""The contract of an embedding: activations Z to x-features E, back to Z, and to the logits."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Embedding(nn.Module, ABC):
    """Embeds activations into x-features that linearly reproduce the logits.

    Subclasses define `encode` and `decode`, and keep the arguments of their constructor under the
    same names, for `settings`, and call `forget_typical` once there is a readout. The readout is
    always linear, so that a contribution is a product :math:`v_i E_i` and their sum plus a constant
    is the reproduced logit (paper section 2.1). A constant can be moved between an x-feature and
    the bias without any change of the logit; so contributions are *anchored*, counted from what a
    typical other image gets, and do not depend on it. What stands here is for x-features that are
    numbers; where they are maps, `ConvSRAE` says how they are read.

    Attributes:
        kind: name of the class in `kinds.EMBEDDINGS` and in saved files.
        dims: S_z, dimensions of Z, or C, the channels of maps.
        size: (h, w) of Z if it is maps, () if it is vectors.
        n_features: number of x-features n.
        n_targets: number of reproduced logits k.
        readout: linear map to the k logits with one row of weights per target; it also says on
            which device and in which precision the embedding computes.
        typical: mean of what `readout` reads over the training images that are not positives of
            each target, of the shape of its weight; 0 before `anchor`.
        anchored: whether `typical` is such a mean, (); not in files of earlier versions.
    """

    kind: ClassVar[str]
    dims: int
    size: tuple[int, ...] = ()
    n_features: int
    n_targets: int
    readout: nn.Linear
    typical: Tensor
    anchored: Tensor

    @property
    def activation_shape(self) -> tuple[int, ...]:
        """Shape of Z of one image, (S_z,) or (C, h, w)."""
        return (self.dims, *self.size)

    @property
    def has_maps(self) -> bool:
        """Whether an x-feature is a map of the positions of Z rather than one number."""
        return bool(self.size)

    @property
    def readout_weight(self) -> Float[Tensor, "targets features"]:
        """One weight v per target and x-feature, (k, n); of maps, its mean over the positions."""
        return self.readout.weight

    @property
    def typical_contributions(self) -> Float[Tensor, "targets features"]:
        """What each x-feature contributes to a typical other image, (k, n); 0 if not anchored."""
        return self.by_feature(self.readout.weight * self.typical)

    @property
    def intercept(self) -> Float[Tensor, " targets"]:
        """The reproduced logits of a typical other image (k,); the bias if not anchored."""
        return self.readout.bias + self.typical_contributions.sum(1)

    def forget_typical(self) -> None:
        """Count contributions from 0, as long as nobody knows what a typical other image gets."""
        weight = self.readout.weight
        self.register_buffer("typical", torch.zeros_like(weight))
        self.register_buffer("anchored", torch.zeros((), dtype=torch.bool, device=weight.device))

    def settings(self) -> dict[str, Any]:
        """What the class needs to build an equal embedding, as plain values.

        These are the arguments of its constructor, but for those that can be given by name alone,
        which only a fit needs.
        """
        arguments = inspect.signature(type(self)).parameters.values()
        names = [each.name for each in arguments if each.kind is not each.KEYWORD_ONLY]
        values = {name: getattr(self, name) for name in names}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

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

    def readout_inputs(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch inputs"]:
        """What `readout` is applied to: the x-features themselves."""
        return features

    def by_feature(
        self, summands: Float[Tensor, "*batch targets inputs"]
    ) -> Float[Tensor, "*batch targets features"]:
        """The sum of what `readout` adds up, for each x-feature: there is one summand of each."""
        return summands

    def contributions(
        self, features: Float[Tensor, "batch features *map"], anchored: bool = True
    ) -> Float[Tensor, "batch targets features"]:
        r""":math:`v_i(E_i-\bar E_i)` per target, counted from :math:`\bar E` of a typical image.

        With `intercept` their sum is the reproduced logit. Not anchored, the paper's
        :math:`v_i E_i`, which add up to it with the bias of the readout.
        """
        inputs = self.readout_inputs(features).unsqueeze(1)
        if anchored:
            inputs = inputs - self.typical
        return self.by_feature(inputs * self.readout.weight)

    def reproduce(
        self, features: Float[Tensor, "batch features *map"]
    ) -> Float[Tensor, "batch targets"]:
        """Reproduced logits, (B, k): the contributions and the intercept."""
        return self.readout(self.readout_inputs(features))

    def salience(
        self, features: Float[Tensor, "batch features"]
    ) -> Float[Tensor, "batch features"]:
        """The units whose heatmaps are drawn, one per x-feature: the x-features themselves."""
        return features

    def units(self) -> nn.Module:
        """Z to one unit per x-feature (B, n), by the operations that a heatmap goes through.

        The module shares its parameters with the embedding. Put behind the explained model, it is
        what excitation backprop explains.
        """
        return Salience(self)


class Salience(nn.Module):
    """Z to the salience of every x-feature of an embedding, (B, n)."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, activations: Tensor) -> Float[Tensor, "batch features"]:
        """See `Embedding.salience`."""
        return self.embedding.salience(self.embedding.encode(activations))
