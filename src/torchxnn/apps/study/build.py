"""`xnn study init`: predict, explain and draw the pictures of a study under opaque names."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from torchxnn.apps.saved_xnn import open_run
from torchxnn.apps.study.config import DataSource, StudyConfig
from torchxnn.apps.study.design import draw_sets
from torchxnn.apps.study.media import Media
from torchxnn.apps.study.plan import (
    CONSENT,
    MEDIA,
    PLAN,
    TEXTS,
    StudyDataSet,
    StudyImage,
    StudyPlan,
)
from torchxnn.apps.study.practice import make_practice
from torchxnn.apps.study.settings import Cue, StudySettings
from torchxnn.apps.study.texts import default_consent, default_texts, read, text_file, text_tasks
from torchxnn.attribution.methods import METHODS, OF_ANY_MODULE, PAPER
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.base import ImageDataset, ImageSubset, make_loader
from torchxnn.data.datasets.images import read_image
from torchxnn.data.datasets.open import open_dataset
from torchxnn.errors import DataError, XNNWarning
from torchxnn.explanations.drawing.overlay import intensities, overlay
from torchxnn.models.layers import run_model
from torchxnn.models.load import count_outputs
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.artifact import __version__
from torchxnn.storage.files import replace_folder
from torchxnn.xnn import XNN

LONG_SIDE = 384
"""Pixels of the longer side of a study's pictures."""

OnImages = Callable[[str, int, int], None]
"""Called with the data set, pictures drawn so far, and their total."""


def build_study(config: StudyConfig, out: Path, on_images: OnImages | None = None) -> StudyPlan:
    """Build a study folder `out`; it appears whole or not at all.

    It must not exist or be empty: a study that was served is never replaced.

    Raises:
        DataError: too few pictures, classes that do not match, or the folder exists.
        ModelError: an XNN that does not belong to its network.
    """
    sources = [partial(open_source, source) for source in config.data_sets]
    return write_study(config.settings(), sources, out, config.consent, on_images)


def write_study(
    settings: StudySettings,
    sources: Sequence[Callable[[], Source]],
    out: Path,
    consent: Path | None = None,
    on_images: OnImages | None = None,
) -> StudyPlan:
    """Draw all pictures of the sources and write the folder; see `build_study`."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists; choose another --out: a study is never replaced")
    own = default_consent(settings.task, settings.language)
    text = own if consent is None else read(consent)
    with replace_folder(out, PLAN) as folder:
        media = Media(folder / MEDIA, settings.seed)
        data_sets = tuple(_draw(make(), settings, media, on_images) for make in sources)
        features = max(len(image.overlays) for data in data_sets for image in data.images)
        plan = StudyPlan(
            version=__version__,
            settings=settings,
            data_sets=data_sets,
            practice=make_practice(media, features),
        )
        (folder / TEXTS).mkdir()
        for task in text_tasks(settings.task):
            file = folder / TEXTS / text_file(settings.language, task)
            file.write_text(default_texts(settings.language, task), "utf-8")
        (folder / CONSENT).write_text(text, "utf-8")
        plan.write(folder)
    return plan


@dataclass(frozen=True, eq=False)
class Source:
    """An XNN and the pictures that it is to explain.

    Attributes:
        key: short name.
        name: for reports.
        xnn: fitted to one target per class of the study.
        dataset: pictures with labels that are indices of the network's outputs.
        most: pictures taken per class.
        cue: what the network was made to look at, if participants are asked for it.

    Raises:
        DataError: no labels, or an XNN of a single target or without preprocessing.
    """

    key: str
    name: str
    xnn: XNN
    dataset: ImageDataset
    most: int = 50
    cue: Cue | None = None

    def __post_init__(self) -> None:
        if len(self.xnn.targets) < 2:
            raise DataError(
                f"{self.key}: the XNN explains {len(self.xnn.targets)} class; fit one with several "
                "targets: xnn fit ... --target A B C D"
            )
        if self.dataset.labels is None:
            raise DataError(
                f"{self.key}: the class folders of {self.dataset.name} are not classes of the "
                "network"
            )
        _preprocessing(self.key, self.xnn)

    def choose(self, generator: random.Random) -> list[int]:
        """At most `most` pictures of every class, drawn at random, in the data set's order."""
        found: list[int] = []
        for target in self.xnn.targets:
            labels = cast(tuple[int, ...], self.dataset.labels)
            own = [index for index, label in enumerate(labels) if label == target]
            if not own:
                raise DataError(
                    f"{self.key}: {self.dataset.name} has no pictures of "
                    f"{self.xnn.class_name(target)!r}"
                )
            found += generator.sample(own, min(self.most, len(own)))
        return sorted(found)

    def picture(self, index: int, image: Tensor) -> UInt8[np.ndarray, "height width 3"]:
        """What participants see: the photograph in its own proportions, if the network saw all."""
        file = self.dataset.file(index)
        preprocessing = _preprocessing(self.key, self.xnn)
        if preprocessing.resize == "squash" and file is not None and not preprocessing.takes_arrays:
            photograph = read_image(file)
            scale = LONG_SIDE / max(photograph.size)
            size = (round(photograph.width * scale), round(photograph.height * scale))
            return np.asarray(photograph.resize(size, Image.Resampling.LANCZOS))
        seen = preprocessing.picture(image)
        scale = LONG_SIDE / max(preprocessing.height, preprocessing.width)
        sides = round(preprocessing.width * scale), round(preprocessing.height * scale)
        return cv2.resize(seen, sides, interpolation=cv2.INTER_CUBIC)


