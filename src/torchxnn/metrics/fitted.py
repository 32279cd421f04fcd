"""What a function about an XNN, such as `evaluate` or `explain_image`, asks of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.output import XNNOutput
from torchxnn.models.attached import AttachedLayer
from torchxnn.models.preprocessing import Preprocessing


@runtime_checkable
class FittedXNN(Protocol):
    """An XNN as the rooms below it see it; `torchxnn.xnn.XNN` says what each member means."""

    targets: tuple[int, ...]
    preprocessing: Preprocessing | None
    report: Any

    @property
    def attached(self) -> AttachedLayer:
        """The model and the layer."""

    def fitted(self) -> Embedding:
        """The embedding."""

    def run(self, images: Tensor) -> XNNOutput:
        """One forward pass."""

    @property
    def attribute(self) -> Callable[..., Any]:
        """Heatmaps of images."""

    def target_name(self, target: int) -> str:
        """Name of what an output speaks for."""

    def class_name(self, index: int) -> str:
        """Name of a class."""


@runtime_checkable
class NamedXNN(FittedXNN, Protocol):
    """The same with names of its x-features, which an XNN without a fit refuses to tell."""

    names: Any
