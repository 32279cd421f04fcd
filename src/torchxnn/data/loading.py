"""What a loader yields: batches by position, as pairs, and batches by name, as mappings.

Positions say what they mean: images, then labels, then whatever else. Names are those that
libraries use; a mapping in which they leave a doubt is refused, with the names that it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from torchxnn.errors import DataError

IMAGES = ("pixel_values", "images", "image", "img", "inputs", "input", "x")
"""Names under which a mapping may hold its images."""

LABELS = ("labels", "label", "targets", "target", "y")
"""Names under which a mapping may hold its labels."""

_NUMBERS = "biuf"
"""Kinds of arrays that hold numbers."""

_FURTHER_INPUTS = ("input_ids", "attention_mask", "pixel_mask", "bool_masked_pos")
_LIKE_LABELS = ("label", "class", "target", "categor")


def read_batches(loader: Any) -> Iterator[Any]:
    """The batches of a loader, as they come.

    Raises:
        DataError: it is one tensor, or nothing that can be gone through.
    """
    if isinstance(loader, Tensor):
        raise DataError(
            f"the loader is one tensor {tuple(loader.shape)}; give a list of batches, [images]"
        )
    try:
        batches = iter(loader)
    except TypeError as error:
        raise DataError(
            f"the loader is a {type(loader).__name__}, which yields no batches; give a DataLoader "
            "(of a data module its train_dataloader()) or a list of batches"
        ) from error
    yield from batches


def by_position(batch: Any) -> Any:
    """A mapping as (images, labels), or as its images if it has no labels; all else as it is.

    The same for one sample of a data set. Of the other entries of a mapping no use is made.

    Raises:
        DataError: the images or the labels are not found, or not under one name alone.
    """
    if not isinstance(batch, Mapping):
        return batch
    further = [name for name in _FURTHER_INPUTS if name in batch]
    if further:
        raise DataError(
            f"the batches hold a second input of the model, {further[0]!r}: wrap the model in a "
            "module that takes images alone, and yield pairs (images, labels)"
        )
    images = _images(batch)
    labels = _labels(batch)
    return images if labels is None else (images, labels)


def _images(batch: Mapping[str, Any]) -> Tensor:
    given = {name: image_tensor(batch.get(name)) for name in IMAGES}
    found = [name for name, value in given.items() if isinstance(value, Tensor)]
    if len(found) == 1:
        images: Tensor = given[found[0]]
        return images
    if found:
        raise _rivals(found, "images")
    raise DataError(
        f"the loader must yield pairs (images, labels), or mappings with a tensor under one of "
        f"{', '.join(IMAGES)}; it yields {_describe(batch)}"
    )


def _labels(batch: Mapping[str, Any]) -> Any:
    there = [name for name in LABELS if batch.get(name) is not None]
    found = [name for name in there if label_tensor(batch[name]) is not None]
    if len(found) > 1 and not _alike([batch[name] for name in found]):
        raise _rivals(found, "labels")
    if found:
        return batch[found[0]]
    like = there or [
        str(name)
        for name in batch
        if name not in IMAGES and any(part in str(name).lower() for part in _LIKE_LABELS)
    ]
    if like and batch.get(like[0]) is not None:
        raise DataError(
            f"{like[0]!r} of the loader's mappings ({_kind(batch[like[0]])}) is not read as labels:"
            f" give class indices, a tensor (B,), under one of {', '.join(LABELS)}, or leave it out"
        )
    return None


def _alike(values: list[Any]) -> bool:
    tensors = [value.cpu() for each in values if (value := label_tensor(each)) is not None]
    return all(torch.equal(tensors[0], other) for other in tensors[1:])


def _rivals(names: list[str], what: str) -> DataError:
    return DataError(
        f"the loader's mappings hold {' and '.join(map(repr, names))}, which may all be the "
        f"{what}: leave out all but one, or yield pairs (images, labels)"
    )


def _describe(batch: Mapping[str, Any]) -> str:
    parts = [f"{name} ({_kind(value)})" for name, value in batch.items()]
    return f"a {type(batch).__name__} with {', '.join(parts) or 'nothing'}"


def _kind(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__


# --- what may stand for a tensor


def image_tensor(value: Any) -> Any:
    """An array of numbers as a tensor; all else as it is."""
    is_array = isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS
    return torch.as_tensor(np.ascontiguousarray(value)) if is_array else value


def label_tensor(value: Any, images: int | None = None) -> Shaped[Tensor, "..."] | None:
    """Labels in any form that a loader may give them, as a tensor; None if they are none.

    Tensors, arrays of NumPy, numbers, and lists of these; of K lists or tensors for each output, as
    PyTorch's own collation makes them of lists, the columns.

    Args:
        value: what the loader gives.
        images: how many the batch has; None for a single sample.
    """
    match value:
        case Tensor():
            return value
        case np.ndarray() | np.generic() if value.dtype.kind in _NUMBERS:
            return torch.as_tensor(np.asarray(value))
        case Number() if not isinstance(value, complex):
            return torch.tensor(value)
        case list() | tuple() if value:
            parts = [label_tensor(each) for each in value]
            found = [each for each in parts if each is not None]
            if len(found) < len(parts) or len({each.shape for each in found}) > 1:
                return None
            by_output = images is not None and len(value) != images == found[0].numel()
            return torch.stack(found, 1 if by_output and found[0].ndim == 1 else 0)
    return None
