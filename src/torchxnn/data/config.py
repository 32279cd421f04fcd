"""What users say of images and of recorded activations; nothing here loads PyTorch."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.config import Resize, Size

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from torchxnn.data.datasets.base import ImageDataset
    from torchxnn.models.preprocessing import Preprocessing


Split = Literal["train", "test", "all"]


CacheDtype = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class DataConfig:
    """How images are read.

    Attributes:
        layout: "folder" is class folders, or images without labels; "cub" is CUB-200-2011, "nyu"
            NYU Depth v2, "places" Places365, "ade20k" ADE20K, "mnist" MNIST and "funnybirds"
            FunnyBirds; "auto" looks.
        class_map: file that says which class folder is which output: lines "index name", or just
            a name on each, or JSON {name: index} or {index: name}; see `read_class_map`.
        split: part of a data set that has an official split; by default its training part to fit
            and its test part for everything else.
        size: of the model's input in pixels, 224 for a square, 16x64 for height and width or
            32x64x64 for depth, height and width of volumes; None takes what the model expects.
        resize: "squash" to that size or "crop" the centre; None takes what the model expects.
        in_channels: of the model's input; None takes what the model expects.
        mean: of pixel values in [0, 1] per channel, or one for all; None takes the model's.
        std: as `mean`.
        shown: 0-based channels that are drawn: three as red, green and blue, or one as grey.
        arrays: read .npy arrays rather than pictures; always so with neither 1 nor 3 channels. Of
            volumes, read no other files.
        images_per_pass: images per forward pass of the explained model.
        workers: processes that read images ahead.

    Raises:
        DataError: there is no such layout.
    """

    layout: str = "auto"
    class_map: Path | None = None
    split: Split | None = None
    size: Size | None = None
    resize: Resize | None = None
    in_channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    shown: tuple[int, ...] | None = None
    arrays: bool = False
    images_per_pass: int = 32
    workers: int = 0

    def __post_init__(self) -> None:
        if self.layout in ("auto", "folder"):
            return
        from torchxnn.data.datasets.open import DATASETS

        if self.layout not in (known := ("auto", "folder", *DATASETS)):
            raise DataError(f"there is no layout {self.layout!r}; known: {', '.join(known)}")

    def preprocessing(self, default: Preprocessing) -> Preprocessing:
        """The model's own preprocessing with what is given here in its place.

        Raises:
            DataError: a value out of range, or mean and std for different numbers of channels.
        """
        if self.in_channels is not None:
            default = default.with_channels(self.in_channels)
        changes: dict[str, Any] = {"arrays": self.arrays or default.arrays}
        for name in ("size", "resize", "shown"):
            if (value := getattr(self, name)) is not None:
                changes[name] = value
        for name in ("mean", "std"):
            if (numbers := getattr(self, name)) is not None:
                changes[name] = numbers * default.channels if len(numbers) == 1 else numbers
        if self.size is not None or self.resize is not None:
            changes["shorter_side"] = None
        return replace(default, **changes)

    def warn_of_assumed(self, assumed: bool, taken: Preprocessing) -> None:
        """Warn of a preprocessing that is a guess, unless size, mean and std are all given here."""
        if not assumed or None not in (self.size, self.mean, self.std):
            return
        mean, std = (", ".join(f"{each:.3g}" for each in part) for part in (taken.mean, taken.std))
        shape = " x ".join(map(str, taken.shape))
        warnings.warn(
            f"nobody says how pictures are prepared for this network: taking {shape}, "
            f"{taken.resize}, mean {mean} and std {std}; say it with --size, --resize, --mean and "
            "--std, or give the network an attribute `preprocessing`",
            XNNWarning,
            stacklevel=3,
        )

    def loader(self, dataset: ImageDataset) -> DataLoader[Any]:
        """Batches of the data set in its order."""
        from torchxnn.data.datasets.base import make_loader

        return make_loader(dataset, self.images_per_pass, self.workers)
