"""`xnn check`: does excitation backprop conserve relevance, and do its maps need the weights?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from tyro.conf import Positional, arg

from torchxnn.apps.check.config import CheckConfig
from torchxnn.cli.imports import computing
from torchxnn.cli.terminal import NUMBERS, Terminal

if TYPE_CHECKING:
    from torchxnn.attribution.base import LayerCertificate
    from torchxnn.attribution.sanity import RandomizedStep


@dataclass(frozen=True)
class Check(CheckConfig):
    """Check excitation backprop on a model: conservation per layer; do maps need the weights?"""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """torchvision:NAME, timm:NAME, hf:NAME-OR-FOLDER or package.module:factory, or the folder of a
    saved XNN, whose model is checked"""
    images: Annotated[Positional[tuple[Path, ...]], arg(metavar="[IMAGE ...]")] = ()
    """real images to check on, beside random input"""

    def execute(self, terminal: Terminal) -> None:
        """Print what the model is like, a table per input, and the cascade if asked."""
        with computing():
            from torchxnn.apps.check.run import InputCheck, run_check
            from torchxnn.models.examination import Examination

        for found in run_check(self, lambda text: terminal.complain(f"xnn: note: {text}")):
            if isinstance(found, Examination):
                terminal.examination(found)
                continue
            if isinstance(found, InputCheck):
                title = f"{self.model} on {found.name}, output {found.target}"
                terminal.show(certificate_table(title, found.layers))
                continue
            terminal.show(cascade_table(found.steps))
            terminal.say(found.verdict)
            if found.file is not None:
                terminal.say(f"Wrote {found.file}")


def certificate_table(title: str, layers: Sequence[LayerCertificate]) -> Table:
    """One row per module from the top down, and the worst of all."""
    from torchxnn.attribution.base import CONSERVATION_LIMIT

    columns = map(NUMBERS, ("operations", "conservation error", "fallback share"))
    table = Table("layer", *columns, title=title)
    for layer in layers:
        bad = layer.conservation_error > CONSERVATION_LIMIT
        table.add_row(
            layer.layer or "(outermost)",
            str(layer.operations),
            f"{layer.conservation_error:.1e}",
            f"{layer.fallback_share:.2%}",
            style="red" if bad else None,
        )
    table.add_section()
    table.add_row(
        "worst",
        str(sum(layer.operations for layer in layers)),
        f"{max((layer.conservation_error for layer in layers), default=0.0):.1e}",
        f"{max((layer.fallback_share for layer in layers), default=0.0):.2%}",
    )
    return table


def cascade_table(steps: Sequence[RandomizedStep]) -> Table:
    """How the maps change as weights are destroyed from the top."""
    correlation = NUMBERS("rank correlation with the trained model's maps")
    table = Table("destroyed down to", correlation, title="Weights destroyed from the top down")
    for step in steps:
        table.add_row(step.layer or "(nothing)", f"{step.correlation:+.3f}")
    table.caption = "a method whose maps do not change explains nothing about the network"
    return table
