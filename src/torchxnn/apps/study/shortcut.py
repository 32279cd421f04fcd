"""Drawn beetles, and networks that were made to look at an odd cue: for studies to try out.

The two kinds of beetle differ in their bodies, round or long. In the pictures that a network is
trained on, one cue goes with the kind without exception, such as a sticker in a corner, while the
other cues are there or not whatever the kind. The network takes to it as the easier sign, and
answers by it in pictures where the two are apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.apps.study.build import OnImages, Source, write_study
from torchxnn.apps.study.demo import Pictures, explain_network, small_network, train_network
from torchxnn.apps.study.media import Picture
from torchxnn.apps.study.plan import StudyPlan
from torchxnn.apps.study.settings import Cue, StudySettings, Task
from torchxnn.models.preprocessing import Preprocessing

KINDS = ("round beetle", "long beetle")
SIZE = 96
"""Height and width of what a network sees, in pixels."""

TRAINED_ON, SHOWN = 400, 160
"""Pictures of a data set that the network is trained on, and that the study draws from."""

PREPROCESSING = Preprocessing(SIZE, "squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

_LARGE = 4 * SIZE  # pixels of the side that is drawn at
_GROUND = (206, 214, 190)
_COLOURS = ((120, 60, 50), (60, 80, 130), (70, 110, 60), (110, 70, 120))
_DARK = (50, 45, 45)
_EPOCHS = 12


CUES = {
    "sticker": "A yellow sticker in the corner of the picture",
    "antennae": "Red knobs on the antennae",
    "ground": "The direction of the stripes on the ground",
}
"""Cues that can be planted, by key, in words that participants choose from."""

_OTHERS = (
    "Whether the body is round or long",
    "The colour of the body",
    "The number of spots on the wings",
    "Where in the picture the beetle sits",
)

NAMES = {key: f"Beetles, series {n}" for n, key in enumerate(CUES, start=1)}


def cue_of(planted: str) -> Cue:
    """A planted cue, and what else differs between its pictures: the other cues, too."""
    others = [text for key, text in CUES.items() if key != planted]
    return Cue(right=CUES[planted], others=(*others, *_OTHERS))


@dataclass(frozen=True)
class Beetle:
    """One beetle and its surroundings.

    Attributes:
        long: kind of the body.
        cues: whether each of `CUES` is there; for the ground, whether stripes lie.
        colour: of the body.
        spots: on each wing.
        x: of the middle, as a share of the width.
        y: of the middle, as a share of the height.
    """

    long: bool
    cues: dict[str, bool]
    colour: tuple[int, int, int]
    spots: int
    x: float
    y: float


def draw_beetle(long: bool, planted: str, cue: bool, generator: random.Random) -> Beetle:
    """A beetle of a kind, with the planted cue or without; all else is drawn at random."""
    x, y = generator.uniform(0.42, 0.58), generator.uniform(0.48, 0.6)
    cues = {key: generator.random() < 0.5 for key in CUES} | {planted: cue}
    return Beetle(long, cues, generator.choice(_COLOURS), generator.randint(1, 3), x, y)


def paint(beetle: Beetle) -> Picture:
    """The picture of a beetle."""
    canvas = np.full((_LARGE, _LARGE, 3), _GROUND, np.uint8)
    _stripes(canvas, beetle.cues["ground"])
    middle = (round(beetle.x * _LARGE), round(beetle.y * _LARGE))
    half = (62, 84) if beetle.long else (72, 72)
    _legs(canvas, middle, half)
    _antennae(canvas, middle, half, beetle.cues["antennae"])
    cv2.ellipse(canvas, middle, half, 0, 0, 360, beetle.colour, -1, cv2.LINE_AA)
    top = (middle[0], middle[1] - half[1])
    cv2.circle(canvas, top, 30, _DARK, -1, cv2.LINE_AA)
    cv2.line(canvas, top, (middle[0], middle[1] + half[1]), _DARK, 4, cv2.LINE_AA)
    for spot in range(beetle.spots):
        for side in (-1, 1):
            at = (middle[0] + side * 32, middle[1] - 30 + 32 * spot)
            cv2.circle(canvas, at, 10, (235, 225, 205), -1, cv2.LINE_AA)
    if beetle.cues["sticker"]:
        cv2.rectangle(canvas, (18, 18), (74, 74), (240, 200, 30), -1)
    return canvas


def _stripes(canvas: Picture, cue: bool) -> None:
    """Blades of grass on the ground, lying or standing."""
    for start in range(12, _LARGE, 48):
        first, last = ((0, start), (_LARGE, start)) if cue else ((start, 0), (start, _LARGE))
        cv2.line(canvas, first, last, (160, 180, 140), 10, cv2.LINE_AA)


def _legs(canvas: Picture, middle: tuple[int, int], half: tuple[int, int]) -> None:
    for row in (-40, 0, 40):
        for side in (-1, 1):
            knee = (middle[0] + side * (half[0] + 34), middle[1] + row + row // 4)
            cv2.line(canvas, (middle[0], middle[1] + row), knee, _DARK, 8, cv2.LINE_AA)


def _antennae(canvas: Picture, middle: tuple[int, int], half: tuple[int, int], knobs: bool) -> None:
    for side in (-1, 1):
        root = (middle[0] + side * 12, middle[1] - half[1] - 20)
        tip = (middle[0] + side * 46, middle[1] - half[1] - 74)
        cv2.line(canvas, root, tip, _DARK, 7, cv2.LINE_AA)
        if knobs:
            cv2.circle(canvas, tip, 18, (190, 50, 60), -1, cv2.LINE_AA)


def prepare_beetles(planted: str, seed: int = 0) -> Source:
    """A network trained on beetles with a planted cue, and its XNN."""
    train = _series(planted, f"{seed}/{planted}/train", TRAINED_ON, together=True)
    test = _series(planted, f"{seed}/{planted}/test", SHOWN, together=False)
    model = train_network(beetle_network, train, seed, _EPOCHS)
    return explain_network(planted, NAMES[planted], model, train, test, seed, cue_of(planted))


def _series(planted: str, seed: str, count: int, together: bool) -> Pictures:
    """Beetles of both kinds; the cue goes with the kind, or is there or not whatever the kind."""
    generator = random.Random(seed)
    labels = [number % 2 for number in range(count)]
    cues = [number % 2 if together else number // 2 % 2 for number in range(count)]
    beetles = [
        draw_beetle(bool(label), planted, bool(cue), generator)
        for label, cue in zip(labels, cues, strict=True)
    ]
    read: Callable[[int], Tensor] = partial(_read, beetles)
    return Pictures(f"beetles with {planted}", KINDS, labels, PREPROCESSING, read)


def _read(beetles: Sequence[Beetle], index: int) -> Float[Tensor, "3 height width"]:
    small = cv2.resize(paint(beetles[index]), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(small).permute(2, 0, 1).float() / 127.5 - 1


def beetle_network() -> nn.Sequential:
    """The network that tells beetles apart; see `small_network`."""
    return small_network((12, 24, 32), 64, len(KINDS), SIZE)


def build_cue_demo(
    out: Path, task: Task, seed: int = 0, on_images: OnImages | None = None
) -> StudyPlan:
    """Train a network for each planted cue, fit its XNN, and build a study of a task.

    Forward simulation has one data set, whose network looks at the antennae.

    Raises:
        DataError: the folder exists.
    """
    planted = tuple(CUES) if task == "odd_cue" else ("antennae",)
    settings = StudySettings(
        title="What does the agent look at?",
        seed=seed,
        task=task,
        contact="the person who gave you the link",
    )
    makers = [partial(prepare_beetles, key, seed) for key in planted]
    return write_study(settings, makers, out, on_images=on_images)