def _preprocessing(key: str, xnn: XNN) -> Preprocessing:
    if xnn.preprocessing is None:
        raise DataError(f"{key}: the XNN does not say how pictures are preprocessed")
    xnn.preprocessing.check_takes_images(f"{key}: a study shows images")
    return xnn.preprocessing


def open_source(source: DataSource) -> Source:
    """Open the XNN, its network and the pictures of one data set."""
    xnn = open_run(source.xnn, source.model, source.weights)
    preprocessing, settings = _preprocessing(source.key, xnn), DataConfig(split=source.split)
    outputs = count_outputs(xnn.model, preprocessing)
    opened = open_dataset(source.images, preprocessing, settings, outputs, xnn.class_names, "test")
    if opened.dataset.name == (xnn.source or {}).get("data"):
        warnings.warn(
            f"{source.key}: the XNN was fitted on pictures of {opened.dataset.name!r}, too; a "
            "study should show pictures that neither network nor XNN was fitted on",
            XNNWarning,
            stacklevel=2,
        )
    drawn = opened.dataset, source.images_per_class, source.cue
    return Source(source.key, source.name, xnn, *drawn)


def _draw(
    source: Source, settings: StudySettings, media: Media, on_images: OnImages | None
) -> StudyDataSet:
    xnn, generator = source.xnn, random.Random(f"{settings.seed}/{source.key}")
    chosen = source.choose(generator)
    loader = make_loader(ImageSubset(source.dataset, chosen))
    logits = torch.cat([run_model(xnn.model, images) for images, _ in loader])
    predicted = logits[:, list(xnn.targets)].argmax(1).tolist()
    kinds = _kinds(source, chosen, predicted) if settings.between else predicted
    sets = draw_sets(
        kinds, settings.sets, settings.images_per_set, settings.draw == "balanced", generator
    )
    if len(set(predicted)) < 2:
        raise DataError(f"{source.key}: the network predicts a single class for all pictures")
    methods = sorted({arm.method for arm in settings.arms if "1-Heatmap" in arm.stages})
    unknown = [method for method in methods if method not in OF_ANY_MODULE]
    if unknown:
        raise DataError(
            f"unknown attribution method {unknown[0]!r}; known: {', '.join(OF_ANY_MODULE)}"
        )
    found: list[StudyImage] = []
    total = settings.sets * settings.images_per_set
    for number, members in enumerate(sets, start=1):
        for member in members:
            found.append(
                _draw_image(source, chosen[member], predicted[member], number, methods, media)
            )
            if on_images is not None:
                on_images(source.name, len(found), total)
    order = list(found)
    random.Random(f"{settings.seed}/{source.key}/order").shuffle(order)
    labels = [xnn.class_name(target) for target in xnn.targets]
    return StudyDataSet(
        key=source.key,
        name=source.name,
        classes=tuple(labels),
        agreement=float(np.mean([image.predicted == image.label for image in found])),
        about=_about(source, predicted, chosen),
        images=tuple(sorted(order, key=lambda image: image.set)),
        cue=source.cue,
    )


def _kinds(source: Source, chosen: Sequence[int], predicted: Sequence[int]) -> list[int]:
    """A number for each pair of label and prediction: spread evenly, the label tells nothing."""
    labels, targets = cast(tuple[int, ...], source.dataset.labels), source.xnn.targets
    return [
        len(targets) * targets.index(labels[index]) + said
        for index, said in zip(chosen, predicted, strict=True)
    ]


def _about(source: Source, predicted: list[int], chosen: list[int]) -> dict[str, Any]:
    xnn = source.xnn
    return {
        "network": (xnn.source or {}).get("description", ""),
        "layer": xnn.layer,
        "targets": list(xnn.targets),
        "n_features": len(xnn.feature_names),
        "r2_validation": None if xnn.report is None else xnn.report.validation.r2,
        "data": source.dataset.name,
        "pictures_drawn_from": len(chosen),
        "predictions": [predicted.count(index) for index in range(len(xnn.targets))],
    }


def _draw_image(
    source: Source, index: int, predicted: int, number: int, methods: Sequence[str], media: Media
) -> StudyImage:
    xnn, sample = source.xnn, source.dataset[index]
    batch = sample.image.unsqueeze(0).to(xnn.device)
    picture = source.picture(index, sample.image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XNNWarning)  # a silent x-feature is drawn as such
        maps = xnn.attribute(batch, PAPER)[0]
        with torch.no_grad():
            parts = xnn.contributions(batch)[0, predicted]
        target = xnn.targets[predicted]
        heatmaps = {
            name: _overlay(METHODS[name](xnn.model).attribute(batch, target)[0], picture)
            for name in methods
        }
    share = parts / parts.abs().sum().clamp(min=1e-12)
    label = cast(int, sample.label)
    return StudyImage(
        id=media.id(),
        file=sample.path,
        label=xnn.class_name(label),
        predicted=xnn.class_name(target),
        set=number,
        picture=media.add(picture),
        heatmaps={name: media.add(drawn) for name, drawn in heatmaps.items()},
        overlays=tuple(media.add(_overlay(each, picture)) for each in maps),
        contributions=tuple(round(float(value), 4) for value in share),
    )


def _overlay(
    heatmap: Float[Tensor, "rows columns"], picture: UInt8[np.ndarray, "height width 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """A heatmap, normalised by itself (paper), laid over the picture."""
    intensity = intensities([heatmap.detach().cpu().numpy()])[0]
    height, width = picture.shape[:2]
    sized = cv2.resize(intensity, (width, height), interpolation=cv2.INTER_LINEAR)
    return overlay(picture, sized.clip(0, 1))
