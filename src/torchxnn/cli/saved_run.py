"""What commands about a saved XNN share: the XNN itself, and a data set for its model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from torchxnn.data.datasets.open import DataConfig, open_dataset
from torchxnn.models.load import count_outputs


@dataclass(frozen=True)
class SavedRun:
    """A saved XNN and the model that it explains."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """folder written by `xnn fit`"""
    weights: Path | None = field(default=None, kw_only=True)
    """state dict of the model, if it has moved since"""
    model: str | None = field(default=None, kw_only=True)
    """the model, if it has another name now"""

    def load(self) -> Any:
        """The XNN, attached to its model; the model's fingerprint is checked."""
        from torchxnn.apps.saved_xnn import open_run

        return open_run(self.run, self.model, self.weights)


def open_for(xnn: Any, data: str | Path, source: DataConfig, progress: Any) -> Any:
    """A folder as a data set for the model of an XNN; its test part by default."""
    preprocessing = source.preprocessing(xnn.preprocessing)
    outputs = count_outputs(xnn.model, preprocessing)
    opened = open_dataset(data, preprocessing, source, outputs, xnn.class_names, "test", progress)
    return opened.dataset


def describe_source(
    model: str, weights: Path | None, random_weights: bool, description: str, data: str
) -> dict[str, Any]:
    """Where a model and its data come from, as `XNN.source` has it, to be found again."""
    return {
        "model": model,
        "weights": weights and str(weights.resolve()),
        "description": description,
        "data": data,
        "random_weights": random_weights,
    }
