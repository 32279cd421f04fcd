"""A layer of a trained model and an embedding on it: the forward passes and what they say.

`AttachedLayer` makes the passes, `XNNOutput` holds every number that rests on one, and `FittedXNN`
is what a function about an XNN, such as `evaluate` or `explain_image`, asks of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.models.inputs import check_inputs
from torchxnn.models.layers import (
    as_activations,
    record_layers,
    resolve_layer,
    run_past_layers,
    run_to_layer,
)
from torchxnn.models.meaning import CLASSES, Meaning
from torchxnn.models.outputs import as_logits, predicted_classes
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.refused import check_explainable
from torchxnn.models.tokens import Token, layer_with_token, split_token


class AttachedLayer:
    """Whatever reads the output Z of one layer of a model reads it here, with the same checks.

    The model is held as it is, outside any module registry, and left as it was by every pass.

    Args:
        model: the trained model; takes images (or token ids, or rows), returns logits (B, K).
        layer: dotted name of the layer, or the submodule itself.
        token: of a layer that gives tokens, the one that is Z, or "mean"; see `models.tokens`. It
            may also stand in the name, `blocks.3[cls]`.

    Attributes:
        model: as given.
        name: the layer's dotted name, with its token: what every function that takes a layer of
            this model takes.

    Raises:
        ModelError: a kind of model that cannot be explained; see `check_explainable`.
        LayerError: no such layer; the message lists the nearest names.
    """

    def __init__(
        self, model: nn.Module, layer: str | nn.Module, token: Token | None = None
    ) -> None:
        check_explainable(model)
        self.model = model
        self.name = layer_with_token(resolve_layer(model, layer)[0], token)
        self._runs_once = False

    @property
    def token(self) -> Token | None:
        """The token of the layer that is Z, or "mean"; None of a layer without tokens."""
        return split_token(self.name)[1]

    @property
    def device(self) -> torch.device:
        """Where the model lies; what it is given must lie there too."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    def run(
        self, images: Tensor
    ) -> tuple[Float[Tensor, "batch dims *map"], Float[Tensor, "batch outputs"]]:
        """The layer's output Z and the logits, from one full forward pass without gradients.

        Raises:
            DataError: an input that the model cannot take, on another device, or no logits.
            NonFiniteError: NaN or infinity in the input, in Z or in the logits.
            LayerError: the layer did not run exactly once, or gives neither vectors nor maps.
        """
        check_inputs(self.model, images)
        with torch.no_grad():
            return self.checked(*self.run_past(images))

    def run_past(self, images: Tensor) -> tuple[Float[Tensor, "batch dims *map"], Any]:
        """Z and whatever the model returns, from a full pass; gradients flow, nothing is checked.

        Raises:
            LayerError: as `run`.
        """
        (output,), returned = run_past_layers(self.model, [self.name], images)
        self._runs_once = True
        return as_activations(output, self.name, images), returned

    def checked(
        self, z: Float[Tensor, "batch dims *map"], returned: Any
    ) -> tuple[Float[Tensor, "batch dims *map"], Float[Tensor, "batch outputs"]]:
        """Z and the logits of `run_past`, if they are numbers.

        Raises:
            DataError: the model did not return logits.
            NonFiniteError: NaN or infinity in Z or in the logits.
        """
        logits = as_logits(returned)
        _check_finite(z, f"activations of layer {self.name!r}")
        _check_finite(logits, "the model's outputs")
        return z, logits

    def run_to(self, images: Tensor) -> Float[Tensor, "batch dims *map"]:
        """The layer's output Z alone; the pass stops there, and gradients flow if enabled.

        Raises:
            DataError: as `run`.
            NonFiniteError: NaN or infinity in the input.
            LayerError: as `run`.
        """
        check_inputs(self.model, images)
        if not self._runs_once:  # a pass that stops at the layer cannot see that it runs again
            record_layers(self.model, [self.name], images[:1])
            self._runs_once = True
        return as_activations(run_to_layer(self.model, self.name, images), self.name, images)


