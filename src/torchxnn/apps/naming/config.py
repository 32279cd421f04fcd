"""How many images the naming page shows; nothing here loads PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from torchxnn.errors import DataError


@dataclass(frozen=True)
class NameConfig:
    """How many images the page shows per x-feature.

    Attributes:
        top: images that activate it most.
        spaced: positives evenly spaced by activation.
        against: images on which it is strongest against the prediction.

    Raises:
        DataError: a number below 1.
    """

    top: int = 8
    spaced: int = 6
    against: int = 4

    def __post_init__(self) -> None:
        if min(self.top, self.spaced, self.against) < 1:
            raise DataError(f"at least 1 image of each kind is shown, got {self}")
