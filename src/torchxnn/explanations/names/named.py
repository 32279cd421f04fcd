"""What an XNN knows about the names of its x-features: giving, keeping and carrying them over."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.data.activations import Activations
from torchxnn.data.positives import find_positives
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError, XNNWarning
from torchxnn.explanations.names.adopt import THRESHOLD, Adoption, carry_over
from torchxnn.explanations.names.judgements import ANONYMOUS, FeatureNames, Flag


class Named(ABC):
    """The part of an XNN that concerns names; see `FeatureNames` for how a name is settled."""

    layer: str
    targets: tuple[int, ...]
    embedding: Embedding | None
    _names: FeatureNames | None = None

    @abstractmethod
    def encode(self, z: Float[Tensor, "samples ..."]) -> Float[Tensor, "samples features"]:
        """X-features of recorded activations."""

    @abstractmethod
    def _fitted(self) -> Embedding: ...

    @abstractmethod
    def _record(self, loader: Iterable[Any]) -> Activations: ...

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The agreed name of every x-feature, or "x-feature 3" (counted from 1); see `names`."""
        return self.names.shown()

    @property
    def names(self) -> FeatureNames:
        """What people said about the x-features, and the names that they agree on."""
        n_features = self._fitted().n_features
        return FeatureNames(n_features) if self._names is None else self._names

    @names.setter
    def names(self, names: FeatureNames) -> None:
        n_features = self._fitted().n_features
        if names.n_features != n_features:
            raise DataError(
                f"names of {names.n_features} x-features do not fit an XNN with {n_features}"
            )
        self._names = names

    def name_feature(
        self, index: int, name: str, *, who: str = ANONYMOUS, note: str = "", flag: Flag = ""
    ) -> None:
        """Note what a person calls an x-feature; every judgement is kept (see `FeatureNames`).

        Args:
            index: 0-based.
            name: one line; empty where the person cannot name it.
            who: the person.
            note: anything else.
            flag: "mixed" (several things at once) or "unclear".

        Raises:
            DataError: no such x-feature, or a text that cannot be used.

        Example:
            >>> xnn.name_feature(0, "golden feather", who="Ada")
            >>> xnn.feature_names[0]
            'golden feather'
        """
        self.names = self.names.judge(index, name, who=who, note=note, flag=flag)

    def adopt_names(
        self, old: Named, data: Activations | Iterable[Any], threshold: float = THRESHOLD
    ) -> Adoption:
        """Take over the names of an earlier fit where the same x-feature was found again.

        x-features are matched by the correlation of their values on the positives; a match below
        the threshold keeps nothing, and the result says so. A refit of the same XNN does this by
        itself.

        Args:
            old: the named XNN, of the same targets.
            data: a loader of images with positives, or recorded activations if both XNNs are
                attached to the same layer.
            threshold: correlation from which a matched x-feature counts as the same.

        Raises:
            DataError: other targets, activations of another layer, or fewer than 10 positives.
        """
        if old.targets != self.targets:
            raise DataError(f"these XNNs explain classes {old.targets} and {self.targets}")
        if isinstance(data, Activations) and old.layer != self.layer:
            raise DataError(
                f"recorded activations belong to one layer, and these XNNs are attached to "
                f"{old.layer!r} and {self.layer!r}; give a loader"
            )
        before, after = [], []
        for part in [data] if isinstance(data, Activations) else data:
            recorded = isinstance(part, Activations)
            mine = part if recorded else self._record([part])
            theirs = part if recorded else old._record([part])
            positives = find_positives(mine, self.targets)[0].any(1)
            before.append(old.encode(theirs.z)[positives])
            after.append(self.encode(mine.z)[positives])
        if not before:
            raise DataError("no images to match x-features on")
        names, adoption = carry_over(old.names, torch.cat(before), torch.cat(after), threshold)
        self.names = self.names.union(names)
        return adoption

    def _before_refit(
        self, data: Activations, targets: Sequence[int]
    ) -> tuple[FeatureNames, Tensor | None] | None:
        """The names, and the x-features of the positives; None of them for another target."""
        if self.embedding is None or self._names is None or not self._names.judgements:
            return None
        if tuple(targets) != self.targets:
            return self._names, None
        return self._names, self.encode(data.z)

    def _after_refit(
        self, earlier: tuple[FeatureNames, Tensor | None] | None, data: Activations
    ) -> None:
        """Carry names over to the new fit, and warn of those that it has nothing for."""
        self._names = None
        if earlier is None:
            return
        names, before = earlier
        lost = tuple(name for i in range(names.n_features) if (name := names.agreed(i)))
        if before is not None:
            positives = find_positives(data, self.targets)[0].any(1)
            try:
                self._names, adoption = carry_over(
                    names, before[positives], self.encode(data.z)[positives]
                )
                lost = tuple(match.name for match in adoption.lost)
            except DataError:  # too few positives to compare: nothing is carried over
                pass
        if lost:
            warnings.warn(
                f"the new fit has no x-feature like {', '.join(map(repr, lost))}; "
                "the name(s) are gone from this XNN",
                XNNWarning,
                stacklevel=4,
            )
