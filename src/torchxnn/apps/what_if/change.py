"""What the absence of one x-feature changes: measured values, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

ARRAYS = ("heatmap", "region", "masked", "control", "control_region")
"""The attributes of a `Change` that are arrays."""

ELSEWHERE = "network, regions elsewhere (mean)"
"""The bar that also shows the range of the controls."""


@dataclass(frozen=True, eq=False)
class Change:
    """What one x-feature's absence changes on one image, in logits of one target.

    Attributes:
        feature: 0-based.
        name: for people.
        activation: E.
        contribution: to the logit; see `Embedding.contributions`.
        pixels: of its region; 0 if it is inactive or its map is empty, and nothing is painted over:
            then there are no controls.
        set_reproduced: (a) the reproduced logit, if E is set to the value.
        masked_real: (b) the network's own logit, if the region is painted over.
        masked_reproduced: (b) the reproduced logit of that image.
        control_real: the network's own, if a region elsewhere is painted over; one each.
        control_reproduced: the reproduced logits of these images; one each.
        decoded_real: (c) the network's logit on the reconstruction with E set so minus that with it
            as it is; None where x-features are maps.
        heatmap: (H, W), signed.
        region: (H, W).
        masked: (H, W, 3), the image with the region painted over.
        control: (H, W, 3), the same for one of the controls.
        control_region: (H, W), what is painted over there; empty if nothing is.
    """

    feature: int
    name: str
    activation: float
    contribution: float
    pixels: int
    set_reproduced: float
    masked_real: float
    masked_reproduced: float
    control_real: tuple[float, ...]
    control_reproduced: tuple[float, ...]
    decoded_real: float | None
    heatmap: Float[np.ndarray, "height width"]
    region: Bool[np.ndarray, "height width"]
    masked: UInt8[np.ndarray, "height width 3"]
    control: UInt8[np.ndarray, "height width 3"]
    control_region: Bool[np.ndarray, "height width"]

    @property
    def control_mean(self) -> float:
        """Mean change of the network's own logit over the controls."""
        return float(np.mean(self.control_real)) if self.control_real else 0.0

    @property
    def control_range(self) -> tuple[float, float] | None:
        """The least and the largest of these changes; None where there are not several."""
        several = len(self.control_real) > 1
        return (min(self.control_real), max(self.control_real)) if several else None

    @property
    def region_share(self) -> float:
        """Share of the image that the region takes."""
        return self.pixels / self.region.size

    @property
    def relevance_share(self) -> float:
        """Share of the map's positive relevance that lies in the region; 0 of an empty map."""
        positive = np.maximum(self.heatmap, 0)
        return float(positive[self.region].sum() / (positive.sum() or 1.0))

    @property
    def pieces(self) -> int:
        """Patches that the region consists of: pixels that touch, corners included, are one."""
        from scipy.ndimage import label  # its import takes as long as many maps

        return int(label(self.region, np.ones((3, 3)))[1])

    def extent(self) -> str:
        """How large the region is: of the image, in how many patches, and of the relevance."""
        patches = "one patch" if self.pieces == 1 else f"{self.pieces} patches"
        return (
            f"{self.region_share:.0%} of the image in {patches}, {self.relevance_share:.0%} of its "
            "positive relevance"
        )

    @property
    def claimed_sign(self) -> int:
        """Whether the logit should rise (1) or fall (-1) without it; 0 if it claims nothing."""
        return (self.set_reproduced > 0) - (self.set_reproduced < 0)

    @property
    def p(self) -> float | None:
        """How often a place chosen like the controls' would move the logit as far as the region.

        (1 + the controls that move the network's logit at least as far in the claimed direction) /
        (controls + 1), not corrected. None where there is no region, or nothing is claimed.
        """
        if self.pixels == 0 or not self.claimed_sign:
            return None
        return (1 + self.as_far) / (1 + len(self.control_real))

    @property
    def as_far(self) -> int:
        """Controls that move the network's logit at least as far as the region, as claimed."""
        own = self.claimed_sign * self.masked_real
        return sum(self.claimed_sign * each >= own for each in self.control_real)

    def record(self) -> dict[str, Any]:
        """The numbers as plain values."""
        names = [each.name for each in fields(self) if each.name not in ARRAYS]
        return {name: getattr(self, name) for name in names} | {"p": self.p}

    def bars(self) -> tuple[tuple[str, float], ...]:
        """The changes with their names, in the order in which they are drawn."""
        bars = [
            ("reproduced, x-feature set", self.set_reproduced),
            ("network, region painted over", self.masked_real),
            (ELSEWHERE, self.control_mean),
            ("reproduced, region painted over", self.masked_reproduced),
        ]
        if self.decoded_real is not None:
            bars.append(("network, reconstruction without it", self.decoded_real))
        return tuple(bars)
