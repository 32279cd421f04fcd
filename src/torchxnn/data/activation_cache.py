"""Read an activation cache: memory bounded by what is asked for, not by the size of the cache."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from torchxnn.data.activations import Activations
from torchxnn.data.labels import UNKNOWN, settle
from torchxnn.errors import DataError, LayerError, ModelError
from torchxnn.models.config import OutputScale, OutputsConfig
from torchxnn.models.examination import Examination
from torchxnn.models.hidden_state import note_changing
from torchxnn.models.label_agreement import label_agreement
from torchxnn.models.layers import resolve_layer, unwrap
from torchxnn.models.meaning import Meaning, boundary_of
from torchxnn.models.outputs import check_targets, predicted_classes
from torchxnn.models.plain_settings import differing_setting
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.weights import fingerprint
from torchxnn.storage.artifact import structure
from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.storage.paths import Location

KIND = "activations"
LOGITS, PREDICTED, LABELS = "logits", "predicted", "labels"
PICTURE, COPY, HELD_OUT = "picture", "copy", "held_out"


def kind_version(outputs: int) -> int:
    """Version of the caches of a model with so many outputs.

    Version 2 predicts by the sign of a single logit, where version 1 wrote class 0 for every image;
    with several outputs both say the same.
    """
    return 2 if outputs == 1 else 1


def layer_tensor(layer: str) -> str:
    """Name of a layer's output in the chunks."""
    return f"z.{layer}"


