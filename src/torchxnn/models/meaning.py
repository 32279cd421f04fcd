"""What the outputs of a model mean: classes, labels that do not exclude each other, or values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from torchxnn.models.config import OutputKind, OutputScale
from torchxnn.storage.artifact import structure


@dataclass(frozen=True)
class Meaning:
    """What a model's outputs mean, and from where on a value is high.

    Attributes:
        outputs_are: "classes": the largest logit, or the sign of a single one, decides. "labels":
            every logit above 0 is a label that the model sees. "value": outputs are numbers.
        thresholds: of values, one per output: from there on an input is a positive.
        origin: where the thresholds come from, such as "upper quarter"; empty if the user named
            them.
        scale: what the numbers are; only those who allow it explain others than logits.
    """

    outputs_are: OutputKind = "classes"
    thresholds: tuple[float, ...] = ()
    origin: str = ""
    scale: OutputScale = "logits"

    @property
    def noun(self) -> str:
        """What one output stands for, in a word: "class", "label" or "value"."""
        return _NOUNS[self.outputs_are]

    @property
    def boundary(self) -> float:
        """Above it a single output speaks for class 1, and a label is seen: 0 for logits."""
        return boundary_of(self.scale)

    def high(
        self, values: Shaped[Tensor, "samples *outputs"], targets: Sequence[int]
    ) -> Bool[Tensor, "samples targets"]:
        """Which values of the targets' outputs are high; (M,) are values of every output."""
        columns = [values if values.ndim == 1 else values[:, target] for target in targets]
        limits = [self.thresholds[target] for target in targets]
        return torch.stack(columns, 1) >= torch.tensor(limits, device=values.device)

    def rule(self, targets: Sequence[int]) -> str:
        """From where on values of the targets are high, in words: "value >= 1.93"."""
        values = ", ".join(f"{self.thresholds[target]:.4g}" for target in targets)
        return f"value >= {values}{f' ({self.origin})' if self.origin else ''}"


def boundary_of(scale: OutputScale) -> float:
    """The number that stands for even odds of a single output or a label: 0 for logits."""
    return {"logits": 0.0, "probabilities": 0.5, "log-probabilities": math.log(0.5)}[scale]


_NOUNS: dict[OutputKind, str] = {"classes": "class", "labels": "label", "value": "value"}

CLASSES = Meaning()
"""What outputs mean if nobody says otherwise."""


def read_meaning(about: Mapping[str, Any]) -> Meaning:
    """The meaning in what is written about a saved XNN; classes, as all were in earlier files.

    Raises:
        DataError: it is damaged.
    """
    known = about.get("meaning")
    return structure(known, Meaning, "its meaning") if known else CLASSES
