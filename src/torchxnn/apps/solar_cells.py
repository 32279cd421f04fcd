"""What the demonstration says of solar cells: names as an example, what is odd, what comes next.

Names are given by rule, so that they are true of whatever fit a machine makes: an x-feature is
named after a figure of the image that its values go with, and the note of each name says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Real
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from torchxnn.data.activations import Activations
from torchxnn.data.datasets.elpv import ELPV
from torchxnn.embeddings.base import Embedding
from torchxnn.explanations.names.file import FORMAT, NAMES
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.explanations.names.records import BY_RULE
from torchxnn.explanations.names.texts import words_of_a_rule

GOES_WITH = 0.6
"""Correlation of an x-feature with a figure of the images from which it is named after that."""

BLOCKS = 6
"""A map's brightest place is the brightest of this many blocks each way; the four in the corners
are 1/9 of the area."""

BLACK = 0.2
"""Mean brightness, of 0 to 1, up to which a cell is called black."""

KIND = "whether the cell is monocrystalline"
FIGURES: dict[str, tuple[str, str]] = {
    "the mean brightness": ("bright cell", "dark cell"),
    "the spread of the brightness, relative to its mean": ("bright and dark", "even"),
    "the mean difference of neighbouring pixels": ("fine pattern", "smooth"),
    KIND: ("mono cell", "poly cell"),
}
"""What of an image is measured, and the names where an x-feature rises and falls with it."""


@dataclass(frozen=True)
class ExampleName:
    """A name by rule.

    Attributes:
        feature: 0-based x-feature.
        name: of what it goes with.
        figure: of the images, a key of `FIGURES`.
        correlation: of the two.
        images: that it was measured on.
    """

    feature: int
    name: str
    figure: str
    correlation: float
    images: int

    @property
    def note(self) -> str:
        """Where the name is from."""
        return (
            "an example of naming, written by the authors of torchxnn and given by rule: no person "
            f"looked; this x-feature goes with {self.figure} (r = {self.correlation:.2f} on "
            f"{self.images} images)"
        )


def figures_of(
    pictures: Sequence[Real[Any, "height width channels"]], mono: Sequence[bool]
) -> dict[str, Float[Tensor, " images"]]:
    """`FIGURES` of some cells, from pictures of 8 bits and whether each is monocrystalline."""
    grey = torch.stack([torch.as_tensor(each).double().mean(2) for each in pictures]) / 255
    mean = grey.mean((1, 2))
    values = (
        mean,
        grey.flatten(1).std(1) / mean.clamp(min=1e-3),
        grey.diff(dim=2).abs().mean((1, 2)),
        torch.tensor(mono, dtype=torch.float64),
    )
    return dict(zip(FIGURES, values, strict=True))


def example_names(
    features: Float[Tensor, "images features"], figures: Mapping[str, Float[Tensor, " images"]]
) -> tuple[ExampleName, ...]:
    """The names that x-features get by rule, in their order: each figure names one, if any.

    The strongest correlation comes first; below `GOES_WITH` there is no name.
    """
    names = list(figures)
    columns = torch.stack([figures[name] for name in names])
    together = torch.corrcoef(torch.cat([features.double().T, columns])).nan_to_num(0.0)
    found = together[: features.shape[1], features.shape[1] :].clone()
    given = []
    while found.numel() and float(found.abs().max()) >= GOES_WITH:
        feature, figure = divmod(int(found.abs().argmax()), len(names))
        value = float(found[feature, figure])
        name = FIGURES[names[figure]][value < 0]
        given.append(ExampleName(feature, name, names[figure], value, len(features)))
        found[feature, :] = 0.0
        found[:, figure] = 0.0
    return tuple(sorted(given, key=lambda each: each.feature))


@dataclass(frozen=True, eq=False)
class SeenCells:
    """The test images, as cells.

    Attributes:
        cells: all cells.
        rows: of `cells` that are test images.
    """

    cells: ELPV
    rows: Sequence[int]

    def examples(self, embedding: Embedding, data: Activations) -> tuple[ExampleName, ...]:
        """Names by rule, from what the x-features say of the test images.

        Args:
            embedding: fitted.
            data: activations of the test images, at its layer.
        """
        with torch.no_grad():
            features = embedding.encode(data.z)
        look = self.cells.preprocessing.picture
        pictures = [look(self.cells[row].image) for row in self.rows]
        mono = [self.cells.types[row] == "mono" for row in self.rows]
        return example_names(features, figures_of(pictures, mono))


def with_examples(names: FeatureNames, examples: Sequence[ExampleName]) -> FeatureNames:
    """The names with those given by rule."""
    for each in examples:
        names = names.judge(each.feature, each.name, who=BY_RULE, note=each.note)
    return names


def drop_examples(folder: Path) -> None:
    """Remove names that an earlier demonstration gave by rule, if no person gave any."""
    file = folder / NAMES
    if not file.is_file():
        return
    said = FORMAT.read(file)
    people = {judgement["who"] for judgement in said["judgements"]}
    if people == {BY_RULE} and not said["actions"]:
        file.unlink()


def corner_peaks(heatmaps: Float[Tensor, "maps height width"]) -> float:
    """Share of the maps whose brightest place is a corner.

    The brightest place is the block, of `BLOCKS` x `BLOCKS`, with the highest mean of positive
    relevance. A map without any does not count; without maps the share is 0.
    """
    positive = heatmaps.clamp(min=0)
    blocks = adaptive_avg_pool2d(positive[positive.flatten(1).any(1)], BLOCKS).flatten(1)
    last = BLOCKS - 1
    corners = torch.tensor([0, last, BLOCKS * last, BLOCKS**2 - 1])
    return float(torch.isin(blocks.argmax(1), corners).double().mean()) if len(blocks) else 0.0


def accuracy_sentence(
    predicted: Sequence[int], labels: Sequence[int], classes: Sequence[str]
) -> str:
    """How often the network is right, beside an answer that is always the same, and by class."""
    found, wanted = torch.tensor(predicted), torch.tensor(labels)
    right = found == wanted
    counts = torch.bincount(wanted, minlength=len(classes))
    common = int(counts.argmax())
    of_classes = ", ".join(
        f"{float(right[wanted == k].double().mean()):.0%} of the {int(counts[k])} {name} ones"
        for k, name in enumerate(classes)
        if counts[k]
    )
    return (
        f"The network is right on {float(right.double().mean()):.1%} of {len(wanted)} test images: "
        f"{of_classes}. Who always says {classes[common]} is right on "
        f"{int(counts[common]) / len(wanted):.1%}. What follows explains this network, not solar "
        "cells: where it is wrong, its reasons are those of an error."
    )


def example_sentence(examples: Sequence[ExampleName], names: FeatureNames) -> str:
    """Which names are examples, and where they are from; empty if people named all of them.

    Args:
        examples: names by rule.
        names: of all x-features; where a person gave one, that of the rule is not shown.
    """
    shown = [each for each in examples if names.settled(each.feature).status == "by rule"]
    if examples and not shown:
        return ""
    if not shown:
        return (
            "No x-feature is named: none goes with the brightness, the spread, the pattern or the "
            f"kind of the cell (r below {GOES_WITH}). Look at the sheets and name them."
        )
    listed = "; ".join(
        f"{words_of_a_rule(each.name)} is x-feature {each.feature + 1}, which goes with "
        f"{each.figure} (r = {each.correlation:.2f})"
        for each in shown
    )
    nameless = names.n_features - len(examples)
    rest = (
        f" The other {nameless} go with none of the four figures that we measured (|r| below "
        f"{GOES_WITH}), or less than the one that has the name."
    )
    return (
        f"Names in angle marks are examples, given by a rule; no person looked. {listed}."
        f"{rest if nameless else ''} Going with something is not being about it."
    )


def odd_sentences(
    examples: Sequence[ExampleName],
    shares: Sequence[float],
    corners: float,
    black: Mapping[str, int],
) -> list[str]:
    """What should make one wonder, as far as it is there.

    Args:
        examples: names by rule.
        shares: of the x-features in the logit, fractions.
        corners: see `corner_peaks`.
        black: by the name of an x-feature, how many nearly black cells are on its sheet.
    """
    said = []
    area = 4 / BLOCKS**2
    if corners > 2 * area:
        said.append(
            f"Odd: in {corners:.0%} of the maps on the cards the brightest place is a corner of "
            f"the cell; the corners are {area:.0%} of its area. Corners say of which kind a cell "
            "is (monocrystalline cells are cut there), not that it is defective."
        )
    for each in examples:
        if each.figure == KIND and shares[each.feature] > 0:
            said.append(
                f"Odd: x-feature {each.feature + 1}, with {shares[each.feature]:.0%} of the logit, "
                "goes with the kind of the cell, which is no defect. Is one kind defective more "
                "often in these data?"
            )
    if black:
        listed = ", ".join(f"{name} ({count})" for name, count in black.items())
        said.append(
            f"Odd: nearly black cells (mean brightness at most {BLACK:.0%}) are on the sheets of "
            f"{listed}. A cell that does not shine at all is another case than a crack in one that "
            "does."
        )
    return said


def remarks(
    seen: SeenCells,
    data: Activations,
    examples: Sequence[ExampleName],
    names: FeatureNames,
    shares: Sequence[float],
    maps: Float[Tensor, "maps height width"],
    sheets: Mapping[str, Sequence[Real[Any, "height width channels"]]],
    saved: Path,
) -> tuple[str, ...]:
    """All that the page says beyond its figures: the network, the names, what is odd, what next.

    Args:
        seen: the test images.
        data: what the network said of them.
        examples: names by rule.
        names: of the x-features, those that people gave among them.
        shares: of the x-features in the logit.
        maps: of the x-features on the cards.
        sheets: by the name of an x-feature the pictures on its sheet, of 8 bits.
        saved: folder of the XNN.
    """
    black = {
        name: count
        for name, pictures in sheets.items()
        if (count := sum(float(each.mean()) <= 255 * BLACK for each in pictures))
    }
    labels = [seen.cells.labels[row] for row in seen.rows]
    named = example_sentence(examples, names)
    return (
        accuracy_sentence(data.predicted.tolist(), labels, seen.cells.classes),
        *([named] if named else []),
        *odd_sentences(examples, shares, corner_peaks(maps), black),
        next_steps(saved, Path(str(seen.cells.folder)) / "images"),
    )


def next_steps(saved: Path, cells: Path) -> str:
    """What one would do next, with commands for what this demonstration wrote.

    Args:
        saved: folder of the XNN.
        cells: folder of the images.
    """
    whatif = shlex.join(["xnn", "whatif", str(saved), str(cells / "cell0001.png")])
    return (
        "Next: look at the sheets below and give names of your own (xnn.name_feature in Python); "
        "take the region of each x-feature away and see whether the network's own logit falls as "
        f"claimed ({whatif}); train and fit again with another "
        "seed and see which x-features come back (xnn demo --seed 1 --out other); and show "
        "sheets and maps to somebody who inspects cells."
    )