@dataclass(frozen=True, eq=False)
class XNNOutput:
    r"""The numbers of one forward pass, for B images, K outputs, k targets and n x-features.

    For each target :math:`\hat y_k = \sum_i c_{ki} + b_k`, with contributions :math:`c_{ki}` that
    count from what a typical other image gets, :math:`b_k` (`Embedding.contributions`).

    Attributes:
        logits: (B, K), the model's own, before the softmax.
        z: the layer's output, (B, S_z) or maps (B, C, h, w), in the precision of the embedding.
        features: the x-features E, (B, n); spatial means where x-features are maps.
        contributions: (B, k, n), anchored, per target, in logits.
        reproduced: (B, k), the logits that the contributions and the intercept add up to.
        predicted: (B,), 0-based class that the model predicts; see `models.outputs`.
    """

    logits: Float[Tensor, "batch outputs"]
    z: Float[Tensor, "batch dims *map"]
    features: Float[Tensor, "batch features"]
    contributions: Float[Tensor, "batch targets features"]
    reproduced: Float[Tensor, "batch targets"]
    predicted: Int64[Tensor, " batch"]

    @classmethod
    def of(
        cls, embedding: Embedding, z: Tensor, logits: Tensor, layer: str, meaning: Meaning = CLASSES
    ) -> XNNOutput:
        """What an embedding makes of Z, beside what the model says itself; gradients flow.

        Raises:
            DataError: Z does not fit the embedding; the message names the layer.
        """
        z = fit_to(embedding, z, layer)
        features = embedding.encode(z)
        return cls(
            logits=logits,
            z=z,
            features=embedding.summarise(features),
            contributions=embedding.contributions(features),
            reproduced=embedding.reproduce(features),
            predicted=predicted_classes(logits, meaning.boundary),
        )

    def cpu(self) -> XNNOutput:
        """The same numbers, on the CPU."""
        return XNNOutput(**{field.name: getattr(self, field.name).cpu() for field in fields(self)})


def fit_to(embedding: Embedding, z: Float[Tensor, "batch dims *map"], layer: str) -> Tensor:
    """Z in the precision of an embedding, if it is of the kind that the embedding was fitted to.

    Raises:
        DataError: Z lies on another device, or has another shape.
    """
    reference = embedding.readout.weight
    if reference.device != z.device:
        raise DataError(
            f"the embedding is on {reference.device} and the model on {z.device}; "
            f"move it: xnn.to('{z.device}')"
        )
    if tuple(z.shape[1:]) != embedding.activation_shape:
        raise DataError(
            f"layer {layer!r} gives {tuple(z.shape[1:])} for these images, and the XNN was fitted "
            f"on {embedding.activation_shape}; give images of the size that it was fitted on"
        )
    return z.to(reference.dtype)


@runtime_checkable
class FittedXNN(Protocol):
    """An XNN as the rooms below it see it; `torchxnn.xnn.XNN` says what each member means."""

    attached: AttachedLayer
    embedding: Embedding | None
    targets: tuple[int, ...]
    outputs: int | None
    meaning: Meaning
    preprocessing: Preprocessing | None
    report: Any

    def fitted(self) -> Embedding:
        """The embedding that was fitted; raises `XNNError` if there is none yet."""

    def run(self, images: Tensor) -> XNNOutput:
        """Every number of these images that one forward pass of the model gives."""

    @property
    def attribute(self) -> Callable[..., Any]:
        """The function that draws heatmaps of images."""

    def target_name(self, target: int) -> str:
        """The name of what an output speaks for."""

    def class_name(self, index: int) -> str:
        """The name of a class by its index."""


@runtime_checkable
class NamedXNN(FittedXNN, Protocol):
    """The same with names of its x-features, which an XNN without a fit refuses to tell."""

    names: Any


def _check_finite(values: Tensor, what: str) -> None:
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise NonFiniteError(
            f"{what} contain {bad} NaN or infinite values; check the weights and the preprocessing"
        )
