"""`xnn check`: does excitation backprop conserve relevance, and do its maps need the weights?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from torchxnn.cli.terminal import Terminal


@dataclass(frozen=True)
class Check:
    """Check excitation backprop on a model: conservation per layer; do maps need the weights?"""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """torchvision:NAME, timm:NAME or package.module:factory"""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="[IMAGE ...]")] = ()
    """real images to check on, beside random input"""
    weights: Path | None = None
    """state dict of the model; without it random weights are checked if there are no others"""
    target: int | None = None
    """output to explain; by default the one with the highest logit on the first image"""
    size: int | None = None
    """height and width of the input in pixels; by default what the model expects"""
    randomize: bool = False
    """destroy the weights layer by layer from the top and show how the maps change"""
    out: Path | None = None
    """with --randomize: PNG to draw the maps into"""
    seed: int = 0
    """of the random input and the random weights"""

    def execute(self, terminal: Terminal) -> None:
        """Print a table per input, and the cascade if asked."""
        from torchxnn.apps.check import CheckConfig, run_check

        run_check(CheckConfig(**vars(self)), terminal.out, terminal.err)
