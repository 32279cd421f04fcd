"""The model's passes over batches of images: outputs of layers, logits and labels, all checked.

What is recorded, in memory or on disk, comes from here, so that both hold the same numbers and
refuse the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice

import torch
from torch import Tensor, nn

from torchxnn.data.ordered_images import Batch
from torchxnn.errors import DataError, NonFiniteError, XNNError
from torchxnn.models.inputs import check_inputs
from torchxnn.models.layers import as_activations, record_layers
from torchxnn.models.reach import FEW, check_reaches
from torchxnn.models.token_checks import check_token

OnImages = Callable[[int], None]
NameRows = Callable[[range], str]
Pass = tuple[range, list[Tensor], Tensor, Tensor | None]
"""The rows of a batch, the outputs of the layers, the logits and the labels."""


def model_passes(
    model: nn.Module,
    layers: Sequence[str],
    batches: Iterable[Batch],
    name: NameRows,
    on_images: OnImages | None = None,
    on_first: Callable[[Tensor], object] | None = None,
) -> Iterator[Pass]:
    """One pass of the model per batch; `name` says in messages where rows come from."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    few, batches = _first_images(batches)
    for number, (rows, images, labels) in enumerate(batches):
        if images.is_meta and device.type != "meta":
            raise DataError(f"{name(rows)}: the images are on the device meta and hold no values")
        images = images.to(device)
        outputs, logits = _run(model, layers, images, name, rows)
        for layer in layers if number == 0 else ():
            check_token(model, layer, images)
            check_reaches(model, layer, images[:FEW])
        if on_first is not None and number == 0:
            on_first(torch.cat([image.to(device) for image in few]))
        if on_images is not None:
            on_images(len(rows))
        yield rows, outputs, logits, labels


def _first_images(batches: Iterable[Batch]) -> tuple[list[Tensor], Iterator[Batch]]:
    """The images of the first batch, with those of the second if it is a single one; all batches.

    One image alone does not show whether an answer depends on the others of its batch.
    """
    batches = iter(batches)
    first = list(islice(batches, 1))
    if first and len(first[0][1]) == 1:
        first.extend(islice(batches, 1))
    few = [images for _, images, _ in first]
    if few and few[-1].shape[1:] != few[0].shape[1:]:
        del few[1:]
    return few, chain(first, batches)


def _run(
    model: nn.Module, layers: Sequence[str], images: Tensor, name: NameRows, rows: range
) -> tuple[list[Tensor], Tensor]:
    """Outputs of the layers and logits of a batch, in float32 and finite."""
    try:
        check_inputs(model, images)
        found, logits = record_layers(model, layers, images)
        outputs = [as_activations(z, layer, images) for z, layer in zip(found, layers, strict=True)]
    except XNNError as error:
        raise type(error)(f"{name(rows)}: {error}") from error
    whats = [*(f"the activations of layer {layer!r}" for layer in layers), "the model's outputs"]
    for what, values in zip(whats, [*outputs, logits], strict=True):
        bad = _first_bad(values)
        if bad is not None:
            raise NonFiniteError(
                f"{name(rows[bad : bad + 1])}: {what} are NaN or infinite; check the weights and "
                "the preprocessing"
            )
    return [z.float() for z in outputs], logits.float().cpu()


def rounded_outputs(
    z: Tensor, layer: str, dtype: torch.dtype, name: NameRows, rows: range, way_out: str
) -> Tensor:
    """Outputs of a layer as they are kept, on the CPU."""
    rounded = z.to(dtype)
    bad = _first_bad(rounded)
    if bad is not None:
        raise NonFiniteError(
            f"{name(rows[bad : bad + 1])}: activations of layer {layer!r} reach "
            f"{float(z.abs().max()):.3g}, too large for {str(dtype).removeprefix('torch.')}; "
            f"record them with {way_out}"
        )
    return rounded.cpu()


def _first_bad(values: Tensor) -> int | None:
    """Position of the first sample with NaN or infinity."""
    bad = ~torch.isfinite(values.flatten(1)).all(dim=1)
    return int(bad.nonzero()[0]) if bool(bad.any()) else None
