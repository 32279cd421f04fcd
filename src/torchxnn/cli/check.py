"""`xnn check`: does excitation backprop conserve relevance, and do its maps need the weights?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from torchxnn.apps.check import CheckConfig, run_check
from torchxnn.cli.terminal import Terminal


@dataclass(frozen=True)
class Check(CheckConfig):
    """Check excitation backprop on a model: conservation per layer; do maps need the weights?"""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """torchvision:NAME, timm:NAME or package.module:factory"""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="[IMAGE ...]")] = ()
    """real images to check on, beside random input"""

    def execute(self, terminal: Terminal) -> None:
        """Print a table per input, and the cascade if asked."""
        run_check(self, terminal.out, terminal.err)
