"""Heatmaps of every image of a data set, streamed to disk: in chunks, resumable, by any engine.

A chunk is drawn by one process on one thread, in batches that start at its first image, so the
files are the same wherever and in whatever order they are drawn. `Heatmaps` reads them.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from torchxnn.apps.heatmaps.config import HeatmapConfig
from torchxnn.apps.heatmaps.drawing import draw_chunk, find_part, image_names, image_size
from torchxnn.apps.heatmaps.store import CONSERVATION, FALLBACK, KIND, KIND_VERSION, Heatmaps
from torchxnn.attribution.base import CONSERVATION_LIMIT, FALLBACK_LIMIT
from torchxnn.attribution.methods import CERTIFIED
from torchxnn.data.datasets.base import ImageDataset
from torchxnn.data.ordered_images import data_fingerprint, image_rows
from torchxnn.data.positives import positives_of
from torchxnn.errors import AttributionWarning, DataError, SkippedImagesWarning
from torchxnn.explanations.maps import default_method
from torchxnn.models.weights import fingerprint
from torchxnn.parallel.engine import Engine, LocalEngine
from torchxnn.storage.artifact import plain
from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.storage.paths import Location, as_place
from torchxnn.xnn import XNN

CHUNK_BYTES, CHUNK_ROWS = 2**25, 256
"""Most bytes and images of a chunk by default: what a kill can cost each worker."""

_FINDING = 256  # images per job when positives are looked for
_NAMED = 5  # unreadable images that the warning names

OnImages = Callable[[int, int], None]


def attribute_many(
    xnn: XNN,
    dataset: Any,
    location: Location,
    config: HeatmapConfig | None = None,
    *,
    engine: Engine | None = None,
    on_images: OnImages | None = None,
) -> Heatmaps:
    """Draw the x-features' heatmaps of a data set and keep them on disk.

    Interrupted at any moment, the same call goes on where it stopped; complete heatmaps are opened
    at once. An image that cannot be read keeps its row, with NaN and the reason.

    Args:
        xnn: fitted.
        dataset: images, or pairs (image, label), by number; not a loader.
        location: a folder, or an fsspec URL; with an engine of several machines all must reach it.
        config: what to draw and how to keep it.
        engine: where to draw; None is this process. Every process has its own copy of the network.
        on_images: called with the images done and their total, first with those that are there.

    Returns:
        The complete heatmaps.

    Raises:
        DataError: other heatmaps are at the location (the message says what differs), no images,
            no positives, none can be read, or a network of volumes.
        NonFiniteError: NaN or infinity in an image, which is named, or in a heatmap.
        UnsupportedOperationError: an operation without a rule lies on the way.

    Example:
        >>> maps = attribute_many(xnn, dataset, "maps", HeatmapConfig(map_size=56))
        >>> maps[0].contributions
    """
    if xnn.preprocessing is not None:
        xnn.preprocessing.check_takes_images("heatmaps on disk are of images")
    config = config or HeatmapConfig()
    engine = engine or LocalEngine()
    location = as_place(location)
    location = location.absolute() if isinstance(location, Path) else location
    store = _open_store(xnn, dataset, location, config, engine)
    todo = store.missing()
    done = store.rows - sum(len(store.span(chunk)) for chunk in todo)
    if on_images is not None:
        on_images(done, store.rows)
    given = draw_chunk, store, xnn, dataset, config
    for _, images in engine.run(partial, given, operator.call, todo):
        done += images
        if on_images is not None:
            on_images(done, store.rows)
    heatmaps = Heatmaps.open(store.location)
    _warn(heatmaps)
    return heatmaps


# --- the store


def _open_store(
    xnn: XNN, dataset: Any, location: Location, config: HeatmapConfig, engine: Engine
) -> ChunkStore:
    """A new store, or the one that is there; only a new one asks which images are positives."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"a data set is needed, with images by number, got {type(dataset).__name__}"
        )
    if not len(dataset):
        raise DataError("the data set has no images")
    labels = dataset.labels if isinstance(dataset, ImageDataset) else None
    about = _about(xnn, dataset, config, labelled=labels is not None)
    there = None
    with suppress(DataError):  # `create` says what else is there
        there = ChunkStore.open(location)
    if there is not None:
        return ChunkStore.create(location, about, there.rows, config.chunk_rows or there.chunk_rows)
    left_out = [(image.path, image.reason) for image in getattr(dataset, "skipped", ())]
    rows: list[int] | None = None
    if config.images == "positives":
        rows, unread = _find_positives(xnn, dataset, labels, config, engine)
        left_out += unread
    names = image_names(dataset, rows)
    notes = {
        "rows": rows,
        "names": names,
        "left_out": left_out,
        "class_names": None if xnn.class_names is None else list(xnn.class_names),
        "source": xnn.source,
    }
    n, (height, width) = about["features"], about["maps"]
    per_image = n * height * width * getattr(torch, config.dtype).itemsize
    fit = max(1, min(CHUNK_ROWS, CHUNK_BYTES // per_image))
    chunk_rows = config.chunk_rows or fit // config.images_at_once * config.images_at_once or fit
    return ChunkStore.create(location, about, len(names), chunk_rows, notes)


def _about(xnn: XNN, dataset: Any, config: HeatmapConfig, *, labelled: bool) -> dict[str, Any]:
    """What the heatmaps depend on, in plain values of which each can be named when it differs."""
    embedding = xnn.fitted()
    height, width = image_size(dataset)
    if config.map_size is not None and config.map_size > min(height, width):
        raise DataError(f"map_size {config.map_size} is larger than the images, {height} x {width}")
    by = "label" if labelled else "prediction"
    preprocessing = dataset.preprocessing if isinstance(dataset, ImageDataset) else None
    return {
        "kind": KIND,
        "kind_version": KIND_VERSION,
        "model": {"class": type(xnn.model).__name__, "fingerprint": fingerprint(xnn.model)},
        "layer": xnn.layer,
        "xnn": fingerprint(embedding),
        "targets": list(xnn.targets),
        "features": embedding.n_features,
        "method": config.method or default_method(xnn.fitted()),
        "dtype": config.dtype,
        "maps": [height, width] if config.map_size is None else [config.map_size, config.map_size],
        "chosen": "all" if config.images == "all" else f"positives by {by}",
        "images_at_once": config.images_at_once,
        "preprocessing": plain(preprocessing),
        "data": data_fingerprint(image_rows(dataset, 1, 0)),
    }


# --- which images


def _find_positives(
    xnn: XNN, dataset: Any, labels: Sequence[int] | None, config: HeatmapConfig, engine: Engine
) -> tuple[list[int], list[tuple[str, str]]]:
    """Rows of the positives, and images of which it is not known, with the reason."""
    unread: list[tuple[str, str]] = []
    if labels is not None:
        known = torch.tensor(labels)
        mask, _ = positives_of(known, None, xnn.targets, xnn.outputs, xnn.meaning)
        rows = mask.any(1).nonzero().flatten().tolist()
    else:
        parts = range(0, len(dataset), _FINDING)
        todo = [range(first, min(first + _FINDING, len(dataset))) for first in parts]
        given = find_part, xnn, dataset, config
        found = dict(engine.run(partial, given, operator.call, todo))
        rows = [row for index in sorted(found) for row in found[index][0]]
        unread = [pair for index in sorted(found) for pair in found[index][1]]
    if not rows:
        names = " or ".join(repr(xnn.target_name(target)) for target in xnn.targets)
        raise DataError(f"there are no images of {names}; draw all images (images='all')")
    return rows, unread


def _warn(heatmaps: Heatmaps) -> None:
    unreadable = heatmaps.unreadable
    if unreadable:
        named = ", ".join(f"{name} ({text})" for name, text in list(unreadable.items())[:_NAMED])
        more = ", ..." if len(unreadable) > _NAMED else ""
        warnings.warn(
            f"{len(unreadable)} image(s) could not be read and have no heatmaps: {named}{more}",
            SkippedImagesWarning,
            stacklevel=3,
        )
    if heatmaps.method not in CERTIFIED:
        return
    for name, limit, text in (
        (FALLBACK, FALLBACK_LIMIT, "relevance that was shared by size alone"),
        (CONSERVATION, CONSERVATION_LIMIT, "an error of conservation"),
    ):
        values = heatmaps.column(name).nan_to_num(0.0)
        many = int((values > limit).sum())
        if many:
            warnings.warn(
                f"{many} of {len(heatmaps)} images have {text} above {limit:g}, up to "
                f"{float(values.max()):.2g}; column {name!r} has it image by image",
                AttributionWarning,
                stacklevel=3,
            )
