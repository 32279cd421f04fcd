"""Measure a fitted XNN on images: faithfulness of the logits, orthogonality of the heatmaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.attribution.base import Certificate
from torchxnn.data.activations import Activations, split_batch
from torchxnn.data.examined import agreement_with_labels, warn_of_order
from torchxnn.data.labels import known_samples, settle
from torchxnn.data.loading import read_batches
from torchxnn.data.positives import find_positives, positives_of
from torchxnn.embeddings.apply import Embedded, apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError
from torchxnn.metrics.faithfulness import Faithfulness, dead_features, measure_faithfulness
from torchxnn.metrics.orthogonality import MapCovariance, Orthogonality
from torchxnn.models.attached import FittedXNN
from torchxnn.models.config import OutputsConfig
from torchxnn.models.inputs import kind_of
from torchxnn.models.label_agreement import LabelAgreement
from torchxnn.models.meaning import Meaning

CERTIFIED_IMAGES = 8


@dataclass(frozen=True)
class Evaluation:
    """What `XNN.evaluate` measures on a data set.

    Attributes:
        faithfulness: see `Faithfulness`.
        orthogonality: of the heatmaps of the positives; None if no maps were asked for, and for
            texts and rows.
        certificate: of the heatmaps of the first positives (a certificate costs several times what
            the maps do); None without maps.
        positives_by: what made an image a positive; see `positives_of`.
        agreement: how often the model itself predicts the labels; None where nobody knows.
        weights_sha256: of the saved XNN that was measured; empty if it was not a saved one, and in
            records of earlier versions.
    """

    faithfulness: Faithfulness
    orthogonality: Orthogonality | None
    certificate: Certificate | None
    positives_by: str
    agreement: LabelAgreement | None = None
    weights_sha256: str = ""


@dataclass(frozen=True, eq=False)
class Measured:
    """Faithfulness on recorded activations, and what it rests on.

    Attributes:
        faithfulness: see `Faithfulness`.
        dead: 0-based x-features that are 0 on every positive.
        positives_by: what made an image a positive; see `positives_of`.
        embedded: x-features, contributions and reproduced logits of every image.
    """

    faithfulness: Faithfulness
    dead: tuple[int, ...]
    positives_by: str
    embedded: Embedded


def measure_activations(
    embedding: Embedding, data: Activations, targets: tuple[int, ...]
) -> Measured:
    """Faithfulness of a fitted embedding on recorded activations of its layer.

    `targets` are the 0-based classes whose logits it reproduces.

    Raises:
        DataError: no images, or no positives of a target.
    """
    found = find_positives(data, targets)
    embedded = apply_embedding(embedding, data.z)
    return _measure(embedded, data.logits, targets, *found, data.meaning)


def _measure(
    embedded: Embedded,
    logits: Float[Tensor, "samples outputs"],
    targets: tuple[int, ...],
    positives: Bool[Tensor, "samples targets"],
    positives_by: str,
    meaning: Meaning,
) -> Measured:
    faithful = measure_faithfulness(
        embedded.features,
        embedded.contributions,
        embedded.reproduced,
        logits,
        targets,
        positives,
        meaning,
    )
    dead = dead_features(embedded.features, positives.any(1)).nonzero().flatten().tolist()
    return Measured(faithful, tuple(dead), positives_by, embedded)


def measure(xnn: FittedXNN, data: Activations) -> Measured:
    """Faithfulness on recorded activations of the XNN's layer; see `measure_activations`."""
    meant = data if data.meaning == xnn.meaning else data.meant(xnn.meaning)
    return measure_activations(xnn.fitted(), meant, xnn.targets)


def evaluate(
    xnn: FittedXNN,
    loader: Iterable[Any],
    maps: bool = True,
    on_batch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure faithfulness on all images and orthogonality of the positives' heatmaps.

    Activations are dropped as soon as they are embedded.

    Args:
        xnn: fitted.
        loader: yields image batches or pairs (images, labels).
        maps: whether to draw heatmaps; without them `orthogonality` is None and it is fast.
        on_batch: called after each batch with the number of images.

    Raises:
        DataError: the loader is empty, holds no positives or no known label of a target, or gives
            labels for some batches only.
    """
    covariance: MapCovariance | None = None
    certificate: Certificate | None = None
    parts: list[Embedded] = []
    logits: list[Tensor] = []
    positives: list[Tensor] = []
    known: list[Tensor] = []
    labelled: set[bool] = set()
    for batch in read_batches(loader):
        images, labels = split_batch(batch)
        labelled.add(labels is not None)
        if len(labelled) > 1:
            raise DataError("the loader gives labels for some batches only")
        images, labels = _known(images, labels, xnn)
        if not len(images):
            continue
        images = images.to(xnn.attached.device)
        found = xnn.run(images).cpu()
        parts.append(Embedded(found.features, found.contributions, found.reproduced))
        logits.append(found.logits.float())
        outputs = found.logits.shape[1]
        mine, by = positives_of(labels, found.logits, xnn.targets, outputs, xnn.meaning)
        positives.append(mine)
        known += [] if labels is None else [labels]
        # Tokens and columns have no common frame to be orthogonal in.
        maps = maps and kind_of(images) == "image"
        if maps and bool(mine.any()):
            chosen = images[mine.any(1).to(images.device)]
            covariance = covariance or MapCovariance(found.features.shape[1])
            covariance.update(xnn.attribute(chosen))
            if certificate is None:
                few = chosen[:CERTIFIED_IMAGES]
                _, certificate = xnn.attribute(few, return_certificate=True)
        if on_batch is not None:
            on_batch(len(images))
    if not logits:
        why = "no label of a target is known" if labelled else "the loader is empty"
        raise DataError(f"{why}: there are no images to evaluate on")
    everything = torch.cat(logits), xnn.targets, torch.cat(positives), by, xnn.meaning
    measured = _measure(Embedded.cat(parts), *everything)
    orthogonality = covariance.result(measured.dead) if maps and covariance else None
    agreement = _agreement(torch.cat(logits), known, xnn.meaning)
    warn_of_order(agreement)
    by = measured.positives_by
    return Evaluation(measured.faithfulness, orthogonality, certificate, by, agreement)


def _agreement(logits: Tensor, labels: list[Tensor], meaning: Meaning) -> LabelAgreement | None:
    """Labels of the batches, if there are any, against what the model says of the same images."""
    found = torch.cat(labels) if labels else None
    nothing = logits.new_empty(len(logits), 0)
    return agreement_with_labels(Activations(nothing, logits, found, meaning=meaning))


def _known(images: Tensor, labels: Tensor | None, xnn: FittedXNN) -> tuple[Tensor, Tensor | None]:
    """The images of a batch whose labels are known, and these in the form of the XNN's meaning."""
    if labels is None:
        return images, None
    config = OutputsConfig(xnn.meaning.outputs_are)
    outputs = xnn.outputs or max(xnn.targets) + 1
    found, _ = settle(labels.cpu(), outputs, config)
    mask = known_samples(found, xnn.targets)
    if mask is None or found is None:
        return images, found
    return images[mask.to(images.device)], found[mask]
