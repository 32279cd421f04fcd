"""`xnn check`: conservation layer by layer, and the randomization cascade, for one model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from torchxnn.apps.check.config import CheckConfig
from torchxnn.apps.gallery import evenly_spaced
from torchxnn.apps.saved_xnn import open_run
from torchxnn.attribution.base import LayerCertificate
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.sanity import RandomizedStep, randomize_from_the_top
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.images import read_input
from torchxnn.errors import AttributionWarning, ModelError, XNNError, XNNWarning
from torchxnn.explanations.drawing.canvas import figure_bytes
from torchxnn.explanations.drawing.overlay import heatmap_over
from torchxnn.explanations.volume import in_slices
from torchxnn.models.channels import check_dimensions
from torchxnn.models.examination import Examination, examine_model
from torchxnn.models.layers import run_model
from torchxnn.models.load import LoadedModel, load_model
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.files import replace_file
from torchxnn.storage.saved_folder import MARKER

COLUMNS = 8
NEEDED = 0.5
"""Rank correlation with the trained model's maps from where on destroyed weights are called hardly
missed. Our convention, half way between other maps and the same ones: the figure stands beside."""


@dataclass(frozen=True, eq=False)
class InputCheck:
    """Conservation on one batch of input.

    Attributes:
        name: of the input, for people.
        target: output that was explained.
        layers: from the top down.
    """

    name: str
    target: int
    layers: tuple[LayerCertificate, ...]


@dataclass(frozen=True, eq=False)
class Cascade:
    """How the maps change as weights are destroyed from the top.

    Attributes:
        steps: the first is the trained model.
        file: the PNG that shows the maps; None if none was asked for.
    """

    steps: tuple[RandomizedStep, ...]
    file: Path | None

    @property
    def verdict(self) -> str:
        """Whether the maps depend on the weights, in a sentence."""
        last = self.steps[-1].correlation
        said = "depend on the weights" if abs(last) < NEEDED else "hardly depend on the weights"
        return (
            f"The maps {said}: with all of them destroyed, the rank correlation with the trained "
            f"model's maps is {last:+.2f} (1 if nothing changed)."
        )


def run_check(
    config: CheckConfig, on_note: Callable[[str], None]
) -> Iterator[Examination | InputCheck | Cascade]:
    """Examine a model, certify it on random and on real input, and destroy its weights if asked.

    Args:
        config: what to check.
        on_note: called with what is to be known about the model's weights.

    Raises:
        UnsupportedOperationError: relevance reached an operation without a rule.
        DataError: an image cannot be read.
    """
    if config.out is not None and not config.randomize:
        raise XNNError("--out draws the maps of --randomize; give both or neither")
    loaded = _load(config, on_note)
    preprocessing = DataConfig(size=config.size).preprocessing(loaded.preprocessing)
    noise = torch.Generator().manual_seed(config.seed)
    check_dimensions(loaded.model, preprocessing)
    inputs = {"random input": torch.randn(3, *preprocessing.shape, generator=noise)}
    if config.images:
        real = [read_input(path, preprocessing) for path in config.images]
        inputs[f"{len(real)} real image(s)"] = torch.stack(real)
    yield examine_model(loaded.model, list(inputs.values())[-1])
    for name, batch in inputs.items():
        target = _target(loaded.model, batch, config.target)
        layers = ExcitationBackprop(loaded.model).certify_layers(batch, [target])
        yield InputCheck(name, target, layers)
    if config.randomize:
        yield _cascade(config, loaded, preprocessing, batch)


def draw_cascade(pictures: Sequence[np.ndarray], steps: Sequence[RandomizedStep]) -> Figure:
    """The first target's map of each image (rows) at up to eight steps (columns)."""
    shown = evenly_spaced(steps, COLUMNS)
    figure = Figure(figsize=(1.7 * len(shown) + 0.2, 1.8 * len(pictures) + 0.6), dpi=110)
    axes = figure.subplots(len(pictures), len(shown), squeeze=False)
    for row, picture in enumerate(pictures):
        for column, step in enumerate(shown):
            axis = axes[row, column]
            axis.imshow(_drawn(picture, step.maps[row, 0]))
            axis.set_axis_off()
            if row == 0:
                name = step.layer or "trained"
                axis.set_title(f"{name}\n{step.correlation:+.2f}", fontsize=8)
    figure.tight_layout(pad=0.6)
    return figure


def _drawn(picture: np.ndarray, heatmap: Tensor) -> np.ndarray:
    """A map over its image; of a volume over the slices with most of it, side by side."""
    if heatmap.ndim == 2:
        return heatmap_over(picture, heatmap.cpu().numpy())
    row = in_slices(picture, heatmap)
    return heatmap_over(row.image, row.relevance)


def _load(config: CheckConfig, on_note: Callable[[str], None]) -> LoadedModel:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", XNNWarning)
        if (Path(config.model) / MARKER).is_file():
            xnn = open_run(Path(config.model), weights=config.weights)  # and no other model's
            loaded = LoadedModel(xnn.model, cast(Preprocessing, xnn.preprocessing), None, "")
        else:
            loaded = _load_network(config)
    for warning in caught:
        on_note(str(warning.message))
    return loaded


def _load_network(config: CheckConfig) -> LoadedModel:
    try:
        return load_model(config.model, config.weights, allow_random=True)
    except ModelError as error:
        if ":" in config.model:
            raise
        raise ModelError(f"no saved XNN is there (no {MARKER}), and {error}") from error


def _target(model: nn.Module, images: Tensor, target: int | None) -> int:
    if target is not None:
        return target
    return int(run_model(model, images[:1]).argmax())


def _cascade(
    config: CheckConfig, loaded: LoadedModel, preprocessing: Preprocessing, images: Tensor
) -> Cascade:
    target = _target(loaded.model, images, config.target)

    def draw(model: nn.Module) -> Tensor:
        # destroyed weights meet the fallback; that is expected
        with warnings.catch_warnings(action="ignore", category=AttributionWarning):
            maps: Any = ExcitationBackprop(model).attribute_many(images, [target])
            return maps

    steps = tuple(randomize_from_the_top(loaded.model, images, draw, seed=config.seed))
    if config.out is not None:
        pictures = [preprocessing.picture(image) for image in images]
        replace_file(config.out, figure_bytes(draw_cascade(pictures, steps), "png"))
    return Cascade(steps, config.out)
