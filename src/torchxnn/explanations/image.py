"""The explanation of one image: "A is B because of C, D and E"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from torchxnn.explanations.alike import drawn_correlation
from torchxnn.explanations.base import Reasons
from torchxnn.explanations.card import Card, Heatmap
from torchxnn.explanations.drawing.overlay import PERCENTILE, Scale, intensities
from torchxnn.storage.artifact import Format

_ARRAYS = ("features", "contributions", "intercept", "heatmaps", "logit_heatmaps", "logits",
           "reproduced")  # fmt: skip
_SMOOTHED = (
    "Upper row: where it looks, the positive part of the relevance, lightly smoothed for drawing "
    f"only; the colours end at the {PERCENTILE}th percentile. Lower row: what is there, the fewest "
    "pixels that hold half of the positive part after twice that smoothing."
)
_CAPTION: dict[Scale, str] = {
    "each": "Each heatmap has its own colour scale (normalised per x-feature and image). "
    + _SMOOTHED,
    "shared": "The heatmaps of the x-features share one colour scale; the logit's has its own. "
    + _SMOOTHED,
}


@final
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Explanation(Reasons):
    """Why the network gives one image its logits, as n x-features that add up to them.

    The contribution of x-feature i stands above its heatmap (paper figure 8). What is not listed
    here is explained at `Reasons`. A saved one holds, beside `explanation.json`, page and figure,
    `arrays.npz`, `image.png`, `x_feature_<i>.png`, `x_feature_<i>_cutout.png` (i is 1-based) and
    `logit_<class index>.png`.

    Attributes:
        image: (H, W, 3) uint8, as the network saw it, without the normalisation.
        heatmaps: (n, H, W), signed relevance of each x-feature (c-MWP unless another method is
            named in the certificate).
        logit_heatmaps: (k, H, W), signed relevance of each original logit.

    Raises:
        DataError: shapes that do not belong together.
        NonFiniteError: NaN or infinity in any of the numbers.
    """

    format = Format("torchxnn.explanation", 1, "a saved explanation of an image")
    image: UInt8[np.ndarray, "height width 3"]
    heatmaps: Float[Tensor, "features height width"]
    logit_heatmaps: Float[Tensor, "targets height width"]

    def _shapes(self) -> tuple[dict[str, tuple[int, ...]], str]:
        size = self.image.shape[:2]
        shapes = {
            "heatmaps": (len(self.features), *size),
            "logit_heatmaps": (len(self.targets), *size),
        }
        return shapes, f"an image of {size}"

    def relevance(self) -> tuple[Tensor, Tensor]:
        """The heatmaps of the x-features and of the logits."""
        return self.heatmaps, self.logit_heatmaps

    def evidence(self, relevance: Tensor, scale: Scale = "each") -> Sequence[Heatmap]:
        """Heatmaps (maps, H, W) on this image."""
        maps = list(relevance.numpy())
        return [
            Heatmap(self.image, one, intensity)
            for one, intensity in zip(maps, intensities(maps, scale), strict=True)
        ]

    def map_correlation(self) -> Float[np.ndarray, "features features"]:
        """Correlation of the heatmaps as drawn, (n, n); 0 where an x-feature is inactive."""
        return self._drawn_correlation

    @cached_property
    def _drawn_correlation(self) -> Float[np.ndarray, "features features"]:
        active = (self.features != 0).numpy()
        shown = np.where(active[:, None, None], self.heatmaps.numpy(), 0)
        return drawn_correlation(list(shown))

    def caption(self, scale: Scale = "each") -> str:
        """How the heatmaps were scaled and smoothed."""
        return _CAPTION[scale]

    def _write_evidence(self, folder: Path, card: Card) -> dict[str, Any]:
        arrays: dict[str, Any] = {name: getattr(self, name).numpy() for name in _ARRAYS}
        # "picture" is what files of version 1 call the image
        np.savez_compressed(folder / "arrays.npz", picture=self.image, **arrays)
        pictures = {"image": self.image}
        rows = self._rows(None)
        for i, panel in zip(self.order(rows[0]), card.panels, strict=True):
            names = f"x_feature_{i + 1}", f"x_feature_{i + 1}_cutout"
            pictures |= dict(zip(names, cast(Heatmap, panel.evidence).pictures(), strict=True))
        for k, panel in zip(rows, card.logit_panels, strict=True):
            pictures[f"logit_{self.targets[k]}"] = cast(Heatmap, panel.evidence).pictures()[0]
        for name, pixels in pictures.items():
            Image.fromarray(pixels).save(folder / f"{name}.png")
        return {
            **self._record(),
            "drawing": self.caption(),
            "arrays": "arrays.npz holds the raw signed heatmaps (n, H, W), not smoothed or scaled",
        }

    @classmethod
    def _read(cls, folder: Path, record: dict[str, Any]) -> Explanation:
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            own = {name: torch.from_numpy(arrays[name]) for name in _ARRAYS}
            return cls._of_record(folder, record, image=arrays["picture"], **own)
