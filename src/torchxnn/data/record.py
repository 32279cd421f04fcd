"""Record an activation cache: one pass of the model over the data, chunk by chunk, resumable.

Every chunk can be recorded on its own, by any process: `start_cache` writes the manifest,
`record_chunk` one chunk, and `cache_activations` does it all in this process. The numbers are the
same in each case: batches start at the first row of their chunk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor, nn

from torchxnn.data.activation_cache import (
    COPY,
    HELD_OUT,
    KIND,
    KIND_VERSION,
    LABELS,
    LOGITS,
    PICTURE,
    PREDICTED,
    ActivationCache,
    CacheDtype,
    layer_tensor,
)
from torchxnn.data.datasets.augment import HeldOutCopies
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.ordered_images import Batch, ImageRows, data_fingerprint, image_rows
from torchxnn.errors import DataError, NonFiniteError, XNNError
from torchxnn.models.inputs import check_inputs
from torchxnn.models.layers import as_activations, record_layers, resolve_layer, unwrap
from torchxnn.models.outputs import count_classes, predicted_classes
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.weights import fingerprint
from torchxnn.parallel.engine import Engine
from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.storage.paths import Location

__all__ = ["ActivationCache", "cache_activations", "record_chunk", "start_cache"]

CHUNK_BYTES = 2**26
CHUNK_ROWS = 4096
"""Most bytes and rows of a chunk by default: what a kill can cost, and what a worker takes."""

OnImages = Callable[[int], None]


def cache_activations(
    model: nn.Module,
    layers: str | Sequence[str | nn.Module],
    data: Any,
    location: Location,
    *,
    dtype: CacheDtype = "float32",
    chunk_rows: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    source: Mapping[str, Any] | None = None,
    rows: int | None = None,
    engine: Engine | None = None,
    on_images: OnImages | None = None,
) -> ActivationCache:
    """Run a model over a data set and keep layers' outputs, logits and labels on disk.

    Interrupted at any moment, the same call goes on where it stopped; a complete cache is opened at
    once. Data with random transforms give another picture every time and cannot be continued:
    they are refused as other data.

    Args:
        model: the explained model; left as it was.
        layers: dotted names or submodules; all are recorded in the same pass.
        data: a data set that yields images or pairs (image, label), or a `DataLoader` over one in
            its own order. An iterable data set is read from its start when continued.
        location: a folder, or an fsspec URL.
        dtype: precision of the layers' outputs; logits are float32.
        chunk_rows: images per file; None: at most 64 MB and 4096 images.
        batch_size: images per forward pass, unless a loader has its own.
        workers: processes that read ahead, unless a loader has its own.
        preprocessing: how images became tensors; None: what a data set of ours says.
        class_names: of the model's outputs; None: what a data set of ours says, if they fit.
        source: where model and data come from, to be found again with the cache.
        rows: how many images to take, if the data do not know their length.
        engine: records chunks in other processes or on other machines, which then need to see the
            data and the location; the numbers are the same as on one thread of this process.
        on_images: called with a number of images, first with those that are there already.

    Returns:
        The complete cache.

    Raises:
        DataError: another cache is at the location (the message says what differs), an image
            cannot be read (it is named), a loader that shuffles, no images.
        NonFiniteError: NaN, infinity, or values too large for `dtype`; the row is named.
        LayerError: see `record_layer`.
        OSError: the disk is full; the same call goes on when there is space.

    Example:
        >>> cache = cache_activations(model, "features.12", dataset, "cache", dtype="float16")
        >>> cache.read("features.12", rows=torch.arange(100))
    """
    cache = start_cache(
        model,
        layers,
        data,
        location,
        dtype=dtype,
        chunk_rows=chunk_rows,
        batch_size=batch_size,
        workers=workers,
        preprocessing=preprocessing,
        class_names=class_names,
        source=source,
        rows=rows,
    )
    images = image_rows(data, batch_size, workers, rows)
    missing = cache.store.missing()
    there = len(cache) - sum(len(cache.store.span(chunk)) for chunk in missing)
    if there and on_images is not None:
        on_images(there)
    if engine is None:
        _record(model, cache, images, missing, on_images)
    else:
        given = (model, data, cache.store.location, batch_size)
        for _, count in engine.run(_Recording, given, _record_in_worker, missing):
            if on_images is not None:
                on_images(count)
    return ActivationCache.open(cache.store.location)


def start_cache(
    model: nn.Module,
    layers: str | Sequence[str | nn.Module],
    data: Any,
    location: Location,
    *,
    dtype: CacheDtype = "float32",
    chunk_rows: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    source: Mapping[str, Any] | None = None,
    rows: int | None = None,
) -> ActivationCache:
    """Write or check the manifest of a cache; its chunks are then for `record_chunk`.

    `cache.store.missing()` lists the chunks to record. See `cache_activations` for the rest.
    """
    images = image_rows(data, batch_size, workers, rows)
    if dtype not in get_args(CacheDtype):
        raise DataError(f"dtype must be one of {', '.join(get_args(CacheDtype))}, got {dtype!r}")
    wanted = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    names = [resolve_layer(model, layer)[0] for layer in wanted]
    if not names or len(set(names)) < len(names):
        raise DataError(f"give one or several different layers, got {names}")
    dataset = images.dataset
    if preprocessing is None and isinstance(dataset, ImageDataset):
        preprocessing = dataset.preprocessing
    about = _about(model, names, images, dtype, preprocessing)
    if class_names is None and isinstance(dataset, ImageDataset):
        class_names = (
            dataset.classes if len(dataset.classes) == count_classes(about["outputs"]) else None
        )
    notes = {"class_names": class_names and list(class_names), "source": source}
    if chunk_rows is None:
        chunk_rows = _chunk_rows(location, about, images.batch_size)
    return ActivationCache(ChunkStore.create(location, about, images.count, chunk_rows, notes))


def record_chunk(
    model: nn.Module,
    data: Any,
    location: Location,
    chunk: int,
    *,
    batch_size: int = 32,
    workers: int = 0,
    on_images: OnImages | None = None,
) -> None:
    """Record one chunk of a cache that `start_cache` has made; for worker processes.

    Args:
        model: the model of the manifest; the caller vouches for it.
        data: the same data as in `start_cache`, map-style.
        location: of the cache.
        chunk: its number.
        batch_size: as in `start_cache`, if the numbers are to be the same to the last bit.
        workers: processes that read ahead.
        on_images: called with the number of images of each batch.

    Raises:
        DataError: see `cache_activations`; also data that can only be read from their start.
    """
    cache = ActivationCache.open(location, complete=False)
    images = image_rows(data, batch_size, workers, len(cache))
    if images.stream is not None:
        raise DataError(
            "single chunks of an iterable data set cannot be recorded; use cache_activations"
        )
    _record(model, cache, images, [chunk], on_images)


@dataclass(frozen=True, eq=False)
class _Recording:
    """What a worker process records from and into."""

    model: nn.Module
    data: Any
    location: Location
    batch_size: int


def _record_in_worker(given: _Recording, chunk: int) -> int:
    record_chunk(given.model, given.data, given.location, chunk, batch_size=given.batch_size)
    return len(ActivationCache.open(given.location, complete=False).store.span(chunk))


def _about(
    model: nn.Module,
    layers: Sequence[str],
    images: ImageRows,
    dtype: str,
    preprocessing: Preprocessing | None,
) -> dict[str, Any]:
    """What the cache depends on; shapes and outputs come from one pass on the first image."""
    inner = unwrap(model)
    probe = next(replace(images, workers=0).batches([range(1)]))
    outputs, logits = _run(model, layers, images, probe)
    columns = [PREDICTED] + ([LABELS] if probe[2] is not None else [])
    if isinstance(images.dataset, HeldOutCopies):
        columns += [PICTURE, COPY, HELD_OUT]
    return {
        "kind": KIND,
        "kind_version": KIND_VERSION,
        "model": {"class": type(inner).__name__, "fingerprint": fingerprint(inner)},
        "layers": {layer: list(z.shape[1:]) for layer, z in zip(layers, outputs, strict=True)},
        "outputs": logits.shape[1],
        "dtype": dtype,
        "columns": columns,
        "preprocessing": None if preprocessing is None else asdict(preprocessing),
        "data": data_fingerprint(images),
    }


def _chunk_rows(location: Location, about: Mapping[str, Any], batch_size: int) -> int:
    with suppress(DataError):  # one that is there is continued, whatever the batch size is now
        return ChunkStore.open(location).chunk_rows
    size = getattr(torch, about["dtype"]).itemsize
    per_row = sum(math.prod(shape) for shape in about["layers"].values()) * size
    fit = min(CHUNK_ROWS, CHUNK_BYTES // (per_row + 4 * about["outputs"]))
    return max(1, fit // batch_size * batch_size or fit)


def _record(
    model: nn.Module,
    cache: ActivationCache,
    images: ImageRows,
    chunks: Sequence[int],
    on_images: OnImages | None,
) -> None:
    batches = images.batches([cache.store.span(chunk) for chunk in chunks])
    for chunk in chunks:
        cache.store.write(chunk, _chunk(model, cache, images, chunk, batches, on_images))


def _chunk(
    model: nn.Module,
    cache: ActivationCache,
    images: ImageRows,
    chunk: int,
    batches: Iterator[Batch],
    on_images: OnImages | None,
) -> dict[str, Tensor]:
    """All tensors of a chunk, allocated once: pieces kept between passes would split the heap."""
    span = cache.store.span(chunk)
    count = len(span)
    tensors = _known_columns(images.dataset, span)
    for layer in cache.layers:
        tensors[layer_tensor(layer)] = torch.empty((count, *cache.dims(layer)), dtype=cache.dtype)
    tensors[LOGITS] = torch.empty((cache.n_outputs, count))  # so that one output lies in one piece
    for name in (PREDICTED, LABELS):
        if name in cache.store.about["columns"]:
            tensors[name] = torch.empty(count, dtype=torch.int64)
    while span:
        batch = next(batches)
        rows, pictures, labels = batch
        here = slice(count - len(span), count - len(span) + len(rows))
        outputs, logits = _run(model, cache.layers, images, batch)
        for layer, z in zip(cache.layers, outputs, strict=True):
            if tuple(z.shape[1:]) != cache.dims(layer):
                raise DataError(
                    f"{images.name(rows)}: layer {layer!r} gives {tuple(z.shape[1:])}, before it "
                    f"gave {cache.dims(layer)}; give images of one size"
                )
            tensors[layer_tensor(layer)][here] = _rounded(z, layer, cache.dtype, images, rows)
        tensors[LOGITS][:, here] = logits.T
        tensors[PREDICTED][here] = predicted_classes(logits)
        if (labels is None) == (LABELS in tensors):
            raise DataError(f"{images.name(rows)}: some images have a label and some have none")
        if labels is not None:
            tensors[LABELS][here] = labels
        span = span[len(rows) :]
        if on_images is not None:
            on_images(len(pictures))
    return tensors


def _known_columns(dataset: Any, span: range) -> dict[str, Tensor]:
    if not isinstance(dataset, HeldOutCopies):
        return {}
    here = slice(span.start, span.stop)
    return {
        PICTURE: dataset.picture[here],
        COPY: dataset.copy[here],
        HELD_OUT: dataset.held_out[here],
    }


def _run(
    model: nn.Module, layers: Sequence[str], images: ImageRows, batch: Batch
) -> tuple[list[Tensor], Tensor]:
    """Outputs of the layers and logits of a batch, on the CPU and finite."""
    rows, pictures, _ = batch
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    pictures = pictures.to(device)
    try:
        check_inputs(model, pictures)
        outputs, logits = record_layers(model, layers, pictures)
        outputs = [
            as_activations(z, layer, pictures) for z, layer in zip(outputs, layers, strict=True)
        ]
    except XNNError as error:
        raise type(error)(f"{images.name(rows)}: {error}") from error
    for values, what in ((logits, "the model's outputs"), *zip(outputs, layers, strict=True)):
        bad = ~torch.isfinite(values.flatten(1)).all(dim=1)
        if bool(bad.any()):
            row = rows[int(bad.nonzero()[0])]
            what = what if values is logits else f"the activations of layer {what!r}"
            raise NonFiniteError(
                f"{images.name(range(row, row + 1))}: {what} are NaN or infinite; check the "
                "weights and the preprocessing"
            )
    return [z.float().cpu() for z in outputs], logits.float().cpu()


def _rounded(z: Tensor, layer: str, dtype: torch.dtype, images: ImageRows, rows: range) -> Tensor:
    rounded = z.to(dtype)
    finite = torch.isfinite(rounded.flatten(1)).all(dim=1)
    if not bool(finite.all()):
        row = rows[int((~finite).nonzero()[0])]
        raise NonFiniteError(
            f"{images.name(range(row, row + 1))}: activations of layer {layer!r} reach "
            f"{float(z.abs().max()):.3g}, too large for {str(dtype).removeprefix('torch.')}; "
            "record them with dtype='float32' or 'bfloat16'"
        )
    return rounded
