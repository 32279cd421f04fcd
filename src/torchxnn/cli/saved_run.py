"""What several commands share: the model or the saved XNN that they are about, and its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.progress import Progress
from tyro.conf import Positional, arg

from torchxnn.cli.imports import computing
from torchxnn.cli.terminal import count_images
from torchxnn.data.config import DataConfig
from torchxnn.models.config import Doubt, OutputsConfig
from torchxnn.parallel.config import EngineConfig

if TYPE_CHECKING:
    from torchxnn.data.activation_cache import ActivationCache
    from torchxnn.data.datasets.base import ImageDataset
    from torchxnn.data.datasets.open import OpenedData
    from torchxnn.models.load import LoadedModel
    from torchxnn.models.preprocessing import Preprocessing
    from torchxnn.storage.paths import Location


@dataclass(frozen=True)
class NamedModel:
    """A model by its name, and how images reach it."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """torchvision:NAME, timm:NAME, hf:NAME-OR-FOLDER or package.module:factory"""
    weights: Path | None = field(default=None, kw_only=True)
    """state dict of the model: .safetensors, or .pt / .pth / .ckpt without code in it"""
    random_weights: bool = field(default=False, kw_only=True)
    """take a model with random weights (only to try things out)"""
    allow: tuple[Doubt, ...] = field(default=(), kw_only=True)
    """go on though the model gives two answers to the same images (randomness), an answer that
    depends on the other images of a batch (batch), or probabilities that are to be explained"""
    source: DataConfig = field(default_factory=DataConfig, kw_only=True)
    outputs: OutputsConfig = field(default_factory=OutputsConfig, kw_only=True)
    engine: EngineConfig = field(default_factory=EngineConfig, kw_only=True)

    def load(self) -> LoadedModel:
        """The model in evaluation mode."""
        with computing():
            from torchxnn.models.load import load_model

        return load_model(self.model, self.weights, allow_random=self.random_weights)

    def preprocessing(self, loaded: LoadedModel) -> Preprocessing:
        """How images become tensors: what the model expects, unless the user says otherwise."""
        return self.source.preprocessing(loaded.preprocessing)

    def open(self, loaded: LoadedModel, data: str, progress: Progress) -> OpenedData:
        """A folder of images as a data set for the model; its training part by default."""
        from torchxnn.data.datasets.open import open_dataset
        from torchxnn.models.load import count_outputs

        preprocessing = self.preprocessing(loaded)
        self.source.warn_of_assumed(loaded.assumed, preprocessing)
        outputs = count_outputs(loaded.model, preprocessing)
        names, labelled = loaded.classes, self.outputs_of(loaded).kind != "value"
        return open_dataset(
            data, preprocessing, self.source, outputs, names, "train", progress, labelled
        )

    def outputs_of(self, loaded: LoadedModel) -> OutputsConfig:
        """What the user says of the model's outputs, or else what the model says."""
        from torchxnn.models.declared_outputs import declared_outputs

        return declared_outputs(self.outputs, loaded.model)

    def allowed(self, loaded: LoadedModel) -> tuple[Doubt, ...]:
        """Doubts that are accepted, see `OutputsConfig`."""
        return self.outputs_of(loaded).allowed(self.allow)

    def origin(self, loaded: LoadedModel, data: str) -> dict[str, Any]:
        """Where the model and its data come from, as `XNN.source` has it."""
        return describe_source(
            self.model, self.weights, loaded.random_weights, loaded.description, data
        )

    def record(
        self,
        loaded: LoadedModel,
        layers: str | Sequence[str],
        data: str,
        place: Location,
        copies: tuple[int, float, int],
        progress: Progress,
        **settings: Any,
    ) -> ActivationCache:
        """Record activations of a folder of images, and of altered copies of them, with a bar.

        Args:
            loaded: the model.
            layers: dotted names.
            data: the folder of images.
            place: where the cache lies.
            copies: how many of every image, which share of the images is held out, and the seed.
            progress: gets the bar.
            settings: further arguments of `cache_activations`.
        """
        from torchxnn.data.datasets.augment import HeldOutCopies
        from torchxnn.data.record import cache_activations

        opened = self.open(loaded, data, progress)
        dataset: ImageDataset = opened.dataset
        if copies[0]:
            dataset = HeldOutCopies(dataset, *copies)
        return cache_activations(
            loaded.model,
            layers,
            dataset,
            place,
            batch_size=self.source.images_per_pass,
            workers=self.source.workers,
            preprocessing=self.preprocessing(loaded),
            class_names=opened.class_names,
            source=self.origin(loaded, opened.dataset.name),
            engine=None if self.engine == EngineConfig() else self.engine.make(),
            on_images=count_images(progress, "Recording activations", len(dataset)),
            allow=self.allowed(loaded),
            **settings,
        )


@dataclass(frozen=True)
class SavedRun:
    """A saved XNN and the model that it explains."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder written by `xnn fit`"""
    weights: Path | None = field(default=None, kw_only=True)
    """state dict of the model, if it has moved since"""
    model: str | None = field(default=None, kw_only=True)
    """the model, if it has another name now"""

    def load(self) -> Any:
        """The XNN, attached to its model; the model's fingerprint is checked."""
        with computing():
            from torchxnn.apps.saved_xnn import open_run

        return open_run(self.run, self.model, self.weights)


@dataclass(frozen=True)
class SavedRunOnImages(SavedRun):
    """A saved XNN and the model that it explains, for a folder of images."""

    data: Annotated[Positional[str], arg(metavar="DIR")]
    """folder of images in class folders, or a CUB-200-2011 folder (its test split); class folders
    may also lie in object storage (s3://bucket/folder)"""
    source: DataConfig = field(default_factory=DataConfig, kw_only=True)


def open_for(xnn: Any, data: str | Path, source: DataConfig, progress: Progress) -> ImageDataset:
    """A folder as a data set for the model of an XNN; its test part by default."""
    from torchxnn.data.datasets.open import open_dataset
    from torchxnn.models.load import count_outputs

    preprocessing = source.preprocessing(xnn.preprocessing)
    outputs = count_outputs(xnn.model, preprocessing)
    labelled = xnn.meaning.outputs_are != "value"
    opened = open_dataset(
        data, preprocessing, source, outputs, xnn.class_names, "test", progress, labelled
    )
    return opened.dataset


def describe_source(
    model: str, weights: Path | None, random_weights: bool, description: str, data: str
) -> dict[str, Any]:
    """Where a model and its data come from, as `XNN.source` has it, to be found again."""
    from torchxnn.models.from_hugging_face import lasting_name

    return {
        "model": lasting_name(model),
        "weights": weights and str(weights.resolve()),
        "description": description,
        "data": data,
        "random_weights": random_weights,
    }


def folder_names(images: Sequence[Path]) -> list[str]:
    """One folder name per image: its stem; where several share one, "x", "x-2", "x-3" and so on.

    No two are equal, also where letters of both cases are the same to the file system, and no
    added number gives the stem of another image.
    """
    stems = {path.stem.casefold() for path in images}
    taken: set[str] = set()
    names = []
    for path in images:
        numbered = (f"{path.stem}-{number}" for number in count(2))
        names.append(
            path.stem
            if path.stem.casefold() not in taken
            else next(name for name in numbered if name.casefold() not in taken | stems)
        )
        taken.add(names[-1].casefold())
    return names
