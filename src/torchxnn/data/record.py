"""One pass of the model over the data, kept in memory or in an activation cache on disk.

A cache is recorded chunk by chunk and resumable. Every chunk can be recorded on its own, by any
process, with `record_chunk`; `cache_activations` does it all. The numbers are the same in each
case: batches start at the first row of their chunk.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from torchxnn.data.activation_cache import (
    COPY,
    HELD_OUT,
    KIND,
    LABELS,
    LOGITS,
    PICTURE,
    PREDICTED,
    ActivationCache,
    kind_version,
    layer_tensor,
)
from torchxnn.data.activations import Activations, RowStore
from torchxnn.data.config import CacheDtype
from torchxnn.data.datasets.augment import HeldOutCopies
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.labels import empty_labels, fitting_labels, labels_form
from torchxnn.data.ordered_images import (
    ImageRows,
    data_fingerprint,
    image_rows,
    name_rows,
    numbered_batches,
)
from torchxnn.data.passes import OnImages, Pass, model_passes, rounded_outputs
from torchxnn.errors import DataError
from torchxnn.models.config import Doubt, OutputsConfig
from torchxnn.models.examination import EXAMINED, Examination, examine_model
from torchxnn.models.layers import resolve_layer, unwrap
from torchxnn.models.outputs import count_classes, predicted_classes
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.weights import fingerprint
from torchxnn.parallel.engine import Engine
from torchxnn.storage.artifact import plain
from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.storage.paths import Location

CHUNK_BYTES = 2**26
CHUNK_ROWS = 4096
"""Most bytes and rows of a chunk by default: what a kill can cost, and what a worker takes."""

_COLUMNS = (PICTURE, COPY, HELD_OUT)
"""What `HeldOutCopies` knows about its images, by the names of its attributes."""


def record_activations(
    model: nn.Module,
    layer: str | nn.Module,
    loader: Iterable[Any],
    on_batch: Callable[[int], None] | None = None,
    map_dtype: Literal["float16", "float32"] = "float16",
    map_memory: float = 2.0,
    on_first: Callable[[Tensor], object] | None = None,
    outputs: OutputsConfig | None = None,
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
        on_first: called with the images of the first batch (of the first two if it is a single
            image), on the model's device, once the model took the first; to examine the model
            before the others run.
        outputs: what the user says that the model's outputs mean; None asks the labels.

    Returns:
        `Activations` on the CPU.

    Raises:
        DataError: the loader is empty, yields something else, or images whose maps differ in size.
        NonFiniteError: NaN or infinity in images, activations or logits.
        LayerError: see `record_layers`.
    """
    layer, _ = resolve_layer(model, layer)
    z, logits, labels = (RowStore(map_memory) for _ in range(3))
    kept = getattr(torch, map_dtype)
    done = labelled = 0
    batches = numbered_batches(loader)
    passes = model_passes(model, [layer], batches, name_rows, on_batch, on_first)
    for rows, (output,), batch_logits, batch_labels in passes:
        dtype = kept if output.ndim == 4 else torch.float32
        z.append(rounded_outputs(output, layer, dtype, name_rows, rows, "map_dtype='float32'"))
        logits.append(batch_logits)
        done += len(rows)
        if batch_labels is not None:
            labels.append(batch_labels.cpu())
            labelled += len(rows)
    if not done:
        raise DataError("the loader is empty: there are no images to explain")
    if labelled not in (0, done):
        raise DataError("the loader gives labels for some batches only")
    found = labels.result() if labelled else None
    every = Activations(z.result(), logits.result(), found, map_memory)
    return every.settled(outputs or OutputsConfig())


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
    manifest_only: bool = False,
    engine: Engine | None = None,
    on_images: OnImages | None = None,
    allow: Collection[Doubt] = (),
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
        manifest_only: write or check the manifest and record nothing: the missing chunks, which
            `cache.store.missing()` lists, are then for `record_chunk`.
        engine: records chunks in other processes or on other machines, which then need to see the
            data and the location; the numbers are the same as on one thread of this process.
        on_images: called with a number of images, first with those that are there already.
        allow: doubts about the model that the caller accepts; see `examine_model`, whose findings
            are kept with the cache.

    Returns:
        The cache, complete but for `manifest_only`.

    Raises:
        DataError: another cache is at the location (the message says what differs), an image
            cannot be read (it is named), a loader that shuffles, no images.
        NonFiniteError: NaN, infinity, or values too large for `dtype`; the row is named.
        LayerError: see `record_layers`.
        ModelError: a doubt about the model that is not allowed.
        OSError: the disk is full; the same call goes on when there is space.

    Example:
        >>> cache = cache_activations(model, "features.12", dataset, "cache", dtype="float16")
        >>> cache.read("features.12", rows=torch.arange(100))
    """
    if dtype not in get_args(CacheDtype):
        raise DataError(f"dtype must be one of {', '.join(get_args(CacheDtype))}, got {dtype!r}")
    images = image_rows(data, batch_size, workers, rows)
    names = _layer_names(model, layers)
    if isinstance(images.dataset, ImageDataset):
        preprocessing = preprocessing or images.dataset.preprocessing
    examination, older = _examined(model, images, names, location)
    if examination is not None:
        examination.require(allow)
    about = _about(model, names, images, dtype, preprocessing, hidden=not older)
    if class_names is None:
        class_names = _known_classes(images.dataset, about["outputs"])
    notes = {
        "class_names": class_names and list(class_names),
        "source": source,
        "examination": plain(examination),
    }
    if chunk_rows is None:
        chunk_rows = _chunk_rows(location, about, images.batch_size)
    cache = ActivationCache(ChunkStore.create(location, about, images.count, chunk_rows, notes))
    if manifest_only:
        return cache
    missing = cache.store.missing()
    there = len(cache) - sum(len(cache.store.span(chunk)) for chunk in missing)
    if there and on_images is not None:
        on_images(there)
    if engine is None:
        _record(model, cache, images, missing, on_images)
    else:
        recorder = partial(record_chunk, batch_size=batch_size)  # of a chunk that is named later
        _record_elsewhere((recorder, model, data, cache.store.location), engine, missing, on_images)
    return ActivationCache.open(cache.store.location)


def _layer_names(model: nn.Module, layers: str | Sequence[str | nn.Module]) -> list[str]:
    wanted = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    names = [resolve_layer(model, layer)[0] for layer in wanted]
    if not names or len(set(names)) < len(names):
        raise DataError(f"give one or several different layers, got {names}")
    return names


def _record_elsewhere(
    given: tuple[Any, ...], engine: Engine, chunks: Sequence[int], on_images: OnImages | None
) -> None:
    """Record chunks with an engine; `given` is `record_chunk` and all its arguments but a chunk."""
    for _, count in engine.run(partial, given, operator.call, chunks):
        if on_images is not None:
            on_images(count)


def _examined(
    model: nn.Module, images: ImageRows, layers: Sequence[str], location: Location
) -> tuple[Examination | None, bool]:
    """What is known about a model, and whether a version that did not examine began the cache.

    It is read from the cache that is there, or found out on the first images of the data set.
    """
    with suppress(DataError):
        cache = ActivationCache.open(location, complete=False)
        cache.note_changing(model)
        return cache.examination, cache.examination is None
    found: list[Examination] = []
    probe = replace(images, workers=0).batches([range(min(EXAMINED, images.count))])
    passes = model_passes(
        model, layers, probe, images.name, None, lambda few: found.append(examine_model(model, few))
    )
    next(passes)
    return found[0], False


def _known_classes(dataset: Any, outputs: int) -> Sequence[str] | None:
    """The class names of a data set of ours, if there is one for each of the model's outputs."""
    if isinstance(dataset, ImageDataset) and len(dataset.classes) == count_classes(outputs):
        return dataset.classes
    return None


