"""The explanation of one volume, such as a CT scan: what of it is shown is a row of slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from torchxnn.explanations.alike import drawn_correlation
from torchxnn.explanations.base import Reasons
from torchxnn.explanations.card import Card, Heatmap
from torchxnn.explanations.drawing.overlay import Scale, intensities
from torchxnn.storage.artifact import Format

SLICES = 3
"""How many slices are drawn of every map."""
_ARRAYS = ("features", "contributions", "intercept", "heatmaps", "logit_heatmaps", "logits",
           "reproduced")  # fmt: skip
_CAPTION = (
    f"Of every map the {SLICES} slices with the most positive relevance, in the order of their "
    "depth, counted from 0; the slices of one map share its colour scale. Upper row: where it "
    "looks, lightly smoothed for drawing only. Lower row: what is there, the fewest voxels of "
    "these slices that hold half of their positive part."
)


@final
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class VolumeExplanation(Reasons):
    """Why the network gives one volume its logits, as n x-features that add up to them.

    What is not listed here is explained at `Reasons`. A saved one holds, beside
    `explanation.json`, page and figure, `arrays.npz` with all maps, voxel by voxel.

    Attributes:
        volume: (D, H, W, 3) uint8, as the network saw it, without the normalisation.
        heatmaps: (n, D, H, W), signed relevance of each x-feature.
        logit_heatmaps: (k, D, H, W), signed relevance of each original logit.

    Raises:
        DataError: shapes that do not belong together.
        NonFiniteError: NaN or infinity in any of the numbers.
    """

    format = Format("torchxnn.volume_explanation", 1, "a saved explanation of a volume")
    unit: ClassVar[str] = "volume"
    volume: UInt8[np.ndarray, "depth height width 3"]
    heatmaps: Float[Tensor, "features depth height width"]
    logit_heatmaps: Float[Tensor, "targets depth height width"]

    def _shapes(self) -> tuple[dict[str, tuple[int, ...]], str]:
        size = self.volume.shape[:3]
        shapes = {
            "heatmaps": (len(self.features), *size),
            "logit_heatmaps": (len(self.targets), *size),
        }
        return shapes, f"a volume of {size}"

    def relevance(self) -> tuple[Tensor, Tensor]:
        """The heatmaps of the x-features and of the logits."""
        return self.heatmaps, self.logit_heatmaps

    def evidence(self, relevance: Tensor, scale: Scale = "each") -> Sequence[Heatmap]:
        """The chosen slices of heatmaps (maps, D, H, W) side by side, on those of the volume."""
        rows = [in_slices(self.volume, one) for one in relevance]
        levels = intensities([row.relevance for row in rows], scale)
        return [
            Heatmap(row.image, row.relevance, level, row.slices)
            for row, level in zip(rows, levels, strict=True)
        ]

    def place(self, relevance: Tensor) -> str:
        """The 0-based numbers of the slices that are drawn of a map, as in "slices 2, 3, 4"."""
        return in_slices(self.volume, relevance).text

    def map_correlation(self) -> Float[np.ndarray, "features features"]:
        """Correlation of the heatmaps, slice below slice, as drawn, (n, n)."""
        return self._drawn_correlation

    @cached_property
    def _drawn_correlation(self) -> Float[np.ndarray, "features features"]:
        active = (self.features != 0).numpy()
        shown = np.where(active[:, None, None], self.heatmaps.flatten(1, 2).numpy(), 0)
        return drawn_correlation(list(shown))

    def caption(self, scale: Scale = "each") -> str:
        """How the slices were chosen, scaled and smoothed."""
        shared = " The x-features share one colour scale." if scale == "shared" else ""
        return _CAPTION + shared

    def _write_evidence(self, folder: Path, card: Card) -> dict[str, Any]:
        arrays: dict[str, Any] = {name: getattr(self, name).numpy() for name in _ARRAYS}
        np.savez_compressed(folder / "arrays.npz", volume=self.volume, **arrays)
        return {
            **self._record(),
            "drawing": self.caption(),
            "arrays": "arrays.npz holds the raw signed heatmaps (n, D, H, W)",
        }

    @classmethod
    def _read(cls, folder: Path, record: dict[str, Any]) -> VolumeExplanation:
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            own = {name: torch.from_numpy(arrays[name]) for name in _ARRAYS}
            return cls._of_record(folder, record, volume=arrays["volume"], **own)


@dataclass(frozen=True, eq=False)
class SliceRow:
    """The slices of a volume that a map is drawn on, side by side.

    Attributes:
        image: (H, W of all, 3).
        relevance: (H, W of all), signed.
        slices: their 0-based numbers.
    """

    image: UInt8[np.ndarray, "height width 3"]
    relevance: Float[np.ndarray, "height width"]
    slices: tuple[int, ...]

    @property
    def text(self) -> str:
        """The numbers in words, as in "slices 2, 3, 4"."""
        return f"slices {', '.join(map(str, self.slices))}"


def in_slices(
    volume: UInt8[np.ndarray, "depth height width 3"], heatmap: Float[Tensor, "depth height width"]
) -> SliceRow:
    """The slices of a volume with the most positive relevance, and the map on them."""
    chosen = slices_of(heatmap)
    image, relevance = volume[chosen], heatmap.cpu().numpy()[chosen]
    return SliceRow(_side_by_side(image, 255), _side_by_side(relevance, 0), tuple(chosen))


def slices_of(heatmap: Float[Tensor, "depth height width"]) -> list[int]:
    """The slices with the most positive relevance, in the order of their depth."""
    strength = heatmap.clamp(min=0).flatten(1).sum(1)
    most = torch.argsort(strength, descending=True, stable=True)[:SLICES]
    return sorted(most.tolist())


def _side_by_side(slices: np.ndarray, fill: int) -> np.ndarray:
    """Slices (S, H, W, ...) as one image with narrow gaps between them."""
    gap = max(1, slices.shape[2] // 16)
    room = [(0, 0)] * (slices.ndim - 2)
    padded = np.pad(slices, [(0, 0), (0, 0), (0, gap), *room[1:]], constant_values=fill)
    return np.concatenate(list(padded), axis=1)[:, :-gap]
