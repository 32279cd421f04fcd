"""How x-features are taken away; nothing here loads PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchxnn.errors import DataError
from torchxnn.metrics.config import Inpainting

CLAIM_LEVEL = 0.05
"""Largest corrected p at which a sentence claims that the network uses an x-feature."""

_FEWEST_CONTROLS, _CONTROLS_PER_FEATURE = 39, 20


@dataclass(frozen=True)
class WhatIfConfig:
    """How x-features are taken away.

    Attributes:
        share: pixels of an x-feature's region, as a share of all.
        pixels: their number instead; None takes `share`.
        controls: regions of the same size and shape elsewhere, per x-feature; None takes as many as
            a claim at `CLAIM_LEVEL` needs after the correction for all x-features that are asked
            for: 20 for each of them, and at least 39.
        on_object: share of the controls that are placed on the object, which is where the maps of
            the logit and of the x-features have mass; the others lie anywhere.
        value: what an x-feature is set to; None sets it to that of a typical other image.
        seed: of the places of the controls.
        blur: smooth maps before their highest pixels are taken, standard deviation as a share of
            the shorter side, so that regions are patches; cut-outs use the same, 0.027. 0 takes
            maps as they are, which are often scattered pixels that painting over restores from
            those between them.
        inpainting: how regions are painted over.

    Raises:
        DataError: a number out of range.
    """

    share: float = 0.1
    pixels: int | None = None
    controls: int | None = None
    on_object: float = 0.5
    value: float | None = None
    seed: int = 0
    blur: float = 0.027
    inpainting: Inpainting = field(default_factory=Inpainting)

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or (self.pixels is not None and self.pixels < 1):
            raise DataError(
                f"a region's share must be between 0 and 1 and its pixels at least 1, got "
                f"{self.share} and {self.pixels}"
            )
        few = self.controls is not None and self.controls < 1
        if few or (self.value or 0.0) < 0 or self.blur < 0:
            raise DataError(
                "there must be at least 1 control, and neither x-features nor a blur are negative, "
                f"got {self.controls}, {self.value} and {self.blur}"
            )
        if not 0 <= self.on_object <= 1:
            raise DataError(f"the share of controls on the object is 0 to 1, got {self.on_object}")

    def control_counts(self, features: int) -> tuple[int, int]:
        """Controls anywhere and on the object, if `features` x-features are asked for."""
        total = self.controls or max(_FEWEST_CONTROLS, _CONTROLS_PER_FEATURE * features)
        on_object = round(self.on_object * total)
        return total - on_object, on_object

    def definition(self) -> str:
        """What a region is, in words."""
        most = f"{self.share:.0%} of the pixels" if self.pixels is None else f"{self.pixels} pixels"
        smoothed = f" after smoothing by {self.blur:.1%} of the shorter side" if self.blur else ""
        return f"where its map is highest{smoothed}, {most}"

    def size(self, height: int, width: int) -> int:
        """Pixels of a region in pictures of a size."""
        pixels = self.pixels or max(1, round(self.share * height * width))
        if pixels >= height * width:
            raise DataError(f"a region of {pixels} pixels leaves nothing of {height} x {width}")
        return pixels