@final
class ActivationCache:
    """What a model did on a data set, on disk: layer outputs, logits, predictions and labels.

    Made by `data.record.cache_activations`, opened by `open`. Nothing is held in memory but the
    labels and the predictions once they were asked for. A cache can be pickled, and several
    processes may read it at once.

    Attributes:
        store: the chunks; see `ChunkStore`.
        layers: names of the layers, in the order of recording.
        dtype: precision in which the layers' outputs are kept.
        n_outputs: number of the model's outputs, K.
        class_names: names of the model's outputs, if they are known.
        preprocessing: how the images became tensors, if it is known.
        source: where the model and the data come from, as `XNN.source` has it.
        model_fingerprint: the model's `fingerprint`.
        examination: what was found out about the model; None in caches of earlier versions.

    Example:
        >>> cache = ActivationCache.open("cache")
        >>> z = cache.read("classifier.1", rows=(cache.labels == 47).nonzero().flatten())
        >>> logits = cache.column(47)
    """

    def __init__(self, store: ChunkStore) -> None:
        self.store = store
        about, names = store.about, store.notes.get("class_names")
        self.layers: tuple[str, ...] = tuple(about["layers"])
        self.dtype: torch.dtype = getattr(torch, about["dtype"])
        self.n_outputs: int = about["outputs"]
        self.class_names = None if names is None else tuple(names)
        way, where = about["preprocessing"], str(store.location)
        self.preprocessing: Preprocessing | None = way and structure(way, Preprocessing, where)
        self.source: dict[str, Any] | None = store.notes.get("source")
        self.model_fingerprint: str = about["model"]["fingerprint"]
        seen = store.notes.get("examination")
        self.examination: Examination | None = seen and structure(seen, Examination, where)
        self._columns: dict[str, Tensor] = {}

    @classmethod
    def open(cls, location: Location, *, complete: bool = True) -> ActivationCache:
        """Open a cache; with `complete=False` also one that is still being recorded.

        Raises:
            DataError: there is none, it holds something else, its predictions are wrong (see
                `kind_version`), or it is not complete.
        """
        store = ChunkStore.open_kind(location, KIND, 1, 2)
        if store.about["kind_version"] < kind_version(store.about["outputs"]):
            raise DataError(
                f"{store.location} was recorded by an earlier torchxnn, which noted class 0 as the "
                "prediction for every image of a model with one output; remove it and record it "
                "again"
            )
        if complete:
            store.check_complete()
        return cls(store)

    def __len__(self) -> int:
        """Number of images."""
        return self.store.rows

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_columns": {}}

    @property
    def labels(self) -> Shaped[Tensor, "rows *outputs"] | None:
        """Class index of every image, or None if the data have no labels; others are (M, K)."""
        return self._column(LABELS)

    @property
    def predicted(self) -> Int64[Tensor, " rows"]:
        """The class that the model predicts for every image; see `predicted_classes`."""
        boundary = boundary_of(self._scale)
        if self.n_outputs == 1 and boundary:  # the column is about logits
            return predicted_classes(self.columns([0]), boundary)
        return self._column(PREDICTED)

    @property
    def _scale(self) -> OutputScale:
        return "logits" if self.examination is None else self.examination.outputs

    @property
    def picture(self) -> Int64[Tensor, " rows"] | None:
        """Which picture of the data set each row shows; None if there are no altered copies."""
        return self._column(PICTURE)

    @property
    def copy(self) -> Int64[Tensor, " rows"] | None:
        """0 for a picture itself, then 1 for its first altered copy; None if there are none."""
        return self._column(COPY)

    @property
    def held_out(self) -> Bool[Tensor, " rows"] | None:
        """Rows that are not for fitting; None if the cache leaves the choice to the fit."""
        return self._column(HELD_OUT)

    def dims(self, layer: str) -> tuple[int, ...]:
        """Shape of a layer's output per image: (d,), or (C, h, w) for maps.

        Raises:
            LayerError: the layer is not in the cache.
        """
        if layer not in self.store.about["layers"]:
            raise LayerError(
                f"the cache {self.store.location} has no layer {layer!r}, only "
                f"{', '.join(map(repr, self.layers))}"
            )
        return tuple(self.store.about["layers"][layer])

    def check(
        self,
        model: nn.Module | None = None,
        layer: str | nn.Module | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        """Make sure that the cache belongs to a model, has a layer and fits a preprocessing.

        Raises:
            ModelError: another model, or the same with other weights.
            LayerError: the layer is not in the cache.
            DataError: the images were preprocessed in another way.
        """
        where = f"the cache {self.store.location}"
        if model is not None and self._fingerprint(model) != self.model_fingerprint:
            raise ModelError(
                f"{where} was recorded from another model, or from other weights of a "
                f"{self.store.about['model']['class']}; record it again or give that model"
            )
        known = self.examination.settings if self.examination else {}
        differing = None if model is None else differing_setting(known, model)
        if differing:
            raise ModelError(
                f"{where} was recorded from another model: the weights are the same, but of its "
                f"settings {differing}; record it again or make the model as it was"
            )
        if isinstance(layer, nn.Module):
            if model is None:
                raise LayerError("a layer given as a module can be found only with its model")
            layer = resolve_layer(model, layer)[0]
        if layer is not None:
            self.dims(layer)
        if preprocessing is not None and self.preprocessing not in (None, preprocessing):
            raise DataError(
                f"{where} was recorded with {self.preprocessing}, not with {preprocessing}"
            )

    def note_changing(self, model: nn.Module) -> None:
        """Tell the fingerprint of a model which of its attributes are no weights."""
        if self.examination is not None:
            note_changing(unwrap(model), self.examination.changing)

    def _fingerprint(self, model: nn.Module) -> str:
        """The fingerprint of a model as this cache has it."""
        self.note_changing(model)
        return fingerprint(unwrap(model), hidden=self.examination is not None)

    @cached_property
    def examined(self) -> Examination | None:
        """What was found out about the model, with labels against predictions if there are any.

        Altered copies do not count, and neither do images whose label is not known. None in caches
        of earlier versions.
        """
        labels, copy = self.labels, self.copy
        if self.examination is None or labels is None or labels.is_floating_point():
            return self.examination
        kept = labels != UNKNOWN
        kept = kept if copy is None else kept & (copy == 0)
        if not bool(kept.any()):
            return self.examination
        agreement = label_agreement(self.predicted[kept], labels[kept], self.n_outputs)
        return replace(self.examination, agreement=agreement)

    def column(self, target: int) -> Float[Tensor, " rows"]:
        """One output's logit of every image; the others are not read.

        Raises:
            DataError: there is no such output.
        """
        return self.columns([target])[:, 0]

    def columns(self, targets: Sequence[int]) -> Float[Tensor, "rows targets"]:
        """Some outputs' logits of every image; the others are not read.

        Raises:
            DataError: there is no such output.
        """
        check_targets(targets, self.n_outputs)
        out = torch.empty((len(targets), len(self)))
        for chunk in range(self.store.chunks):
            span = self.store.span(chunk)
            for place, target in enumerate(targets):
                row = self.store.read_part(chunk, LOGITS, target, target + 1)
                out[place, span.start : span.stop] = row[0]
        return out.T

    def logits(self, rows: Tensor | None = None) -> Float[Tensor, "rows outputs"]:
        """The logits of some images, or of all; for `rows` see `read`."""
        out = torch.empty((self._count(rows), self.n_outputs))
        for chunk, inside, places in self._found(rows):
            out[places] = self.store.read(chunk, [LOGITS])[LOGITS][:, inside].T
        return out

    def read(
        self, layer: str, rows: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> Shaped[Tensor, "rows dims *map"]:
        """A layer's output for some images, or for all.

        Chunks are read one after the other, whatever the order of the rows: memory is bounded by
        the result and one chunk.

        Args:
            layer: one of `layers`.
            rows: indices in any order, also repeated, or a mask; None: all.
            dtype: of the result; None: as it is kept.

        Raises:
            LayerError: the layer is not in the cache.
            DataError: there is no such row.
        """
        name = layer_tensor(layer)
        dims = self.dims(layer)
        out = torch.empty((self._count(rows), *dims), dtype=dtype or self.dtype)
        for chunk, inside, places in self._found(rows):
            if isinstance(inside, slice):
                part = self.store.read(chunk, [name])[name]
            else:
                part = self.store.read_rows(chunk, name, inside)
            out[places] = part.to(out.dtype)
        return out

    def activations(
        self, layer: str, rows: Tensor | None = None, dtype: torch.dtype | None = torch.float32
    ) -> Activations:
        """Some images, or all, in memory, as `record_activations` would give them."""
        labels = self.labels
        if labels is not None and rows is not None:
            labels = labels[rows]
        return Activations(self.read(layer, rows, dtype), self.logits(rows), labels)

    def settled_labels(
        self, config: OutputsConfig
    ) -> tuple[Shaped[Tensor, "rows *outputs"] | None, Meaning]:
        """All labels, and what the outputs mean as the user or they say; see `settle`.

        Raises:
            DataError: labels that do not fit the outputs.
        """
        needed = self.labels is None and config.kind == "value"
        own = self.logits() if needed else None
        labels, meaning = settle(self.labels, self.n_outputs, config, own)
        return labels, replace(meaning, scale=self._scale)

    def nbytes(self, layer: str, dtype: torch.dtype | None = None) -> int:
        """Bytes that all rows of a layer take in memory."""
        return len(self) * math.prod(self.dims(layer)) * (dtype or self.dtype).itemsize

    def _column(self, name: str) -> Any:
        if name not in self.store.about["columns"]:
            return None
        if name not in self._columns:
            spans = [self.store.span(chunk) for chunk in range(self.store.chunks)]
            self._columns[name] = torch.cat(
                [self.store.read_part(i, name, 0, len(span)) for i, span in enumerate(spans)]
            )
        return self._columns[name]

    def _count(self, rows: Tensor | None) -> int:
        if rows is None:
            return len(self)
        return int(rows.sum()) if rows.dtype == torch.bool else len(rows)

    def _found(self, rows: Tensor | None) -> Iterator[tuple[int, Any, Any]]:
        """Chunk by chunk: which of its rows are wanted, and their places in the result."""
        if rows is None:
            for chunk in range(self.store.chunks):
                span = self.store.span(chunk)
                yield chunk, slice(None), slice(span.start, span.stop)
            return
        chosen, places = self._index(rows).sort(stable=True)
        numbers = chosen // self.store.chunk_rows
        start = 0
        for chunk, count in zip(*numbers.unique_consecutive(return_counts=True), strict=True):
            part = slice(start, start + int(count))
            yield int(chunk), chosen[part] - int(chunk) * self.store.chunk_rows, places[part]
            start = part.stop

    def _index(self, rows: Tensor) -> Tensor:
        if rows.dtype == torch.bool:
            if rows.shape != (len(self),):
                raise DataError(f"a mask of {tuple(rows.shape)} for {len(self)} rows")
            return rows.nonzero().flatten()
        if rows.ndim != 1 or rows.is_floating_point():
            raise DataError(f"rows must be a vector of indices, got {rows.dtype} {rows.shape}")
        if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= len(self)):
            raise DataError(
                f"the cache has rows 0 to {len(self) - 1}; asked for {int(rows.min())} to "
                f"{int(rows.max())}"
            )
        return rows.cpu().long()
