"""What every data set yields, how pictures become tensors, and how batches are made."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing


@dataclass(frozen=True, eq=False)
class Sample:
    """One preprocessed picture and what is known about it.

    Attributes:
        image: (C, H, W), or a volume (C, D, H, W), float32, normalised as the network expects.
        label: 0-based class index, or None where the data set has no labels.
        path: where the picture came from, relative to the root of the data set, for people.
        parts: (P, 3) of x, y, visible (1 or 0) in pixels of the preprocessed picture; x runs to the
            right and y down from the top left corner of the picture. Parts that are not
            visible, or lie outside the crop, are 0, 0, 0.
        box: x, y, width, height in the same frame, clipped to it.
        masks: (H, W), int64: the number of the object class of every pixel of the preprocessed
            picture, 0 for pixels without one; `object_names` of the data set has the names.
    """

    image: Float[Tensor, "channels *pixels"]
    label: int | None
    path: str
    parts: Float[Tensor, "parts 3"] | None = None
    box: Float[Tensor, "4"] | None = None
    masks: Int64[Tensor, "height width"] | None = None


class ImageDataset(Dataset[Sample], ABC):
    """A list of pictures that a network can be run on; indices never shift.

    Attributes:
        name: for people.
        classes: class names in the order of the indices; empty where there are no labels.
        labels: the 0-based class index of every picture, or None where there are none.
        paths: where every picture lies, relative to the root, for people.
        preprocessing: how pictures become tensors.
        root: folder of the data set; None where there is none.
    """

    name: str
    classes: tuple[str, ...]
    labels: tuple[int, ...] | None
    paths: tuple[str, ...]
    preprocessing: Preprocessing
    root: Path | None = None

    @final
    def file(self, index: int) -> Path | None:
        """The picture's own file; None if it has none, as in a package or in one file of many."""
        path = None if self.root is None else self.root / self.paths[index]
        return path if path is not None and path.is_file() else None

    @abstractmethod
    def load(self, index: int) -> Sample:
        """Read the picture at an index from 0 to len - 1."""

    @final
    def __len__(self) -> int:
        return len(self.paths)

    @final
    def __getitem__(self, index: int) -> Sample:
        """Read one picture; negative indices count from the end.

        Raises:
            IndexError: if there is no such picture.
            DataError: if its file cannot be read.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, there is no image {index}")
        return self.load(index % len(self))


@final
class ImageSubset(ImageDataset):
    """Some pictures of another data set, in the given order.

    Raises:
        DataError: if an index lies outside the data set.
    """

    def __init__(self, dataset: ImageDataset, indices: Sequence[int]):
        self.dataset = dataset
        self.indices = tuple(int(index) for index in indices)
        outside = [index for index in self.indices if not 0 <= index < len(dataset)]
        if outside:
            raise DataError(
                f"indices of a subset of {dataset.name} must be 0 to {len(dataset) - 1}, "
                f"got {outside[0]}"
            )
        self.name = dataset.name
        self.classes = dataset.classes
        self.preprocessing = dataset.preprocessing
        self.root = dataset.root
        self.paths = tuple(dataset.paths[index] for index in self.indices)
        labels = dataset.labels
        self.labels = None if labels is None else tuple(labels[index] for index in self.indices)

    def load(self, index: int) -> Sample:
        """Read the picture at an index of the subset."""
        return self.dataset[self.indices[index]]


def make_loader(dataset: ImageDataset, batch_size: int = 32, workers: int = 0) -> DataLoader[Any]:
    """Batches in the order of the data set: (images, labels), or images where there are no labels.

    Images are float32 (B, C, H, W), volumes (B, C, D, H, W), labels int64 (B,); the last batch may
    be smaller.
    `workers` are processes that read ahead; 0 reads in this process.

    Raises:
        DataError: if the data set is empty or a number is out of range.
    """
    if batch_size < 1 or workers < 0:
        raise DataError(
            f"batch_size must be at least 1 and workers at least 0, got {batch_size} and {workers}"
        )
    if len(dataset) == 0:
        raise DataError(f"{dataset.name} has no images")
    collate = _stack_images if dataset.labels is None else _stack_labelled
    return DataLoader(dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate)


def _stack_images(samples: list[Sample]) -> Tensor:
    return torch.stack([sample.image for sample in samples])


def _stack_labelled(samples: list[Sample]) -> tuple[Tensor, Tensor]:
    missing = [sample.path for sample in samples if sample.label is None]
    if missing:
        raise DataError(f"{missing[0]} has no label in a data set with labels")
    return _stack_images(samples), torch.tensor([sample.label for sample in samples])
