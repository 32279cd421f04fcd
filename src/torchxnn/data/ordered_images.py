"""Images of any data set or loader as numbered rows, in batches that do not depend on the start.

Row i is image i of the data. A batch never depends on which rows were read before, so a recording
that was interrupted goes on exactly as if it had not been.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler

from torchxnn.data.activations import split_batch
from torchxnn.data.datasets.augment import AugmentedImages, HeldOutCopies
from torchxnn.data.datasets.base import ImageDataset, ImageSubset, Sample
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.loading import by_position, image_tensor, label_tensor, read_batches
from torchxnn.errors import DataError, XNNError

SAMPLES = 8
"""Images whose contents enter the fingerprint, spread over the set."""

Batch = tuple[range, Tensor, Tensor | None]
Collate = Callable[[list[Any]], Any]


@dataclass(frozen=True, eq=False)
class ImageRows:
    """Images in a fixed order.

    Attributes:
        dataset: where they come from.
        count: how many there are.
        batch_size: images per batch; a span's last batch may be smaller.
        workers: processes that read ahead.
        collate: makes a batch of samples.
        stream: the loader to read from its start, where images cannot be asked for by number.
    """

    dataset: Any
    count: int
    batch_size: int
    workers: int
    collate: Collate
    stream: Iterable[Any] | None = None

    def name(self, rows: range) -> str:
        """Where rows come from, for messages."""
        paths = self.dataset.paths if isinstance(self.dataset, ImageDataset) else None
        return name_rows(rows, f" ({paths[rows.start]})" if paths else "")

    def batches(self, spans: Sequence[range]) -> Iterator[Batch]:
        """Batches of the given spans of rows, which ascend; no batch crosses the end of one.

        Yields:
            The rows, their images (B, C, H, W) and their labels (B,) or None.

        Raises:
            DataError: an image cannot be read, or the data end too early; the message names it.
        """
        wanted = [
            range(start, min(start + self.batch_size, span.stop))
            for span in spans
            for start in range(span.start, span.stop, self.batch_size)
        ]
        if self.stream is not None:
            yield from _from_stream(self.stream, wanted)
            return
        loader = DataLoader(
            _Guarded(self.dataset),
            batch_sampler=wanted,  # type: ignore[arg-type] # any iterable of indices will do
            num_workers=self.workers,
            collate_fn=partial(_guarded_collate, self.collate),
        )
        for rows, batch in zip(wanted, loader, strict=True):
            if isinstance(batch, _Failure):
                where = rows if batch.row is None else range(batch.row, batch.row + 1)
                raise DataError(f"{self.name(where)}: {batch.reason}")
            images, labels = split_batch(batch)
            if len(images) != len(rows):
                raise DataError(
                    f"the loader's collate_fn makes {len(images)} images of {len(rows)} samples; "
                    "each sample must give one image"
                )
            yield rows, images, labels


def name_rows(rows: range, of: str = "") -> str:
    """Rows for messages; `of` says where the first comes from."""
    if len(rows) == 1:
        return f"row {rows.start}{of}"
    return f"rows {rows.start}{of} to {rows.stop - 1}"


def image_rows(data: Any, batch_size: int, workers: int, rows: int | None = None) -> ImageRows:
    """The images of a data set or of a loader as numbered rows.

    Args:
        data: a data set that yields images or pairs (image, label), or a `DataLoader`, whose own
            batch size, workers and collate function then count.
        batch_size: images per batch.
        workers: processes that read ahead.
        rows: how many images to take; needed only if the data do not know their length.

    Raises:
        DataError: a loader that shuffles, leaves images out or samples its own way; no images; an
            unknown length; no data set at all.
    """
    if batch_size < 1 or workers < 0:
        raise DataError(
            f"batch_size must be at least 1 and workers at least 0, got {batch_size} and {workers}"
        )
    if isinstance(data, DataLoader):
        dataset, collate = data.dataset, data.collate_fn
        batch_size, workers = data.batch_size or batch_size, data.num_workers
        streamed = isinstance(dataset, IterableDataset)
        if not streamed:
            _check_order(data)
        stream = data if streamed else None
    else:
        dataset, collate, stream = data, stack_samples, None
        if isinstance(data, IterableDataset):
            stream = DataLoader(data, batch_size, num_workers=workers, collate_fn=stack_samples)
        elif not hasattr(data, "__getitem__"):
            raise DataError(f"a Dataset or a DataLoader is needed, got a {type(data).__name__}")
    length = len(dataset) if hasattr(dataset, "__len__") else None
    count = length if rows is None else rows
    if count is None:
        raise DataError(
            f"the length of {type(dataset).__name__} is not known; say how many images to take "
            "(rows=...)"
        )
    if count < 1 or (length is not None and count > length):
        raise DataError(f"{type(dataset).__name__} has {length} images, {count} are asked for")
    return ImageRows(dataset, count, batch_size, workers, collate, stream)


def _check_order(loader: DataLoader[Any]) -> None:
    if type(loader.sampler) is not SequentialSampler or (
        type(loader.batch_sampler) is not BatchSampler
    ):
        raise DataError(
            f"the loader takes its images in another order ({type(loader.sampler).__name__}), so "
            "rows could not be told apart when the recording is continued; make it with "
            "shuffle=False and without a sampler of its own, or give the data set itself"
        )
    if loader.drop_last:
        raise DataError("the loader leaves out the last images; make it with drop_last=False")


def stack_samples(samples: list[Any]) -> tuple[Tensor, Tensor] | Tensor:
    """A batch of images, or of images and labels, from samples of our data sets or of others.

    Raises:
        DataError: something else, labels for some only, or images of different sizes.
    """
    pairs = [_image_and_label(sample) for sample in samples]
    sizes = {tuple(image.shape) for image, _ in pairs}
    if len(sizes) > 1:
        raise DataError(f"images of different sizes, {sorted(sizes)[0]} and {sorted(sizes)[-1]}")
    images = torch.stack([image for image, _ in pairs])
    labels = [label for _, label in pairs if label is not None]
    if not labels:
        return images
    if len(labels) < len(pairs):
        raise DataError("some images have a label and some have none")
    if len({label.shape for label in labels}) > 1:
        raise DataError("labels of different shapes in one batch")
    return images, torch.stack(labels)


def _image_and_label(sample: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(sample, Sample):
        return sample.image, None if sample.label is None else torch.tensor(sample.label)
    sample = by_position(sample)
    image, label = sample, None
    if isinstance(sample, (tuple, list)) and sample:
        image, label = sample[0], sample[1] if len(sample) > 1 else None
    image, given = image_tensor(image), label
    label = None if given is None else label_tensor(given)
    if label is not None and label.numel() == 1:
        label = label.reshape(())
    if not isinstance(image, Tensor) or (given is not None and label is None):
        parts = sample if isinstance(sample, (tuple, list)) else [sample]
        raise DataError(
            "the data must yield image tensors or pairs (image tensor, label), they yield "
            f"{', '.join(type(part).__name__ for part in parts)}"
        )
    return image, label


@dataclass(frozen=True)
class _Failure:
    """An error of a worker, as a value: raised in the worker it would lose its class."""

    row: int | None
    reason: str


@dataclass(frozen=True, eq=False)
class _Guarded(Dataset[Any]):
    dataset: Any

    def __getitem__(self, row: int) -> Any:
        try:
            return self.dataset[row]
        except Exception as error:  # whatever somebody's data set raises
            return _Failure(row, _reason(error))


def _guarded_collate(collate: Collate, samples: list[Any]) -> Any:
    failures = [sample for sample in samples if isinstance(sample, _Failure)]
    if failures:
        return failures[0]
    try:
        return collate(samples)
    except Exception as error:  # whatever somebody's collate function raises
        return _Failure(None, _reason(error))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, XNNError) else f"{type(error).__name__}: {text}"


def _from_stream(loader: Iterable[Any], wanted: Sequence[range]) -> Iterator[Batch]:
    """The wanted rows of a loader that can only be read from its start."""
    source = numbered_batches(loader)
    piece: Batch | None = None
    for rows in wanted:
        parts = []
        at = rows.start
        while at < rows.stop:
            while piece is None or piece[0].stop <= at:
                piece = next(source, None)
                if piece is None:
                    raise DataError(f"the data end before row {at}; give rows=... if it is right")
            there, images, labels = piece
            stop = min(there.stop, rows.stop)
            cut = slice(at - there.start, stop - there.start)
            parts.append((images[cut], None if labels is None else labels[cut]))
            at = stop
        known = [labels for _, labels in parts if labels is not None]
        if len(known) not in (0, len(parts)):
            raise DataError("the loader gives labels for some batches only")
        yield rows, torch.cat([images for images, _ in parts]), torch.cat(known) if known else None


def numbered_batches(loader: Iterable[Any]) -> Iterator[Batch]:
    """Batches as a loader gives them, with the numbers of their rows.

    Raises:
        DataError: see `read_batches` and `split_batch`.
    """
    start = 0
    for batch in read_batches(loader):
        images, labels = split_batch(batch)
        yield range(start, start + len(images)), images, labels
        start += len(images)


def data_fingerprint(rows: ImageRows) -> dict[str, Any]:
    """What the images are, in plain values of which each can be named when it differs.

    Of our own data sets: names, labels, sizes of all files and the contents of a few; of others:
    the class, the number of images and the contents of a few, spread over the set. Streams are told
    apart by their first image.
    """
    if rows.stream is not None:
        _, images, labels = next(rows.batches([range(1)]))
        first = {"first_image": _digest(_content(images, labels))}
        return {"kind": type(rows.dataset).__name__, "images": rows.count, **first}
    return {**_fingerprint(rows.dataset, rows.collate), "images": rows.count}


def _fingerprint(data: Any, collate: Collate = stack_samples) -> dict[str, Any]:
    kind: dict[str, Any] = {"kind": type(data).__name__}
    match data:
        case ImageSubset():
            return {**kind, "indices": _digest([data.indices]), "of": _fingerprint(data.dataset)}
        case AugmentedImages():
            copies = len(data) // len(data.dataset) - data.originals
            rule = {"copies": copies, "originals": data.originals, "seed": data.seed}
            return {**kind, **rule, "of": _fingerprint(data.dataset)}
        case HeldOutCopies():
            copies = int(data.copy.max())
            split = {"copies": copies, "held_out": data.share, "seed": data.seed}
            return {**kind, **split, "of": _fingerprint(data.dataset)}
        case ImageDataset():
            files = [data.file(index) for index in range(len(data))]
            sizes: Any = [None if file is None else file.stat().st_size for file in files]
            if isinstance(data, ImageFolder) and data.remote_sizes is not None:
                sizes = data.remote_sizes
            chosen = [files[index] for index in _spread(len(data))]
            content = [file.read_bytes() for file in chosen if file is not None]
            whole = len(content) == len(chosen)
            return {
                **kind,
                "names": _digest([data.paths]),
                "labels": _digest([data.labels]),
                "file_sizes": _digest(sizes),
                "samples": _digest(content) if whole else _samples(data, stack_samples),
            }
    return {**kind, "length": len(data), "samples": _samples(data, collate)}


def _spread(count: int) -> list[int]:
    return sorted({round(i * (count - 1) / (SAMPLES - 1)) for i in range(SAMPLES)})


def _samples(data: Any, collate: Collate) -> str:
    rows = ImageRows(data, len(data), 1, 0, collate)
    spans = [range(index, index + 1) for index in _spread(len(data))]
    return _digest(
        part for _, images, labels in rows.batches(spans) for part in _content(images, labels)
    )


def _content(images: Tensor, labels: Tensor | None) -> list[Any]:
    first = images[0].detach().cpu().contiguous()
    label = None if labels is None else labels[0].tolist()
    return [
        f"{first.dtype} {tuple(first.shape)} {label}",
        first.reshape(-1).view(torch.uint8).numpy().tobytes(),
    ]


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:32]
