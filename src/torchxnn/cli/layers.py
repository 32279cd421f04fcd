"""`xnn layers`: where an XNN can be attached to a model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from rich.table import Column, Table
from tyro.conf import Positional, arg

from torchxnn.cli.imports import computing
from torchxnn.cli.terminal import NUMBERS, Terminal
from torchxnn.data.config import DataConfig
from torchxnn.errors import XNNWarning
from torchxnn.models.config import Size

if TYPE_CHECKING:
    from torchxnn.models.layer_list import LayerInfo
    from torchxnn.models.preprocessing import Preprocessing


@dataclass(frozen=True)
class Layers:
    """List the layers of a model with output shapes, and mark those an XNN can be attached to."""

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """torchvision:NAME, timm:NAME, hf:NAME-OR-FOLDER or package.module:factory"""
    size: Size | None = None
    """of the input in pixels, 224 for a square, 16x64 for height and width or 32x64x64 for depth,
    height and width of volumes; by default what the model expects"""
    in_channels: int | None = None
    """of the input; by default what the model expects"""

    def execute(self, terminal: Terminal) -> None:
        """Print the table, and what the model is like on random images."""
        with computing():
            import torch

            from torchxnn.models.channels import check_dimensions
            from torchxnn.models.examination import EXAMINED, examine_model
            from torchxnn.models.layer_list import list_layers
            from torchxnn.models.load import load_model

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XNNWarning)  # random weights have the same shapes
            loaded = load_model(self.model, allow_random=True)
        given = DataConfig(size=self.size, in_channels=self.in_channels)
        preprocessing = given.preprocessing(loaded.preprocessing)
        check_dimensions(loaded.model, preprocessing)
        shape = preprocessing.shape
        three = torch.zeros(3, *shape)  # which no forward takes for a pair (images, labels)
        layers = list_layers(loaded.model, three)
        terminal.show(layers_table(self.model, preprocessing, layers))
        noise = torch.randn(EXAMINED, *shape, generator=torch.Generator().manual_seed(0))
        terminal.examination(examine_model(loaded.model, noise))


def layers_table(model: str, preprocessing: Preprocessing, layers: Sequence[LayerInfo]) -> Table:
    """One row per layer; those an XNN can be attached to carry a tick, or --token."""
    attach = Column("attach", justify="center")
    layer_names = Column("layer", overflow="fold")  # a name that is cut cannot be copied
    table = Table(layer_names, "kind", NUMBERS("output"), NUMBERS("calls"), attach)
    shape = " x ".join(map(str, preprocessing.shape))
    table.title = f"Layers of {model} on a {shape} {preprocessing.unit}"
    for layer in layers:
        output = "no row per image" if layer.shape is None else " x ".join(map(str, layer.shape))
        table.add_row(
            layer.name,
            layer.kind,
            output if layer.calls else "did not run",
            str(layer.calls),
            "[green]✓[/]" if layer.attachable else "--token" if layer.takes_token else "",
        )
    table.caption = "✓: runs once and gives one vector or maps per image"
    if any(layer.takes_token for layer in layers):
        table.caption += "; --token: gives tokens, and xnn fit --token says which"
    return table
