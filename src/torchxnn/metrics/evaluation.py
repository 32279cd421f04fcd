"""Measure a fitted XNN on images: faithfulness of the logits, orthogonality of the heatmaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from torchxnn.attribution.base import Certificate
from torchxnn.data.activations import Activations, split_batch
from torchxnn.data.positives import find_positives
from torchxnn.embeddings.apply import Embedded, apply_embedding
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError
from torchxnn.metrics import Faithfulness, MapCovariance, Orthogonality, measure_faithfulness
from torchxnn.models.inputs import kind_of

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
        positives_by: what made an image a positive.
    """

    faithfulness: Faithfulness
    orthogonality: Orthogonality | None
    certificate: Certificate | None
    positives_by: Literal["label", "prediction"]


@dataclass(frozen=True, eq=False)
class Measured:
    """Faithfulness on recorded activations, and what it rests on.

    Attributes:
        faithfulness: see `Faithfulness`.
        dead: 0-based x-features that are 0 on every positive.
        positives_by: what made an image a positive.
        embedded: x-features, contributions and reproduced logits of every image.
    """

    faithfulness: Faithfulness
    dead: tuple[int, ...]
    positives_by: Literal["label", "prediction"]
    embedded: Embedded


def measure_activations(
    embedding: Embedding, data: Activations, targets: tuple[int, ...]
) -> Measured:
    """Faithfulness of an embedding on recorded activations.

    Args:
        embedding: fitted.
        data: of the layer that it was fitted on.
        targets: 0-based classes whose logits it reproduces.

    Raises:
        DataError: no images, or no positives of a target.
    """
    return _measure(apply_embedding(embedding, data.z), data, targets)


def _measure(embedded: Embedded, data: Activations, targets: tuple[int, ...]) -> Measured:
    positives, positives_by = find_positives(data, targets)
    faithful = measure_faithfulness(
        embedded.features,
        embedded.contributions,
        embedded.reproduced,
        data.logits,
        targets,
        positives,
    )
    dead = (embedded.features[positives.any(1)] == 0).all(0).nonzero().flatten().tolist()
    return Measured(faithful, tuple(dead), positives_by, embedded)


def evaluate_images(
    loader: Iterable[Any],
    record: Callable[[Any], Activations],
    embedding: Embedding,
    targets: tuple[int, ...],
    attribute: Callable[..., Any] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure batch by batch; activations are dropped as soon as they are embedded.

    Args:
        loader: yields image batches or pairs (images, labels).
        record: activations of one batch of the loader.
        embedding: fitted.
        targets: 0-based classes whose logits it reproduces.
        attribute: `XNN.attribute`; None leaves out everything about heatmaps.
        on_batch: called after each batch with the number of images.

    Raises:
        DataError: the loader is empty, holds no positives, or gives labels for some batches only.
    """
    covariance = MapCovariance(embedding.n_features)
    certificate: Certificate | None = None
    parts: list[Embedded] = []
    outputs: list[Activations] = []
    for batch in loader:
        images, _ = split_batch(batch)
        part = record(batch)
        parts.append(apply_embedding(embedding, part.z))
        outputs.append(Activations(parts[-1].features, part.logits, part.labels))
        positives = find_positives(part, targets)[0].any(1)
        if kind_of(images) != "image":
            attribute = None  # tokens and columns have no common frame to be orthogonal in
        if attribute is not None and bool(positives.any()):
            chosen = images[positives.to(images.device)].to(embedding.readout.weight.device)
            covariance.update(attribute(chosen))
            if certificate is None:
                few = chosen[:CERTIFIED_IMAGES]
                _, certificate = attribute(few, return_certificate=True)
        if on_batch is not None:
            on_batch(len(images))
    data = _concatenate(outputs)
    measured = _measure(Embedded.cat(parts), data, targets)
    orthogonality = covariance.result(measured.dead) if attribute is not None else None
    return Evaluation(measured.faithfulness, orthogonality, certificate, measured.positives_by)


def _concatenate(parts: list[Activations]) -> Activations:
    if not parts:
        raise DataError("the loader is empty: there are no images to evaluate on")
    labels = [part.labels for part in parts if part.labels is not None]
    if labels and len(labels) != len(parts):
        raise DataError("the loader gives labels for some batches only")

    return Activations(
        torch.cat([part.z for part in parts]),
        torch.cat([part.logits for part in parts]),
        torch.cat(labels) if labels else None,
    )