def record_chunk(
    model: nn.Module,
    data: Any,
    location: Location,
    chunk: int,
    *,
    batch_size: int = 32,
    workers: int = 0,
    on_images: OnImages | None = None,
) -> int:
    """Record one chunk of a cache whose manifest is there; for processes of your own.

    Args:
        model: the model of the manifest; the caller vouches for it.
        data: the same data as `cache_activations` was given, map-style.
        location: of the cache.
        chunk: its number.
        batch_size: as there, if the numbers are to be the same to the last bit.
        workers: processes that read ahead.
        on_images: called with the number of images of each batch.

    Returns:
        The number of images in the chunk.

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
    return len(cache.store.span(chunk))


def _about(
    model: nn.Module,
    layers: Sequence[str],
    images: ImageRows,
    dtype: str,
    preprocessing: Preprocessing | None,
    hidden: bool,
) -> dict[str, Any]:
    """What the cache depends on; shapes and outputs come from one pass on the first image."""
    inner = unwrap(model)
    probe = replace(images, workers=0).batches([range(1)])
    _, outputs, logits, labels = next(model_passes(model, layers, probe, images.name))
    columns = [PREDICTED] + ([LABELS] if labels is not None else [])
    if isinstance(images.dataset, HeldOutCopies):
        columns += _COLUMNS
    form = {} if labels is None else labels_form(labels)
    return {
        "kind": KIND,
        "kind_version": kind_version(logits.shape[1]),
        "model": {"class": type(inner).__name__, "fingerprint": fingerprint(inner, hidden)},
        "layers": {layer: list(z.shape[1:]) for layer, z in zip(layers, outputs, strict=True)},
        "outputs": logits.shape[1],
        "dtype": dtype,
        "columns": columns,
        "preprocessing": plain(preprocessing),
        "data": data_fingerprint(images),
        **form,
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
    passes = model_passes(model, cache.layers, batches, images.name, on_images)
    for chunk in chunks:
        cache.store.write(chunk, _chunk(cache, images, chunk, passes))


def _chunk(
    cache: ActivationCache, images: ImageRows, chunk: int, passes: Iterator[Pass]
) -> dict[str, Tensor]:
    """All tensors of a chunk, allocated once: pieces kept between passes would split the heap."""
    span = cache.store.span(chunk)
    count = len(span)
    known = _COLUMNS if isinstance(images.dataset, HeldOutCopies) else ()
    tensors = {name: getattr(images.dataset, name)[span.start : span.stop] for name in known}
    for layer in cache.layers:
        tensors[layer_tensor(layer)] = torch.empty((count, *cache.dims(layer)), dtype=cache.dtype)
    tensors[LOGITS] = torch.empty((cache.n_outputs, count))  # so that one output lies in one piece
    tensors[PREDICTED] = torch.empty(count, dtype=torch.int64)
    if LABELS in cache.store.about["columns"]:
        tensors[LABELS] = empty_labels(cache.store.about, count)
    while span:
        rows, outputs, logits, labels = next(passes)
        here = slice(count - len(span), count - len(span) + len(rows))
        for layer, z in zip(cache.layers, outputs, strict=True):
            if tuple(z.shape[1:]) != cache.dims(layer):
                raise DataError(
                    f"{images.name(rows)}: layer {layer!r} gives {tuple(z.shape[1:])}, before it "
                    f"gave {cache.dims(layer)}; give images of one size"
                )
            way_out = "dtype='float32' or 'bfloat16'"
            rounded = rounded_outputs(z, layer, cache.dtype, images.name, rows, way_out)
            tensors[layer_tensor(layer)][here] = rounded
        tensors[LOGITS][:, here] = logits.T
        tensors[PREDICTED][here] = predicted_classes(logits)
        if (labels is None) == (LABELS in tensors):
            raise DataError(f"{images.name(rows)}: some images have a label and some have none")
        if labels is not None:
            tensors[LABELS][here] = fitting_labels(labels, tensors[LABELS], images.name(rows))
        span = span[len(rows) :]
    return tensors
