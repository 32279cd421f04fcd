"""What `xnn check` is to check; nothing here loads PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchxnn.models.config import Size


@dataclass(frozen=True)
class CheckConfig:
    """What to check.

    Attributes:
        model: torchvision:NAME, timm:NAME, hf:NAME-OR-FOLDER or package.module:factory, or the
            folder of a saved XNN, whose model is checked.
        images: real images to check on, beside random input.
        weights: state dict of the model; without it random weights are checked if there are no
            others.
        target: output to explain; by default the one with the highest logit on the first image.
        size: of the input in pixels, 224 for a square, 16x64 for height and width or 32x64x64 for
            depth, height and width of volumes; by default what the model expects.
        randomize: destroy the weights layer by layer from the top and show how the maps change.
        out: with --randomize: PNG to draw the maps into.
        seed: of the random input and the random weights.
    """

    model: str
    images: tuple[Path, ...] = ()
    weights: Path | None = None
    target: int | None = None
    size: Size | None = None
    randomize: bool = False
    out: Path | None = None
    seed: int = 0
