"""The explanation of one image: "A is B because of C, D and E".

An `Explanation` holds numbers and maps; `card()` puts them into words and order once, and the
figure, the saved folder and the HTML page all draw that card.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from torchxnn.explanations.base import Reasons
from torchxnn.explanations.card import Card, Panel, Scale
from torchxnn.explanations.drawing.canvas import figure_bytes, save_figure
from torchxnn.explanations.drawing.figure import draw_card
from torchxnn.explanations.drawing.html import render_card
from torchxnn.explanations.drawing.notebook import card_fragment
from torchxnn.explanations.drawing.overlay import PERCENTILE, cutout, intensities, overlay
from torchxnn.explanations.drawing.paper_figure import Columns, draw_paper_card
from torchxnn.explanations.record import MARKER, read_record, write_record
from torchxnn.storage.files import replace_file, replace_folder

FORMAT = "torchxnn.explanation"
_ABOUT_ARRAYS = "arrays.npz holds the raw signed heatmaps (n, H, W), not smoothed or scaled"
_ARRAYS = ("features", "contributions", "intercept", "heatmaps", "logit_heatmaps", "logits",
           "reproduced")  # fmt: skip


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation(Reasons):
    """Why the network gives one image its logits, as n x-features that add up to them.

    The contribution v_i E_i of x-feature i stands above its heatmap (paper figure 8). What is not
    listed here is explained at `Reasons`.

    Attributes:
        picture: (H, W, 3) uint8, the image as the network saw it, without the normalisation.
        heatmaps: (n, H, W), signed relevance of each x-feature (c-MWP unless another method is
            named in the certificate).
        logit_heatmaps: (k, H, W), signed relevance of each original logit.

    Raises:
        DataError: shapes that do not belong together.
        NonFiniteError: NaN or infinity in any of the numbers.
    """

    picture: UInt8[np.ndarray, "height width 3"]
    heatmaps: Float[Tensor, "features height width"]
    logit_heatmaps: Float[Tensor, "targets height width"]

    def _shapes(self) -> tuple[dict[str, tuple[int, ...]], str]:
        size = self.picture.shape[:2]
        maps = {
            "heatmaps": (len(self.features), *size),
            "logit_heatmaps": (len(self.targets), *size),
        }
        return maps, f"a picture of {size}"

    def card(self, target: int | None = None, scale: Scale = "each") -> Card:
        """Put the explanation into words and order, ready to be drawn.

        Args:
            target: Class index of the one target to show; None shows all.
            scale: "each": every heatmap uses the whole colour scale; "shared": the x-features'
                heatmaps share one, so that they can be compared.

        Raises:
            DataError: `target` is not among the targets of this explanation.
        """
        rows = self._rows(target)
        panels = []
        for i in self.order(rows[0]):
            values = tuple(float(self.contributions[k, i]) for k in rows)
            idle = float(self.features[i]) == 0 or not any(values)
            note = "inactive here" if idle else ""
            panels.append(Panel(self.feature_names[i], _array(self.heatmaps[i]), values, note))
        return Card(
            picture=self.picture,
            sentence=self.sentence(rows[0]),
            facts=self._facts(),
            rows=tuple(self._row(k) for k in rows),
            panels=tuple(panels),
            logit_panels=tuple(
                Panel(self.target_names[k], _array(self.logit_heatmaps[k])) for k in rows
            ),
            certificate=self.certificate_lines(),
            warnings=self._warnings(rows),
            caption=_CAPTION[scale],
            scale=scale,
        )

    def plot(
        self,
        target: int | None = None,
        scale: Scale = "each",
        style: Literal["screen", "paper"] = "screen",
        columns: Columns = 1,
    ) -> Figure:
        """Draw the figure: picture, heatmaps by contribution, the logit's heatmap, certificate.

        Args:
            target: as in `card`.
            scale: as in `card`.
            style: "screen", or "paper": fits a paper's column, 7 to 8 points, without sentence and
                certificate, which belong into the caption.
            columns: with "paper", 1 for 3.3 inches and 2 for 6.9.

        Returns:
            A figure that belongs to no window: use its `savefig`, or `save_figure`.
        """
        card = self.card(target, scale)
        return draw_paper_card(card, columns) if style == "paper" else draw_card(card)

    def save_figure(self, file: Path | str, **options: Any) -> None:
        """Write the figure as PNG, PDF or SVG by the file's ending; options as for `plot`.

        In a PDF or SVG text stays text.

        Raises:
            DataError: another ending.
            OSError: The file cannot be written.

        Example:
            >>> explanation.save_figure("goldfinch.pdf", style="paper")
        """
        save_figure(self.plot(**options), file)

    def to_html(self, file: Path | str) -> None:
        """Write one self-contained HTML page that opens offline; whole or not at all.

        Raises:
            OSError: The file cannot be written.
        """
        replace_file(Path(file), render_card(self.card()))

    def save(self, directory: Path | str) -> None:
        """Write a folder: `explanation.json`, `arrays.npz` and PNGs; whole or not at all.

        The PNGs are `figure.png`, `picture.png`, `x_feature_<i>.png`, `x_feature_<i>_cutout.png`
        (i is 1-based) and `logit_<class index>.png`. An older explanation there is replaced.

        Raises:
            FileExistsError: The folder holds something that is not an explanation.
            OSError: It cannot be written.
        """
        with replace_folder(Path(directory), MARKER) as folder:
            arrays: dict[str, Any] = {name: _array(getattr(self, name)) for name in _ARRAYS}
            np.savez_compressed(folder / "arrays.npz", picture=self.picture, **arrays)
            for name, pixels in self._pictures().items():
                Image.fromarray(pixels).save(folder / name)
            self.plot().savefig(folder / "figure.png")
            more = {"drawing": _CAPTION["each"], "arrays": _ABOUT_ARRAYS}
            write_record(folder, FORMAT, self, more)

    @classmethod
    def load(cls, directory: Path | str) -> Explanation:
        """Read what `save` wrote.

        Raises:
            DataError: The folder holds no explanation, or one of a newer version.
        """
        folder = Path(directory)
        _, values = read_record(folder, FORMAT)
        with np.load(folder / "arrays.npz", allow_pickle=False) as arrays:
            values |= {name: torch.from_numpy(arrays[name]) for name in _ARRAYS}
            values["picture"] = arrays["picture"]
        return cls(**values)

    def _repr_html_(self) -> str:
        return card_fragment(self.card())

    def _repr_png_(self) -> bytes:
        """For documents that notebooks are turned into without HTML."""
        return figure_bytes(self.plot(), "png")

    def _pictures(self) -> dict[str, np.ndarray]:
        maps = [_array(m) for m in self.heatmaps]
        pictures = {"picture.png": self.picture}
        for i, (heatmap, intensity) in enumerate(zip(maps, intensities(maps), strict=True), 1):
            pictures[f"x_feature_{i}.png"] = overlay(self.picture, intensity)
            pictures[f"x_feature_{i}_cutout.png"] = cutout(self.picture, heatmap)
        for k, heatmap in zip(self.targets, self.logit_heatmaps, strict=True):
            (intensity,) = intensities([_array(heatmap)])
            pictures[f"logit_{k}.png"] = overlay(self.picture, intensity)
        return pictures


_SMOOTHED = (
    "Upper row: where it looks, the positive part of the relevance, lightly smoothed for drawing "
    f"only; the colours end at the {PERCENTILE}th percentile. Lower row: what is there, the fewest "
    "pixels that hold half of the positive part after twice that smoothing."
)
_CAPTION: dict[str, str] = {
    "each": "Each heatmap has its own colour scale (normalised per x-feature and image). "
    + _SMOOTHED,
    "shared": "The heatmaps of the x-features share one colour scale; the logit's has its own. "
    + _SMOOTHED,
}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.numpy()
