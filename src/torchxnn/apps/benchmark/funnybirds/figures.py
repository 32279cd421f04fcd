"""What the x-features of a bird are about, to look at, and which birds show what went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from scipy.ndimage import binary_dilation
from torch import Tensor

from torchxnn.apps.benchmark.class_by_class import Opened
from torchxnn.apps.benchmark.funnybirds.causes import ask, find_removals
from torchxnn.apps.benchmark.funnybirds.maps import feature_maps, lie, see
from torchxnn.apps.benchmark.funnybirds.settings import TruthConfig
from torchxnn.apps.benchmark.funnybirds.summary import DEFAULT
from torchxnn.apps.benchmark.run import saved_xnn
from torchxnn.attribution.base import WEAK_MASS
from torchxnn.attribution.methods import PAPER
from torchxnn.data.datasets.funnybirds import PARTS
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.overlay import heatmap_over
from torchxnn.explanations.functions import draw_input
from torchxnn.metrics import ground_truth as truth
from torchxnn.xnn import XNN

ANSWERS = 2 / len(PARTS)
"""An x-feature answers to a part that has at least this share of its drops, twice what no
preference gives."""

_OUTLINE = (178, 24, 43)  # around the part that goes
_OUTLINE_WIDTH = 2

Picture = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Named:
    """The part after which people would name an x-feature.

    Attributes:
        part: position in `PARTS`; None if the contribution drops with no part.
        share: of the drops that fall on it, 0 to 1.
    """

    part: int | None
    share: float

    def __str__(self) -> str:
        return "no part" if self.part is None else f"{PARTS[self.part]}, {self.share:.0%}"


def name_features(profiles: list[list[float]]) -> list[Named]:
    """The largest drop of every x-feature, from its changes by part (n lists of P numbers)."""
    named = []
    for row in profiles:
        drops = [max(value, 0.0) for value in row]
        total = sum(drops)
        largest = max(range(len(row)), key=lambda part: drops[part])
        named.append(Named(largest, drops[largest] / total) if total > 0 else Named(None, 0.0))
    return named


@dataclass(frozen=True)
class Failure:
    """A class that was chosen because it is the worst of all in something.

    Attributes:
        target: class index.
        says: what is wrong, a sentence with numbers.
    """

    target: int
    says: str


_WORST: dict[str, Callable[[float, float, int], str]] = {
    "specificity": lambda value, mean, count: (
        f"Lowest specificity of {count} classes, {value:.3f} (mean {mean:.3f}; "
        f"{1 / len(PARTS):.2f} would be no preference at all): {1 - value:.0%} of what the "
        "contributions lose falls on parts other than each x-feature's own."
    ),
    "map_truth": lambda value, mean, count: (
        f"Lowest map truth of {count} classes: the share of a map on a part and the change of its "
        f"own x-feature when that part goes correlate at {value:.3f} (mean {mean:.3f})."
    ),
    "intervention_r2": lambda value, mean, count: (
        f"Of {count} classes, the reproduced logit follows the network's own least well here when "
        f"parts go: R² of the change {value:.3f} (mean {mean:.3f})."
    ),
}


def choose_failures(summary: Mapping[str, Any]) -> list[Failure]:
    """The worst classes of today's default, by rule: the first of equals.

    Lowest specificity, map truth, and R^2 of the change; and the x-feature whose maps lie most on
    the background while it moves and answers to a part (`ANSWERS`). What does not exist is left
    out.

    Args:
        summary: from `summarise`.
    """
    classes = summary["classes"]
    found = []
    for figure, sentence in _WORST.items():
        values = {
            int(target): record["methods"][DEFAULT].get(figure)
            for target, record in classes.items()
        }
        known = {target: value for target, value in values.items() if value is not None}
        if known:
            worst = min(known, key=lambda target: known[target])
            mean = summary["methods"][DEFAULT][figure]
            found.append(Failure(worst, sentence(known[worst], mean, len(known))))
    return found + _beside_the_bird(classes)


def _beside_the_bird(classes: Mapping[str, Any]) -> list[Failure]:
    candidates = [
        (each["background"], int(target), feature, PARTS[named.part], named.share)
        for target, record in classes.items()
        if record["features"]  # not without the paper's rule
        for feature, (each, named) in enumerate(
            zip(record["features"], name_features(record["profiles"][DEFAULT]), strict=True)
        )
        if each["moves"] and named.part is not None and named.share >= ANSWERS
    ]
    if not candidates:
        return []
    background, target, feature, part, share = max(candidates, key=lambda found: found[0])
    says = (
        f"x-feature {feature + 1} answers to a part and its maps show the background: "
        f"{share:.0%} of what its contribution loses it loses without the {part}, but "
        f"{background:.0%} of the positive relevance of its maps "
        f"lies beside the bird, the most of {len(candidates)} x-features that answer to a part."
    )
    return [Failure(target, says)]


@dataclass(frozen=True, eq=False)
class FeatureColumn:
    """An x-feature of a figure.

    Attributes:
        name: "x-feature 1".
        named: the part that people would name it after.
        matched: the part that it is matched with; None if it is left over, or does not drop there.
        picture: its map by the paper's rule over the whole image.
        mass: positive relevance of that map, of 1.
        background: share of it that lies beside the bird.
    """

    name: str
    named: Named
    matched: int | None
    picture: Picture
    mass: float
    background: float

    @property
    def weak(self) -> bool:
        """Whether the map is a residue."""
        return self.mass < WEAK_MASS


@dataclass(frozen=True, eq=False)
class PartRow:
    """A part of a figure, and what happens without it; numbers in logits.

    Attributes:
        part: its name.
        outlined: the image with the part outlined.
        without: the image without it.
        visible: whether any pixel of the image shows it.
        cause: what the network's logit loses.
        reproduced: what the reproduced logit loses.
        changes: what the contribution of each x-feature loses.
        on_part: share of the positive relevance of each x-feature's map that lies on the part.
        profile: mean over images of what the contribution of each x-feature loses.
        mean_cause: mean over images of what the network's logit loses.
    """

    part: str
    outlined: Picture
    without: Picture
    visible: bool
    cause: float
    reproduced: float
    changes: list[float]
    on_part: list[float]
    profile: list[float]
    mean_cause: float


@dataclass(frozen=True, eq=False)
class ClassFigure:
    """What the x-features of a bird are about.

    Attributes:
        target: class index.
        name: of the class.
        path: of the image that is drawn, relative to the data set.
        picture: the image as the network saw it.
        images: over how many images the means are.
        columns: one for every x-feature.
        rows: one for every part.
    """

    target: int
    name: str
    path: str
    picture: Picture
    images: int
    columns: list[FeatureColumn]
    rows: list[PartRow]

    @property
    def largest(self) -> float:
        """The largest change of a contribution in this image, for the scale of the bars."""
        return max((abs(value) for row in self.rows for value in row.changes), default=0) or 1.0

    def level(self, value: float) -> int:
        """Strength of the colour behind a mean change, 0 to 8 of the largest."""
        largest = max((abs(value) for row in self.rows for value in row.profile), default=0)
        return round(8 * abs(value) / largest) if largest else 0


def draw_class(
    opened: Opened, target: int, record: Mapping[str, Any], config: TruthConfig
) -> ClassFigure:
    """Draw the figure of one class from what its run has left.

    The image is the one of the class in which the part that can be seen least can be seen best.

    Args:
        opened: the benchmark.
        target: class index.
        record: what the run wrote of this class.
        config: what was measured.

    Raises:
        DataError: the saved XNN of the class is missing.
        ModelError: it is damaged, or explains another network.
    """
    task, rows = opened.task, opened.task.positives(target)
    embedding = _load(opened, target).fitted()
    removals = find_removals(opened.recorded, rows, target, len(PARTS))
    answers = ask(embedding, removals)
    at = clearest_image(see(task, rows).masks)
    seen = see(task, [rows[at]])
    maps = feature_maps(task, embedding, seen, PAPER, config)
    lying = lie(maps, seen, len(PARTS))
    sample, mask = task.located[rows[at]], seen.masks[0].numpy()
    picture = draw_input(sample.image, task.preprocessing)
    profiles = record["profiles"][DEFAULT]
    recovered = truth.recovery(torch.tensor(profiles), torch.tensor(record["causes"]))
    matched = [-1] * len(profiles) if recovered is None else recovered.parts
    columns = [
        FeatureColumn(
            name=f"x-feature {feature + 1}",
            named=named,
            matched=_dropping(profiles[feature], matched[feature]),
            picture=heatmap_over(picture, maps[0, feature].numpy()),
            mass=float(lying.mass[0, feature]),
            background=float(lying.background[0, feature]),
        )
        for feature, named in enumerate(name_features(profiles))
    ]
    return ClassFigure(
        target=target,
        name=record["name"],
        path=sample.path,
        picture=picture,
        images=len(rows),
        columns=columns,
        rows=[
            PartRow(
                part=part,
                outlined=outline(picture, mask == place + 1),
                without=_without(opened, rows[at], place),
                visible=bool((mask == place + 1).any()),
                cause=float(removals.causes[at, place]),
                reproduced=float(answers.reproduced[at, place]),
                changes=answers.changes[at, place].tolist(),
                on_part=lying.parts[0, :, place].tolist(),
                profile=[row[place] for row in profiles],
                mean_cause=record["causes"][place],
            )
            for place, part in enumerate(PARTS)
        ],
    )


def clearest_image(masks: Int64[Tensor, "images height width"]) -> int:
    """The image in which the part with the fewest pixels has the most; the first of equals."""
    pixels = torch.stack([(masks == part + 1).sum((1, 2)) for part in range(len(PARTS))], 1)
    return int(pixels.amin(1).argmax())


def outline(picture: Picture, inside: np.ndarray) -> Picture:
    """A picture with a line around a region."""
    drawn = picture.copy()
    drawn[binary_dilation(inside, iterations=_OUTLINE_WIDTH) & ~inside] = _OUTLINE
    return drawn


def _dropping(profile: list[float], part: int) -> int | None:
    """A matched part, unless there is none or it was only left for this x-feature."""
    return part if part >= 0 and profile[part] > 0 else None


def _without(opened: Opened, row: int, part: int) -> Picture:
    removed = opened.task.removals
    if removed is None:
        raise DataError(f"nobody knows what {opened.task.located.name} shows without a part")
    return draw_input(removed[row * len(PARTS) + part].image, opened.task.preprocessing)


def _load(opened: Opened, target: int) -> XNN:
    path = saved_xnn(opened.folder, target, DEFAULT)
    if not path.is_dir():
        raise DataError(
            f"the XNN of class {target} is missing, there is no {path}; remove "
            f"{opened.folder / 'classes' / f'{target:04d}.json'} to have the class fitted again, "
            "or leave out the figures"
        )
    return XNN.from_pretrained(path, model=opened.task.model)
