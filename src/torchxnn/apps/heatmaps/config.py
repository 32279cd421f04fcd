"""Which heatmaps are drawn and how they are kept; nothing here loads PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchxnn.errors import XNNError


@dataclass(frozen=True)
class HeatmapConfig:
    """Which heatmaps are drawn, and how they are kept.

    Attributes:
        method: attribution method; `torchxnn.attribution.methods.METHODS` has the names. None takes
            `torchxnn.explanations.default_method`.
        images: "positives" are the images of the XNN's targets, by label, or by prediction where
            there are no labels; "all" is every image.
        dtype: precision on disk. Every map has its own scale in float32, so float16 keeps three
            digits of every value above 1/16,000 of the map's largest.
        map_size: height and width of the maps on disk; None keeps every pixel. Smaller maps have
            the same sum: every pixel's relevance goes to the cells it lies in.
        images_at_once: images whose maps are drawn together; the memory needed grows with it.
        chunk_rows: images per file; None: at most 256 images and 32 MB.
    """

    method: str | None = None
    images: Literal["positives", "all"] = "positives"
    dtype: Literal["float16", "float32"] = "float16"
    map_size: int | None = None
    images_at_once: int = 8
    chunk_rows: int | None = None

    def __post_init__(self) -> None:
        if self.method is not None:
            from torchxnn.attribution.methods import check_method

            check_method(self.method)
        for name in ("map_size", "images_at_once", "chunk_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise XNNError(f"{name} must be at least 1, got {value}")
        for name, known in (("images", ("positives", "all")), ("dtype", ("float16", "float32"))):
            if getattr(self, name) not in known:
                raise XNNError(f"{name} must be one of {', '.join(known)}")
