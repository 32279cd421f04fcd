"""`xnn check`: conservation layer by layer, and the randomization cascade, for one model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from torchxnn.apps.gallery import evenly_spaced
from torchxnn.attribution.base import CONSERVATION_LIMIT, LayerCertificate
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.sanity import RandomizedStep, randomize_from_the_top
from torchxnn.data.datasets.images import read_image
from torchxnn.data.datasets.open import DataConfig
from torchxnn.errors import AttributionWarning, XNNError, XNNWarning
from torchxnn.explanations.drawing.canvas import figure_bytes
from torchxnn.explanations.drawing.overlay import heatmap_over
from torchxnn.models.load import LoadedModel, load_model
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.files import replace_file

COLUMNS = 8


@dataclass(frozen=True)
class CheckConfig:
    """What to check.

    Attributes:
        model: torchvision:NAME, timm:NAME or package.module:factory.
        images: real images to check on, beside random input.
        weights: state dict of the model; without it random weights are checked if there are no
            others.
        target: output to explain; by default the one with the highest logit on the first image.
        size: height and width of the input in pixels; by default what the model expects.
        randomize: destroy the weights layer by layer from the top and show how the maps change.
        out: with --randomize: PNG to draw the maps into.
        seed: of the random input and the random weights.
    """

    model: str
    images: tuple[Path, ...] = ()
    weights: Path | None = None
    target: int | None = None
    size: int | None = None
    randomize: bool = False
    out: Path | None = None
    seed: int = 0


def run_check(config: CheckConfig, console: Console, errors: Console) -> None:
    """Certify a model on random and on real input, and print a table of layers for each.

    Raises:
        UnsupportedOperationError: relevance reached an operation without a rule.
        DataError: an image cannot be read.
    """
    if config.out is not None and not config.randomize:
        raise XNNError("--out draws the maps of --randomize; give both or neither")
    loaded = _load(config, errors)
    preprocessing = DataConfig(size=config.size).preprocessing(loaded.preprocessing)
    inputs = {"random input": _noise(preprocessing, config.seed)}
    if config.images:
        real = [preprocessing(read_image(path)) for path in config.images]
        inputs[f"{len(real)} real image(s)"] = torch.stack(real)
    for name, batch in inputs.items():
        target = _target(loaded.model, batch, config.target)
        layers = ExcitationBackprop(loaded.model).certify_layers(batch, [target])
        console.print(certificate_table(f"{config.model} on {name}, output {target}", layers))
    if config.randomize:
        _cascade(config, loaded, preprocessing, batch, console)


def certificate_table(title: str, layers: Sequence[LayerCertificate]) -> Table:
    """One row per module from the top down, and the worst of all."""
    table = Table(title=title)
    table.add_column("layer")
    for name in ("operations", "conservation error", "fallback share"):
        table.add_column(name, justify="right")
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
    table = Table(title="Weights destroyed from the top down")
    table.add_column("destroyed down to")
    table.add_column("rank correlation with the trained model's maps", justify="right")
    for step in steps:
        table.add_row(step.layer or "(nothing)", f"{step.correlation:+.3f}")
    table.caption = "a method whose maps do not change explains nothing about the network"
    return table


def draw_cascade(pictures: Sequence[np.ndarray], steps: Sequence[RandomizedStep]) -> Figure:
    """The first target's map of each image (rows) at up to eight steps (columns)."""
    shown = evenly_spaced(steps, COLUMNS)
    figure = Figure(figsize=(1.7 * len(shown) + 0.2, 1.8 * len(pictures) + 0.6), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(pictures), len(shown), squeeze=False)
    for row, picture in enumerate(pictures):
        for column, step in enumerate(shown):
            axis = axes[row, column]
            axis.imshow(heatmap_over(picture, step.maps[row, 0].cpu().numpy()))
            axis.set_axis_off()
            if row == 0:
                name = step.layer or "trained"
                axis.set_title(f"{name}\n{step.correlation:+.2f}", fontsize=8)
    figure.tight_layout(pad=0.6)
    return figure


def _load(config: CheckConfig, errors: Console) -> LoadedModel:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", XNNWarning)
        loaded = load_model(config.model, config.weights, allow_random=True)
    for warning in caught:
        errors.print(f"xnn: note: {warning.message}", style="yellow", markup=False)
    return loaded


def _noise(preprocessing: Preprocessing, seed: int) -> Float[Tensor, "2 3 size size"]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, preprocessing.size, preprocessing.size, generator=generator)


def _target(model: nn.Module, images: Tensor, target: int | None) -> int:
    if target is not None:
        return target
    with torch.no_grad():
        output = model(images[:1])
    return int(output.argmax()) if isinstance(output, Tensor) else 0


def _cascade(
    config: CheckConfig,
    loaded: LoadedModel,
    preprocessing: Preprocessing,
    images: Tensor,
    console: Console,
) -> None:
    target = _target(loaded.model, images, config.target)

    def draw(model: nn.Module) -> Tensor:
        # destroyed weights meet the fallback; that is expected
        with warnings.catch_warnings(action="ignore", category=AttributionWarning):
            maps: Any = ExcitationBackprop(model).attribute_many(images, [target])
            return maps

    steps = list(randomize_from_the_top(loaded.model, images, draw, seed=config.seed))
    console.print(cascade_table(steps))
    if config.out is not None:
        pictures = [preprocessing.picture(image) for image in images]
        replace_file(config.out, figure_bytes(draw_cascade(pictures, steps), "png"))
        console.print(f"Wrote {config.out}", highlight=False, markup=False)
