"""Explanations of inputs that are lists: the tokens of a text, the columns of a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar, final

import numpy as np
from jaxtyping import Float
from torch import Tensor

from torchxnn.explanations.base import Reasons
from torchxnn.explanations.card import Card, Columns, Tokens
from torchxnn.explanations.drawing.overlay import Scale, number
from torchxnn.storage.artifact import Format

Listed = TypeVar("Listed", bound="ListExplanation")
_READ = (
    "Red (+) makes the x-feature stronger, blue (\N{MINUS SIGN}) weaker; {}, and every number is "
    "in units of the x-feature (of the logit: in logits)."
)
_CAPTION: dict[Scale, str] = {
    "each": _READ.format("each x-feature has its own colour scale"),
    "shared": _READ.format("the x-features share one colour scale"),
}


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ListExplanation(Reasons, ABC):
    """Why the network gives one text or one row its logits.

    What is not listed here is explained at `Reasons`.

    Attributes:
        entries: Tokens, or names of columns.
        attributions: (n, entries), what each entry adds to each x-feature E_i, signed.
        logit_attributions: (k, entries), the same for each original logit.

    Raises:
        DataError: Shapes that do not belong together.
        NonFiniteError: NaN or infinity in any of the numbers.
    """

    drawn: ClassVar[str] = "Attributions"
    origin: ClassVar[str] = "Source"
    entry: ClassVar[str]
    tensors: ClassVar[tuple[str, ...]] = ("attributions", "logit_attributions")
    entries: tuple[str, ...]
    attributions: Float[Tensor, "features entries"]
    logit_attributions: Float[Tensor, "targets entries"]

    @abstractmethod
    def _shown(self, values: np.ndarray, bounds: tuple[float, float]) -> Tokens | Columns:
        """What is drawn of attributions (entries,)."""

    @final
    def _shapes(self) -> tuple[dict[str, tuple[int, ...]], str]:
        count = len(self.entries)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(self.tensors, (count,))
        shapes["attributions"] = (len(self.features), count)
        shapes["logit_attributions"] = (len(self.targets), count)
        return shapes, f"{count} {self.entry}(s)"

    @final
    def relevance(self) -> tuple[Tensor, Tensor]:
        """The attributions of the x-features and of the logits."""
        return self.attributions, self.logit_attributions

    @final
    def evidence(self, relevance: Tensor, scale: Scale = "each") -> Sequence[Tokens | Columns]:
        """Attributions (rows, entries) as colours or bars."""
        rows = list(relevance.numpy())
        bounds = [tuple(max(0.0, float((s * row).max(initial=0))) for s in (-1, 1)) for row in rows]
        if scale == "shared":
            bounds = [tuple(max(ends) for ends in zip(*bounds, strict=True))] * len(bounds)
        return [
            self._shown(row, (low, high)) for row, (low, high) in zip(rows, bounds, strict=True)
        ]

    @final
    def map_correlation(self) -> None:
        """Unknown: a few entries agree by chance, so lists are compared by variation alone."""

    @final
    def caption(self, scale: Scale = "each") -> str:
        """How to read colours and numbers."""
        return _CAPTION[scale]

    @final
    def _write_evidence(self, folder: Path, card: Card) -> dict[str, Any]:
        own: dict[str, Any] = {name: getattr(self, name) for name in self.tensors}
        # "parts" is what files of version 1 call the entries
        return {**self._record(), **own, "parts": self.entries}

    @final
    @classmethod
    def _read(cls: type[Listed], folder: Path, record: dict[str, Any]) -> Listed:
        return cls._of_record(folder, record, entries=record["parts"])


@final
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TextExplanation(ListExplanation):
    """Why a network of token ids gives one text its logits; `entries` are the tokens."""

    format = Format("torchxnn.text_explanation", 1, "a saved explanation of a text")
    unit = "text"
    entry = "token"

    def _shown(self, values: np.ndarray, bounds: tuple[float, float]) -> Tokens:
        return Tokens(self.entries, values, bounds)


@final
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TableExplanation(ListExplanation):
    """Why a network of feature vectors gives one row its logits; `entries` are the columns.

    Attributes:
        values: (D,), of the row, in the units that people know.
    """

    format = Format("torchxnn.table_explanation", 1, "a saved explanation of a row")
    unit = "row"
    entry = "column"
    tensors = (*ListExplanation.tensors, "values")
    values: Float[Tensor, " columns"]

    def _shown(self, values: np.ndarray, bounds: tuple[float, float]) -> Columns:
        shown = tuple(number(float(value)) for value in self.values)
        return Columns(self.entries, values, bounds, shown)
