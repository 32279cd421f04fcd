"""What users say of a model and its input. Nothing here loads PyTorch: help comes at once."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from torchxnn.errors import XNNError, near_ones

if TYPE_CHECKING:
    from torchxnn.models.meaning import Meaning

Resize = Literal["squash", "crop"]
Size = int | tuple[int, int] | tuple[int, int, int]
"""Pixels of a square, or height and width, or depth, height and width of a volume."""

Doubt = Literal["randomness", "batch", "probabilities"]
"""What makes every number doubtful: two answers to the same images, an answer that depends on the
other images of the batch, and outputs that are probabilities or their logarithms."""

OutputKind = Literal["classes", "labels", "value"]
"""Classes exclude each other, labels do not, and a value is a number as it is."""

OutputScale = Literal["logits", "probabilities", "log-probabilities"]
"""What the numbers are that a model returns."""

BUNDLED_LAYER = "classifier.1"
"""The layer at which the networks of `models.bundled` are explained."""


@dataclass(frozen=True)
class OutputsConfig:
    """What the user says of a model's outputs; what is left open, the labels tell.

    Attributes:
        outputs_are: "classes" exclude each other (the largest logit, or the sign of a single one,
            decides); "labels" do not (a logit above 0 is a label that the model sees); "value" is a
            number (regression). None: multi-hot labels (B, K) say "labels", and float labels of a
            single output that are not all 0 or 1 say "value".
        positives: which values are high and explained: from a number on ("2.5" or ">= 2.5"), or an
            upper share of the images ("10%"); None takes the upper quarter.

    Raises:
        XNNError: another word, or positives that are neither a number nor a share.
    """

    outputs_are: OutputKind | None = None
    positives: str | None = None

    def __post_init__(self) -> None:
        if self.outputs_are not in (None, *get_args(OutputKind)):
            known = ", ".join(get_args(OutputKind))
            near = near_ones(str(self.outputs_are), get_args(OutputKind), most=1)
            raise XNNError(f"outputs_are must be one of {known}, got {self.outputs_are!r}{near}")
        if self.positives is None:
            return
        if self.outputs_are not in (None, "value"):
            raise XNNError(
                "positives= is for values: classes and labels have positives of their own"
            )
        self.share_or_threshold()

    @property
    def kind(self) -> OutputKind | None:
        """What the user says, also by saying which values are high; None if nothing."""
        return self.outputs_are or (None if self.positives is None else "value")

    def allowed(self, allow: Collection[Doubt]) -> tuple[Doubt, ...]:
        """Doubts that are accepted; of a value any range is as good as another."""
        return (*allow, "probabilities") if self.kind == "value" else tuple(allow)

    def agrees_with(self, meaning: Meaning) -> bool:
        """Whether the user says nothing beyond a meaning that is known."""
        return self.positives is None and self.outputs_are in (None, meaning.outputs_are)

    def share_or_threshold(self) -> tuple[float | None, float | None]:
        """The upper share of images that is high, or the number from which on values are.

        Raises:
            XNNError: `positives` is neither.
        """
        text = "25%" if self.positives is None else str(self.positives).strip()
        share = re.fullmatch(r"(?:upper|top)?\s*([0-9.]+)\s*%", text)
        number = re.fullmatch(r"(?:>=)?\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)", text)
        try:
            if share and 0 < float(share[1]) < 100:
                return float(share[1]) / 100, None
            if number:
                return None, float(number[1])
        except ValueError:  # two points
            pass
        raise XNNError(
            f"positives must be a number from which on values are high (2.5), or an upper share of "
            f"the images (10%), got {self.positives!r}"
        )
