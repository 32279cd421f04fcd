"""Heatmaps of an XNN's x-features and of the model's logits, from as few passes as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.attribution.base import Certificate
from torchxnn.attribution.effective_weights import EFFECTIVE, EffectiveUnits
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.methods import METHODS, OF_PROBABILITIES, PAPER, attributor
from torchxnn.embeddings.base import Embedding
from torchxnn.models.attached import AttachedLayer, FittedXNN, XNNOutput, fit_to
from torchxnn.models.inputs import check_inputs
from torchxnn.models.layers import check_one_device


@dataclass(frozen=True, eq=False)
class XNNMaps:
    """What an XNN says of a batch of images, and the maps that show where it comes from.

    Attributes:
        output: every number.
        heatmaps: (B, n, H, W), signed, one per x-feature.
        logit_heatmaps: (B, k, H, W), signed, of the model's own logits; k is 0 if none were asked
            for.
        certificate: of `heatmaps`; None if it was not asked for.
        fallback_share: of `heatmaps`, see `DrawnMaps`; None of a method that has no fallback.
    """

    output: XNNOutput
    heatmaps: Float[Tensor, "batch features *map"]
    logit_heatmaps: Float[Tensor, "batch targets *map"]
    certificate: Certificate | None
    fallback_share: Float[Tensor, " batch"] | None


class _OnLayer(nn.Module):
    """Images to the units whose heatmaps are drawn, one per x-feature; see `Embedding.salience`.

    Args:
        attached: the layer.
        embedding: fitted to it.
    """

    def __init__(self, attached: AttachedLayer, embedding: Embedding) -> None:
        super().__init__()
        check_one_device(attached.model)
        self.attached = attached
        self.embedding = embedding

    def layer_output(self, images: Tensor) -> Float[Tensor, "batch *activations"]:
        """The layer's output Z; the pass of the model stops there, and gradients flow."""
        return fit_to(self.embedding, self.attached.run_to(images), self.attached.name)

    def units(self, z: Tensor) -> Float[Tensor, "batch features"]:
        """The units, (B, n), of the layer's output; gradients flow."""
        z = fit_to(self.embedding, z, self.attached.name)
        return self.embedding.salience(self.embedding.encode(z))


@final
class Units(_OnLayer):
    """The units alone: the pass of the model stops at the layer."""

    def forward(self, images: Tensor) -> Float[Tensor, "batch features"]:
        """The units, (B, n); gradients flow."""
        return self.units(self.layer_output(images))


@final
class UnitsBesideLogits(_OnLayer):
    """The units from a full pass of the model, beside what the model returns.

    Attributes:
        passed: Z and what the model returned, of the last pass.
        linear: what the embedding is at the images that are drawn; None passes through its layers.
    """

    passed: tuple[Tensor, Any]

    def __init__(self, attached: AttachedLayer, embedding: Embedding) -> None:
        super().__init__(attached, embedding)
        self.linear: EffectiveUnits | None = None

    def through_effective_weights(self, images: Tensor) -> None:
        """Take the embedding as the linear map that it is at these images, for these images only.

        Raises:
            XNNError: the embedding is not piecewise linear.
        """
        self.linear = EffectiveUnits(self.layer_output, self.units, images)

    def forward(self, images: Tensor) -> tuple[Float[Tensor, "batch features"], Any]:
        """The units (B, n), and what the model returns; gradients flow."""
        self.passed = self.attached.run_past(images)
        z = self.passed[0]
        if self.linear is None:
            return self.units(z), self.passed[1]
        return self.linear.at(fit_to(self.embedding, z, self.attached.name)), self.passed[1]


def default_method(embedding: Embedding) -> str:
    """How the x-features of an embedding are drawn on images, unless somebody says otherwise.

    Excitation backprop, through the effective weights where Z are vectors: on 50 classes of CUB
    such maps tell x-features apart better than those of the paper's rule, and carry forty times the
    relevance (`xnn benchmark rules`, docs/benchmarks/rules.md).
    """
    return PAPER if embedding.has_maps else EFFECTIVE


@torch.no_grad()
def run_with_maps(
    xnn: FittedXNN,
    images: Tensor,
    method: str | None = None,
    *,
    logits: Sequence[int] = (),
    certify: bool = False,
    warn: bool = True,
) -> XNNMaps:
    """What `run` gives, with heatmaps.

    Excitation backprop answers for x-features and logits from the one pass that gives the numbers
    too, after a pass to the layer where effective weights are to be found; every other method needs
    passes of its own, of changed images above all.

    Args:
        xnn: fitted.
        images: (B, C, H, W), preprocessed, on the model's device.
        method: name in `METHODS`; None takes `default_method`.
        logits: outputs of the model that get heatmaps of their own; the paper's rule draws them
            where effective weights draw those of the x-features, and `OF_PROBABILITIES` where
            they are no logits.
        certify: whether the heatmaps of the x-features get a certificate.
        warn: whether figures beyond their limits are warned of.

    Raises:
        XNNError: as `XNN.run`, and as `XNN.attribute`.
    """
    attached, embedding = xnn.attached, xnn.fitted()
    check_inputs(attached.model, images)
    method = method or default_method(embedding)
    if method == EFFECTIVE or METHODS.get(method) is ExcitationBackprop:
        return _from_one_pass(xnn, images, method, logits, certify, warn)
    maps = xnn.attribute(images, method, return_certificate=certify)
    maps, certificate = maps if certify else (maps, None)
    logit_maps = maps[:, :0]
    if logits:
        logit_maps = attributor(method, attached.model).attribute_many(images, logits)
    return XNNMaps(xnn.run(images), maps, logit_maps, certificate, None)


def _from_one_pass(
    xnn: FittedXNN, images: Tensor, method: str, logits: Sequence[int], certify: bool, warn: bool
) -> XNNMaps:
    """Maps and numbers by excitation backprop; effective weights take a pass to the layer more."""
    attached, embedding = xnn.attached, xnn.fitted()
    own: Tensor | None = None
    if logits and xnn.meaning.scale != "logits":  # no rule leads through a softmax
        own = attributor(OF_PROBABILITIES, attached.model).attribute_many(images, logits)
        logits = ()
    both = UnitsBesideLogits(attached, embedding)
    if method == EFFECTIVE:
        both.through_effective_weights(images)
    features = range(embedding.n_features)
    groups = [features, logits] if logits else [features]
    drawing = ExcitationBackprop(both)
    found = drawing.attribute_outputs(images, groups, [certify, False][: len(groups)])
    found[0] = replace(found[0], method=method)
    for drawn in found if warn else ():
        drawn.warn(stacklevel=4)
    return XNNMaps(
        output=XNNOutput.of(embedding, *attached.checked(*both.passed), attached.name, xnn.meaning),
        heatmaps=found[0].maps,
        logit_heatmaps=found[1].maps if logits else found[0].maps[:, :0] if own is None else own,
        certificate=found[0].certificate() if certify else None,
        fallback_share=found[0].fallback_share,
    )
