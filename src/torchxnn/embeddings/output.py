"""What an XNN says of a batch of images: one forward pass, every number that rests on it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from jaxtyping import Float, Int64
from torch import Tensor

from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError


@dataclass(frozen=True, eq=False)
class XNNOutput:
    r"""The numbers of one forward pass, for B images, K outputs, k targets and n x-features.

    For each target :math:`\hat y_k = \sum_i v_{ki} E_i + b_k` (paper section 2.1).

    Attributes:
        logits: (B, K), the model's own, before the softmax.
        z: the layer's output, (B, S_z) or maps (B, C, h, w), in the precision of the embedding.
        features: the x-features E, (B, n); spatial means where x-features are maps.
        contributions: (B, k, n), v_i E_i per target, in logits.
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
    def of(cls, embedding: Embedding, z: Tensor, logits: Tensor, predicted: Tensor) -> XNNOutput:
        """What an embedding makes of Z, beside what the model says itself; gradients flow."""
        features = embedding.encode(z)
        return cls(
            logits=logits,
            z=z,
            features=embedding.summarise(features),
            contributions=embedding.contributions(features),
            reproduced=embedding.reproduce(features),
            predicted=predicted,
        )

    def cpu(self) -> XNNOutput:
        """The same on the CPU."""
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
