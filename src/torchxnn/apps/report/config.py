"""What a report shows; nothing here loads PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

from torchxnn.errors import XNNError


@dataclass(frozen=True)
class ReportConfig:
    """What a report shows.

    Attributes:
        images: images that are explained in full.
        sheet: images per x-feature's sheet.
        method: that draws the heatmaps, a name in `METHODS`; None takes `default_method`.

    Raises:
        XNNError: a negative number.
    """

    images: int = 6
    sheet: int = 8
    method: str | None = None

    def __post_init__(self) -> None:
        if self.images < 0 or self.sheet < 0:
            raise XNNError(
                f"images and sheet must not be negative, got {self.images} and {self.sheet}"
            )
