"""Pictures of the practice round: coloured shapes, with heatmaps of a network that looks for some.

The network is `models.planted`, in which nothing is learned, with another readout: each of its four
classes is one thing, a shape of one colour, and shapes of other kinds count for nothing. So the
heatmaps are real ones, and show which shape of a picture matters.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from torchxnn.apps.study.media import Media, Picture
from torchxnn.apps.study.plan import StudyImage
from torchxnn.apps.study.settings import Stage
from torchxnn.attribution.methods import METHODS, PAPER
from torchxnn.errors import XNNWarning
from torchxnn.explanations.drawing.overlay import intensities, overlay
from torchxnn.models.planted import (
    COLOURS,
    SIZE,
    THING_NAMES,
    WINDOW,
    Thing,
    planted_network,
    shape_mask,
)

SIDE = 320
"""Pixels of the side of a picture as it is shown."""

KINDS = ("red disc", "green square", "blue triangle", "yellow disc")
"""What the network tells apart; a picture shows one of them."""

EACH = 2
_OTHERS = ("magenta disc", "magenta square", "red plus", "green plus", "blue square", "cyan disc")
"""What else the network finds: the x-features after those of the kinds."""

_AGAINST = {"magenta disc": -1.0, "red plus": -0.5}
"""Things that speak against every class."""

_DISTRACTORS = (
    Thing("cyan", "triangle"),
    Thing("magenta", "plus"),
    Thing("red", "triangle"),
    Thing("yellow", "square"),
)
"""What the network does not see; two of them are in every picture."""

_CORNERS = ((20, 20), (20, 54), (54, 20), (54, 54))


def make_practice(media: Media, features: int) -> tuple[StudyImage, ...]:
    """Draw two pictures of each kind, the same in all studies, with heatmaps of up to 10 things."""
    drawn = _draw(features)
    return tuple(
        StudyImage(
            id=media.id(),
            file=f"practice: {kind}",
            label=kind,
            predicted=kind,
            set=0,
            picture=media.add(picture),
            heatmaps={PAPER: media.add(heatmap)},
            overlays=tuple(media.add(each) for each in overlays),
            contributions=shares,
        )
        for kind, picture, heatmap, overlays, shares in drawn
    )


def kinds_of(images: Sequence[StudyImage]) -> dict[str, int]:
    """A number for the kind of each practice picture by id: the page says what was right."""
    labels = sorted({image.label for image in images})
    return {image.id: labels.index(image.label) for image in images}


def split_practice(stages: Sequence[Stage], images: Sequence[StudyImage]) -> list[dict[str, Any]]:
    """The parts of a practice round: a stage each, with kinds of its own; none without stages."""
    kinds = kinds_of(images)
    return [
        {"stage": stage, "images": [id for id in kinds if kinds[id] % len(stages) == number]}
        for number, stage in enumerate(stages)
    ]


def count_kinds(stages: Sequence[Stage], images: Sequence[StudyImage]) -> int:
    """Kinds in the part of a practice round that has the most of them."""
    kinds = kinds_of(images)
    parts = split_practice(stages, images)
    return max((len({kinds[id] for id in part["images"]}) for part in parts), default=0)


Drawn = tuple[str, Picture, Picture, tuple[Picture, ...], tuple[float, ...]]
"""Kind, picture, its one heatmap, those of the x-features, and shares of the contributions."""


@cache
def _draw(features: int) -> tuple[Drawn, ...]:
    generator = random.Random("practice")
    kinds = [kind for kind in KINDS for _ in range(EACH)]
    images = torch.stack([_scene(kind, generator) for kind in kinds])
    things = (*KINDS, *_OTHERS)[:features]
    maps = [_attribute(_detector(thing), images) for thing in things]
    with torch.no_grad():
        answers = torch.cat([_detector(thing)(images) for thing in things], 1)
    found = []
    for place, kind in enumerate(kinds):
        single = _attribute(_detector(*_weights(kind), readout=kind), images[place : place + 1])[0]
        weights = torch.tensor([_weights(kind).get(thing, 0.0) for thing in things])
        own = [each[place] for each in maps]
        found.append(_one(kind, images[place], single, own, weights * answers[place]))
    return tuple(found)


def _one(kind: str, image: Tensor, one: Tensor, maps: list[Tensor], parts: Tensor) -> Drawn:
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    picture = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    shares = parts / parts.abs().sum().clamp(min=1e-12)
    overlays = tuple(_lay(each, picture) for each in maps)
    contributions = tuple(round(float(share), 4) + 0.0 for share in shares)
    return kind, picture, _lay(one, picture), overlays, contributions


def _lay(heatmap: Tensor, picture: UInt8[np.ndarray, "height width 3"]) -> Picture:
    intensity = intensities([heatmap.numpy()])[0]
    return overlay(picture, cv2.resize(intensity, (SIDE, SIDE)).clip(0, 1))


def _weights(kind: str) -> dict[str, float]:
    """Of the things that count in the logit of a kind."""
    return {kind: 3.0, **_AGAINST}


def _detector(*things: str, readout: str | None = None) -> nn.Sequential:
    """The planted network's detectors of some things, (B, things), or the logit of a kind, (B, 1).

    Nothing else of the network matters to these, so leaving it out changes no heatmap.
    """
    planted, numbers = planted_network(), [THING_NAMES.index(thing) for thing in things]
    whole = cast(nn.Conv2d, planted.shapes[0])
    shapes = nn.Conv2d(whole.in_channels, len(things), WINDOW, padding=WINDOW // 2)
    parts: list[nn.Module] = [planted.colours, shapes, nn.ReLU(), planted.pool, nn.Flatten()]
    with torch.no_grad():
        shapes.weight.copy_(whole.weight[numbers])
        cast(Tensor, shapes.bias).copy_(cast(Tensor, whole.bias)[numbers])
        if readout is not None:
            logit = nn.Linear(len(things), 1, bias=False)
            logit.weight.copy_(torch.tensor([[_weights(readout)[thing] for thing in things]]))
            parts.append(logit)
    return nn.Sequential(*parts).eval()


def _attribute(
    module: nn.Module, images: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch height width"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XNNWarning)  # a thing that is not there is drawn as such
        return METHODS[PAPER](module).attribute(images, 0).detach()


def _scene(kind: str, generator: random.Random) -> Float[Tensor, "3 height width"]:
    """A grey picture with the thing of its kind, two distractors, and a thing of no kind."""
    image = torch.full((3, SIZE, SIZE), generator.uniform(0.45, 0.6))
    colour, shape = kind.split()
    things = [Thing(colour, shape), *generator.sample(_DISTRACTORS, 2)]
    things.append(Thing(*generator.choice(_OTHERS[:3]).split()))
    places = generator.sample(_CORNERS, len(things))
    for thing, (row, column) in zip(things, places, strict=True):
        _paint(image, thing, row + generator.randint(-6, 6), column + generator.randint(-6, 6))
    return image


def _paint(image: Tensor, thing: Thing, row: int, column: int) -> None:
    cover = shape_mask(thing.shape).float()
    half = WINDOW // 2
    window = image[:, row - half : row + half + 1, column - half : column + half + 1]
    window += cover * (torch.tensor(COLOURS[thing.colour])[:, None, None] - window)
