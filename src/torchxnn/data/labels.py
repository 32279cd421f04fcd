"""Labels as a loader gives them, and what they say about the model's outputs.

Class indices are int64 (M,), labels that do not exclude each other int64 (M, K) of 0, 1 and -1 (not
known), and values floating point (M,) or (M, K), NaN where they are not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from torchxnn.embeddings.exact import exact
from torchxnn.errors import DataError
from torchxnn.models.config import OutputKind, OutputsConfig
from torchxnn.models.meaning import Meaning

UNKNOWN = -1

_WAYS_OUT = (
    "of a model with one number as its output these are values of a regression "
    "(outputs_are='value')"
)


def class_indices(labels: Shaped[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """Labels (B,) as 0-based class indices, where they lie; whole numbers of any type are such.

    Raises:
        DataError: a label is no whole number; the message names it.
    """
    whole = labels.long()
    if labels.is_complex() or labels.is_floating_point():
        wrong = (labels != whole).nonzero().flatten()
        if len(wrong):
            raise DataError(
                f"label {labels[wrong[0]].item():.4g} is no class index: labels of classes are "
                f"whole numbers from 0; {_WAYS_OUT}, else leave them out of the loader"
            )
    return whole


def as_given(labels: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "batch ..."]:
    """Labels of one batch in the form in which they are recorded: int64 or float32.

    Raises:
        DataError: labels that are neither (B,) nor (B, K).
    """
    while labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.ndim not in (1, 2) or labels.is_complex():
        raise DataError(
            f"labels must be (B,), or (B, K) for K outputs, got {tuple(labels.shape)} of "
            f"{labels.dtype}"
        )
    return labels.float() if labels.is_floating_point() else labels.long()


def settle(
    labels: Shaped[Tensor, "samples *columns"] | None,
    outputs: int,
    config: OutputsConfig,
    logits: Float[Tensor, "samples outputs"] | None = None,
) -> tuple[Shaped[Tensor, "samples ..."] | None, Meaning]:
    """Labels in the form that their meaning needs, and what they say that the outputs mean.

    Args:
        labels: of all samples, as `as_given` gives them; None if there are none.
        outputs: how many the model has.
        config: what the user says; it goes before what the labels say.
        logits: the model's own; values without labels need them.

    Raises:
        DataError: labels that fit neither the model's outputs nor what the user says.
    """
    kind = config.kind
    if labels is not None and outputs == 1 and _are_one_hot(labels, 2) and kind != "value":
        labels = labels.argmax(1)
    if labels is not None and labels.ndim == 2 and labels.shape[1] != outputs:
        raise DataError(
            f"labels (B, {labels.shape[1]}) do not fit a model with {outputs} output(s); give "
            "class indices (B,), or a label for each output"
        )
    if kind is None and labels is not None and labels.ndim == 1 and outputs == 1:
        kind = _kind_of_single(labels)
    if kind == "value":
        values = None if labels is None else labels.float()
        own = logits if values is None else values
        return values, Meaning("value") if own is None else _values(own, outputs, config)
    if labels is None:
        return None, Meaning(kind or "classes")
    if labels.ndim == 1:
        known = labels.masked_fill(labels.isnan(), UNKNOWN)
        return _checked(class_indices(known), outputs), Meaning(kind or "classes")
    return _several(labels, kind)


def _kind_of_single(labels: Shaped[Tensor, " samples"]) -> OutputKind | None:
    """What labels of a model with one output say: measured numbers make it a value.

    Raises:
        DataError: -1 and 1, of which -1 would count as not known.
    """
    known = labels[~labels.isnan()] if labels.is_floating_point() else labels
    if known.unique().tolist() == [-1, 1]:
        raise DataError(
            "the labels are -1 and 1: give 0 and 1, since -1 means that a label is not known (for "
            "measured numbers say outputs_are='value')"
        )
    two = bool(((known == 0) | (known == 1)).all())
    return "value" if labels.is_floating_point() and not two else None


def _checked(labels: Int64[Tensor, " samples"], outputs: int) -> Int64[Tensor, " samples"]:
    """Class indices that the model has, or -1 for images whose class is not known."""
    largest, classes = int(labels.max()), max(2, outputs)
    wrong = largest if largest >= classes else int(labels.min())
    if wrong >= classes or wrong < UNKNOWN:
        several = "do they begin at 1?" if wrong == classes else "a label that is not known is -1"
        raise DataError(
            f"there is a label {wrong}, and a model with {outputs} output(s) has classes 0 to "
            f"{classes - 1}; {_WAYS_OUT if outputs == 1 else several}"
        )
    return labels


def _several(
    labels: Shaped[Tensor, "samples outputs"], kind: OutputKind | None
) -> tuple[Int64[Tensor, "samples ..."], Meaning]:
    """Multi-hot labels as 0, 1 and -1; as class indices if every sample has exactly one."""
    known = labels.nan_to_num(UNKNOWN) if labels.is_floating_point() else labels
    wrong = ((known != 0) & (known != 1) & (known != UNKNOWN)).nonzero()
    if len(wrong):
        row, column = wrong[0].tolist()
        raise DataError(
            f"label {known[row, column].item():.4g} of output {column}: labels (B, K) are 0, 1, or "
            "-1 where they are not known; for values of K numbers say outputs_are='value'"
        )
    whole = known.long()
    alone = _are_one_hot(whole, whole.shape[1])
    if kind == "classes" and not alone:
        raise DataError(
            "classes exclude each other, and there are images with several labels or none "
            "(outputs_are='labels')"
        )
    if alone and kind != "labels":
        return whole.argmax(1), Meaning("classes")
    return whole, Meaning("labels")


def _are_one_hot(labels: Shaped[Tensor, "samples *columns"], columns: int) -> bool:
    """Whether every row of labels (M, columns) has one 1 and else 0."""
    if labels.ndim != 2 or labels.shape[1] != columns:
        return False
    plain = (labels == 0) | (labels == 1)
    return bool(plain.all() & (labels.sum(1) == 1).all())


def _values(
    values: Float[Tensor, "samples *columns"], outputs: int, config: OutputsConfig
) -> Meaning:
    share, threshold = config.share_or_threshold()
    if share is None:
        return Meaning("value", (float(threshold or 0.0),) * outputs)
    columns = values.unsqueeze(1).expand(-1, outputs) if values.ndim == 1 else values
    limits = torch.nanquantile(exact(columns), 1 - share, dim=0, interpolation="higher")
    origin = "upper quarter" if share == 0.25 else f"upper {100 * share:.4g}%"
    return Meaning("value", tuple(limits.tolist()), origin)


def known_samples(
    labels: Shaped[Tensor, "samples *outputs"] | None, targets: Sequence[int]
) -> Bool[Tensor, " samples"] | None:
    """Samples whose labels for all targets are known; None if every one is."""
    if labels is None:
        return None
    unknown = labels.isnan() if labels.is_floating_point() else labels == UNKNOWN
    columns = unknown[:, list(targets)] if labels.ndim == 2 else unknown.unsqueeze(1)
    mask = ~columns.any(1)
    return None if bool(mask.all()) else mask


# In a cache


def labels_form(labels: Shaped[Tensor, "batch *outputs"]) -> dict[str, Any]:
    """What the manifest of a cache says of its labels; nothing of class indices."""
    if labels.ndim == 1 and not labels.is_floating_point():
        return {}
    return {"labels": {"shape": list(labels.shape[1:]), "dtype": "float32"}}


def empty_labels(about: Mapping[str, Any], count: int) -> Shaped[Tensor, "rows *outputs"]:
    """Room for so many labels of a cache, in the form that its manifest says."""
    form = about.get("labels", {"shape": [], "dtype": "int64"})
    return torch.empty((count, *form["shape"]), dtype=getattr(torch, form["dtype"]))


def fitting_labels(
    labels: Shaped[Tensor, "batch *outputs"], room: Shaped[Tensor, "rows *outputs"], name: str
) -> Shaped[Tensor, "batch *outputs"]:
    """Labels of a batch, if they have the form of those before.

    Raises:
        DataError: they have another shape, or measured values follow class indices.
    """
    if labels.shape[1:] != room.shape[1:]:
        raise DataError(
            f"{name}: labels of shape {tuple(labels.shape[1:])} follow {tuple(room.shape[1:])}"
        )
    return labels if room.is_floating_point() else class_indices(labels)
