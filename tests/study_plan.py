"""A tiny study for tests: flat-coloured pictures, no network."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from torchxnn.apps.study.media import Media
from torchxnn.apps.study.plan import CONSENT, MEDIA, TEXTS, StudyDataSet, StudyImage, StudyPlan
from torchxnn.apps.study.practice import make_practice
from torchxnn.apps.study.settings import Cue, StudySettings
from torchxnn.apps.study.texts import default_texts, text_file, text_tasks

CLASSES = ("alpha", "beta", "gamma", "delta")
FEATURES = 7


def write_tiny_study(folder: Path, keys: tuple[str, ...] = ("birds", "cells"), **settings: Any) -> StudyPlan:  # fmt: skip # noqa: E501
    """A complete study folder; class c has pictures of one colour."""
    made = StudySettings(**({"title": "A tiny study", "seed": 3} | settings))
    pictures, data_sets, practice = _made(keys, made.seed, made.sets, made.images_per_set)
    shutil.copytree(pictures.name, folder / MEDIA)
    if made.task == "odd_cue":
        cue = Cue(right="a yellow dot", others=("the colour", "the noise"))
        data_sets = tuple(data.model_copy(update={"cue": cue}) for data in data_sets)
    plan = StudyPlan(version="test", settings=made, data_sets=data_sets, practice=practice)
    (folder / TEXTS).mkdir()
    for task in text_tasks(made.task):
        words = default_texts(made.language, task)
        (folder / TEXTS / text_file(made.language, task)).write_text(words, "utf-8")
    (folder / CONSENT).write_text("# Consent\n\nYou may leave at any time.\n", "utf-8")
    plan.write(folder)
    return plan


@cache
def _made(
    keys: tuple[str, ...], seed: int, sets: int, images_per_set: int
) -> tuple[TemporaryDirectory[str], tuple[StudyDataSet, ...], tuple[Any, ...]]:
    """A folder of a thousand pictures, made once in a process, and what is on them."""
    folder = TemporaryDirectory()
    media = Media(Path(folder.name), seed)
    data_sets = tuple(_data_set(key, sets, images_per_set, media) for key in keys)
    return folder, data_sets, make_practice(media, FEATURES)


def _data_set(key: str, sets: int, images_per_set: int, media: Media) -> StudyDataSet:
    images = []
    for number in range(1, sets + 1):
        for place in range(images_per_set):
            images.append(_image(place % len(CLASSES), number, media, key))
    return StudyDataSet(
        key=key, name=key.title(), classes=CLASSES, agreement=1.0, about={}, images=tuple(images)
    )


def _image(kind: int, number: int, media: Media, key: str) -> StudyImage:
    colour = np.array([(200, 60, 60), (60, 160, 60), (60, 60, 200), (190, 170, 40)][kind])
    noise = np.random.default_rng(number * 100 + kind).integers(-30, 30, (48, 64, 3))
    picture = (colour + noise).clip(0, 255).astype(np.uint8)
    shares = [0.0] * FEATURES
    shares[kind], shares[6] = 0.8, -0.2
    return StudyImage(
        id=media.id(),
        file=f"{key}/{CLASSES[kind]}/{number}.jpg",
        label=CLASSES[kind],
        predicted=CLASSES[kind],
        set=number,
        picture=media.add(picture),
        heatmaps={m: media.add(picture[::-1].copy()) for m in ("deep_lift", "excitation_backprop")},
        overlays=tuple(media.add(np.roll(picture, step, 1)) for step in range(FEATURES)),
        contributions=tuple(shares),
    )
