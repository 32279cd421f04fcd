"""What an atlas shows."""

from __future__ import annotations

from dataclasses import dataclass

from torchxnn.errors import XNNError


@dataclass(frozen=True)
class AtlasConfig:
    """What the pages of an atlas show, and how large they may be.

    Attributes:
        examples: images per class that are shown with all maps.
        top: images per x-feature on which it is largest.
        spaced: positives per x-feature, evenly spaced from its largest value to its smallest.
        against: images per x-feature on which it speaks most against the network's decision.
        similar: x-features of other classes that an x-feature is linked to.
        least_correlation: below it x-features are not called similar.
        close: classes listed as the closest ones.
        side: height and width of images in pixels.
        limit: megabytes (10^6 bytes) of everything that belongs to one class; images are made
            smaller until it fits.
        block: XNNs whose x-features a job computes together.

    Raises:
        XNNError: a number out of range.
    """

    examples: int = 4
    top: int = 8
    spaced: int = 5
    against: int = 4
    similar: int = 4
    least_correlation: float = 0.3
    close: int = 5
    side: int = 200
    limit: float = 1.5
    block: int = 16

    def __post_init__(self) -> None:
        for name in ("examples", "spaced", "against", "similar", "close"):
            if getattr(self, name) < 0:
                raise XNNError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("top", "block"):
            if getattr(self, name) < 1:
                raise XNNError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.side < 32 or self.limit <= 0 or not -1 <= self.least_correlation <= 1:
            raise XNNError(
                "side must be at least 32, limit above 0 and least_correlation in [-1, 1], got "
                f"{self.side}, {self.limit} and {self.least_correlation}"
            )
