"""How often a model predicts the labels, and how often it would do so by chance."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from torchxnn.models.outputs import count_classes

ENOUGH_IMAGES = 50
"""Fewer images than these cannot tell a weak network from one with another order of classes."""

LEVEL = 0.01

FEW = 5
"""Fewer images of a class than these do not say as what most of them are predicted."""


@dataclass(frozen=True)
class LabelAgreement:
    """Labels against the classes that the model predicts.

    Attributes:
        images: how many have labels.
        agreeing: for how many of them the prediction is the label.
        chance: share that would agree if predictions and labels, as often as they are, had nothing
            to do with each other.
        foreign: how many labels are no class of the model.
        displaced: pairs (label, class) where most images of the label are predicted as the class,
            and most images of that class as a third one, as if the classes were in another order.
        classes: how many different labels there are; of one alone no order can be told.
    """

    images: int
    agreeing: int
    chance: float
    foreign: int = 0
    displaced: tuple[tuple[int, int], ...] = ()
    classes: int = 2

    @property
    def share(self) -> float:
        """The model's own accuracy on these images."""
        return self.agreeing / self.images

    @property
    def near_chance(self) -> bool:
        """Whether enough images agree no more often than by chance (binomial test, 1%)."""
        from scipy.stats import binom

        by_chance = binom.sf(self.agreeing - 1, self.images, self.chance)
        enough = self.images >= ENOUGH_IMAGES and self.classes > 1
        return enough and float(by_chance) > LEVEL

    @property
    def text(self) -> str:
        """In words, such as "the model predicts the label of 94% of 640 images (chance 10%)"."""
        return (
            f"the model predicts the label of {self.share:.0%} of {self.images} image(s) "
            f"(chance {self.chance:.0%})"
        )

    @property
    def doubt(self) -> str:
        """What should make a user look again, in one line; empty if there is nothing."""
        if self.foreign:
            return (
                f"{self.foreign} of {self.images} labels are no class of the model; labels count "
                "from 0, in the order of the model's outputs"
            )
        if self.near_chance:
            return f"{self.text}: is the order of the classes that of its outputs?"
        if len(self.displaced) > 1:
            shown = ", ".join(f"label {label} as {other}" for label, other in self.displaced[:3])
            more = ", ..." if len(self.displaced) > 3 else ""
            return (
                f"{self.text}, but of {len(self.displaced)} classes most images are predicted as "
                f"another one ({shown}{more}): is the order of the classes that of its outputs?"
            )
        return ""


def label_agreement(
    predicted: Int64[Tensor, " samples"], labels: Int64[Tensor, " samples"], outputs: int
) -> LabelAgreement:
    """Compare class indices of samples (at least one) with those that a model predicts.

    Args:
        predicted: 0-based classes, as `models.outputs.predicted_classes` has them.
        labels: 0-based classes; others count as disagreement and are named as foreign.
        outputs: of the model.
    """
    predicted, labels = predicted.cpu(), labels.cpu()  # MPS finds no most frequent value
    classes = count_classes(outputs)
    known = (labels >= 0) & (labels < classes)
    often = [each.bincount(minlength=classes).double() for each in (labels[known], predicted)]
    chance = float(often[0] @ often[1]) / len(labels) ** 2
    agreeing = int((predicted == labels).sum())
    displaced = _displaced(predicted[known], labels[known])
    foreign, different = int((~known).sum()), len(labels.unique())
    return LabelAgreement(len(labels), agreeing, chance, foreign, displaced, different)


def _displaced(
    predicted: Int64[Tensor, " samples"], labels: Int64[Tensor, " samples"]
) -> tuple[tuple[int, int], ...]:
    """Pairs (label, class) as `LabelAgreement.displaced` has them; no class stands in two."""
    most: dict[int, int] = {}
    for label in labels.unique().tolist():
        own = predicted[labels == label]
        often = int(own.mode().values)
        if len(own) >= FEW and 2 * int((own == often).sum()) > len(own):
            most[label] = often
    pairs = [(a, b) for a, b in most.items() if a != b and most.get(b, b) != b]
    taken = [b for _, b in pairs]
    return tuple((a, b) for a, b in pairs if taken.count(b) == 1)
