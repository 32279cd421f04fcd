"""The part of an XNN that explains texts and rows of tables; `XNN.explain` is for images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.attribution.base import Certificate
from torchxnn.attribution.tokens_and_rows import (
    DEFAULT,
    attribute_rows,
    attribute_tokens,
    find_token_embedding,
)
from torchxnn.errors import DataError
from torchxnn.explanations.text_table import TableExplanation, TextExplanation
from torchxnn.models.inputs import kind_of


class ExplainsParts(ABC):
    """What `XNN` offers for networks of token ids (B, T) and of rows (B, D)."""

    targets: tuple[int, ...]

    @property
    @abstractmethod
    def model(self) -> nn.Module:
        """The explained model."""

    @abstractmethod
    def _numbers(self, batch: Tensor, label: int | None, path: str | None) -> dict[str, Any]:
        """What every explanation holds, for a batch of one."""

    def explain_text(
        self,
        ids: Tensor,
        tokens: Sequence[str],
        *,
        label: int | None = None,
        path: str | None = None,
        method: str = DEFAULT,
        baseline: int | None = None,
        token_layer: str | nn.Module | None = None,
    ) -> TextExplanation:
        """Explain one text: contributions, and what each token adds to each x-feature.

        Args:
            ids: (T,), int64 or int32, as the model takes them in a batch (B, T).
            tokens: T strings for people.
            label: true class, if known.
            path: where the text came from.
            method: attribution method; integrated gradients certify that they add up. Excitation
                backprop has rules for attention and refuses recurrent layers.
            baseline: id of the token to compare with, such as the padding; None is a zero vector.
            token_layer: the layer that embeds the ids, if there is doubt.

        Raises:
            DataError: ids that are not integers (T,), or another number of tokens.
            LayerError: it is not clear which layer embeds the tokens.

        Example:
            >>> xnn.explain_text(ids, ["a", "normal", "distribution"]).to_html("why.html")
        """
        if ids.ndim != 1 or kind_of(ids.unsqueeze(0)) != "text":
            raise DataError(
                f"explain_text takes the integer ids (T,) of one text, got {ids.dtype} of shape "
                f"{tuple(ids.shape)}"
            )
        batch = ids.unsqueeze(0)
        numbers = self._numbers(batch, label, path)
        options = {"method": method, "baseline": baseline, "token_layer": token_layer}
        return TextExplanation(
            parts=tuple(tokens), **self._attributed(batch, numbers, options), **numbers
        )

    def explain_row(
        self,
        row: Tensor,
        names: Sequence[str],
        *,
        values: Iterable[float] | None = None,
        label: int | None = None,
        path: str | None = None,
        method: str = DEFAULT,
        baseline: float | Float[Tensor, " dims"] | None = None,
    ) -> TableExplanation:
        """Explain one row of a table: contributions, and what each column adds to each x-feature.

        Args:
            row: (D,), floating point, in the scale of the model's input.
            names: of the D columns.
            values: the row's values as people know them, in their own units; None shows `row`.
            label: true class, if known.
            path: where the row came from.
            method: attribution method.
            baseline: what the row is compared with; None is zero, the mean of standardised columns.

        Raises:
            DataError: not one row of floating point numbers, or another number of names.

        Example:
            >>> xnn.explain_row(row, data.feature_names).plot()
        """
        if row.ndim != 1 or not row.is_floating_point():
            raise DataError(
                f"explain_row takes one floating point row (D,), got {row.dtype} of shape "
                f"{tuple(row.shape)}"
            )
        batch = row.unsqueeze(0)
        numbers = self._numbers(batch, label, path)
        return TableExplanation(
            parts=tuple(str(name) for name in names),
            values=row.float() if values is None else torch.tensor([float(v) for v in values]),
            **self._attributed(batch, numbers, {"method": method, "baseline": baseline}),
            **numbers,
        )

    def _attributed(
        self, batch: Tensor, numbers: dict[str, Any], options: dict[str, Any]
    ) -> dict[str, Any]:
        features = range(len(numbers["features"]))
        own, certificate = self._attribute_parts(self, batch, features, **options)
        logits, _ = self._attribute_parts(self.model, batch, self.targets, **options)
        return {
            "attributions": own[0],
            "logit_attributions": logits[0],
            "certificate": certificate,
        }

    def _attribute_parts(
        self,
        network: Any,
        batch: Tensor,
        targets: Sequence[int],
        method: str = DEFAULT,
        baseline: Any = None,
        token_layer: str | nn.Module | None = None,
    ) -> tuple[Float[Tensor, "batch targets parts"], Certificate]:
        if kind_of(batch) == "row":
            return attribute_rows(network, batch, list(targets), method, baseline)
        embedding = find_token_embedding(self.model, batch, token_layer)
        return attribute_tokens(network, embedding, batch, list(targets), method, baseline)
