"""One pass of the explained model over the data: activations, logits and labels.

Vectors are kept in memory in float32. Maps of convolutional layers are thousands of times as large:
they are kept in float16, in memory up to a limit and in a temporary file beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from torchxnn.data.rows import RowStore
from torchxnn.errors import DataError, NonFiniteError
from torchxnn.models.inputs import check_inputs
from torchxnn.models.layers import as_activations, record_layer, resolve_layer
from torchxnn.models.outputs import predicted_classes

ROWS_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Activations:
    """What the explained model did on a data set.

    Attributes:
        z: the layer's output: vectors (M, S_z) in float32, trailing 1x1 dimensions flattened, or
            maps (M, C, h, w), in float16 unless asked otherwise.
        logits: (M, K) float32, all of the model's outputs before the softmax.
        labels: (M,) class indices, or None if the loader gave images only.
        map_memory: gigabytes of maps that are kept in memory, in this set and in each selection
            from it; more go to a temporary file.
    """

    z: Float[Tensor, "samples dims *map"]
    logits: Float[Tensor, "samples outputs"]
    labels: Int64[Tensor, " samples"] | None
    map_memory: float = 2.0

    def __len__(self) -> int:
        return self.z.shape[0]

    @property
    def n_outputs(self) -> int:
        """Number of the model's outputs, K."""
        return self.logits.shape[1]

    @property
    def predicted(self) -> Int64[Tensor, " samples"]:
        """The class that the model predicts for every sample; see `predicted_classes`."""
        return predicted_classes(self.logits)

    def select(self, index: Tensor) -> Activations:
        """The samples at the given positions or under the given mask."""
        labels = None if self.labels is None else self.labels[index]
        return Activations(self._rows(index), self.logits[index], labels, self.map_memory)

    def to(self, device: torch.device) -> Activations:
        """The same on a device; itself if it lies there."""
        if self.z.device == device:
            return self
        labels = None if self.labels is None else self.labels.to(device)
        return Activations(self.z.to(device), self.logits.to(device), labels, self.map_memory)

    @property
    def are_maps(self) -> bool:
        """Whether Z has positions, (M, C, h, w)."""
        return self.z.ndim == 4

    def _rows(self, index: Tensor) -> Tensor:
        if not self.are_maps:
            return self.z[index]
        chosen = index.nonzero().flatten() if index.dtype == torch.bool else index
        store = RowStore(self.map_memory)
        for part in chosen.split(ROWS_AT_ONCE):
            store.append(self.z[part])
        return store.result()


def split_batch(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Images and labels of one batch of a loader.

    Raises:
        DataError: the batch is neither a tensor nor a pair that starts with one.
    """
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, (tuple, list)) and batch and isinstance(batch[0], Tensor):
        labels = batch[1] if len(batch) > 1 else None
        if labels is None or (isinstance(labels, Tensor) and labels.ndim == 1):
            if labels is not None and len(labels) != len(batch[0]):
                raise DataError(f"{len(batch[0])} images with {len(labels)} labels in one batch")
            return batch[0], labels
    raise DataError(
        "the loader must yield image batches or pairs (images, labels) with labels of shape (B,), "
        f"it yields {_describe(batch)}"
    )


def _describe(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        parts = (f"{type(p).__name__}{list(getattr(p, 'shape', []))}" for p in batch)
        return f"{type(batch).__name__} of {', '.join(parts)}"
    return type(batch).__name__


def record_activations(
    model: nn.Module,
    layer: str | nn.Module,
    loader: Iterable[Any],
    on_batch: Callable[[int], None] | None = None,
    map_dtype: Literal["float16", "float32"] = "float16",
    map_memory: float = 2.0,
) -> Activations:
    """Run the model over a loader and keep a layer's output, the logits and the labels.

    Args:
        model: the explained model; left as it was.
        layer: dotted name or submodule.
        loader: yields batches of images (or token ids, or rows) or pairs (images, labels); they are
            moved to the model's device.
        on_batch: called after each batch with the number of its images, for progress bars.
        map_dtype: precision in which maps (B, C, h, w) are kept; vectors are kept in float32.
        map_memory: gigabytes of maps kept in memory; more go to a temporary file.

    Returns:
        `Activations` on the CPU.

    Raises:
        DataError: the loader is empty, yields something else, or images whose maps differ in size.
        NonFiniteError: NaN or infinity in images, activations or logits.
        LayerError: see `record_layer`.
    """
    name, module = resolve_layer(model, layer)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    store = RowStore(map_memory)
    logits, labels = RowStore(map_memory), RowStore(map_memory)
    batches = labelled = 0
    for batch in loader:
        images, batch_labels = split_batch(batch)
        images = images.to(device)
        check_inputs(model, images)
        output, batch_logits = record_layer(model, module, images)
        z = as_activations(output, name, images).float()
        _check_finite(z, f"activations of layer {name!r}")
        _check_finite(batch_logits, "the model's outputs")
        store.append(_rounded(z, name, map_dtype) if z.ndim == 4 else z.cpu())
        logits.append(batch_logits.float().cpu())
        batches += 1
        if batch_labels is not None:
            labels.append(batch_labels.long().cpu())
            labelled += 1
        if on_batch is not None:
            on_batch(len(images))
    if not batches:
        raise DataError("the loader is empty: there are no images to explain")
    if labelled not in (0, batches):
        raise DataError("the loader gives labels for some batches only")
    return Activations(
        store.result(), logits.result(), labels.result() if labelled else None, map_memory
    )


def _rounded(maps: Tensor, name: str, dtype: str) -> Tensor:
    rounded = maps.to(getattr(torch, dtype)).cpu()
    if dtype == "float16" and not bool(torch.isfinite(rounded).all()):
        raise NonFiniteError(
            f"activations of layer {name!r} reach {float(maps.abs().max()):.3g}, too large for "
            "float16; record them with map_dtype='float32'"
        )
    return rounded


def _check_finite(values: Tensor, what: str) -> None:
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise NonFiniteError(
            f"{what} contain {bad} NaN or infinite values; check the weights and the preprocessing"
        )
