"""What became of many classes, where each is saved, and the index of them.

`index.json` beside many saved XNNs says which classes there are, how good, and what failed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.positives import as_targets
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError, ModelError, XNNError
from torchxnn.storage.artifact import Format, structure
from torchxnn.storage.paths import Place, as_place, file_sizes, write_bytes
from torchxnn.storage.saved_folder import MARKER, read_about, read_saved
from torchxnn.training.report import FitReport, rebuild_embedding

INDEX = "index.json"
INDEXED = ("r2", "f_reg", "f_cls", "f_cls_positives", "active", "n_features")
"""Figures of the held-out images that the index holds of each class."""

FORMAT = Format("torchxnn.many", 1, "an index of saved XNNs")


@dataclass(frozen=True)
class FittedClass:
    """What became of one of many fits.

    Attributes:
        targets: explained classes.
        report: how the fit went; None if it failed.
        error: why it failed; None if it did not.
        location: where its XNN is saved; None if it is not.
        resumed: whether it was there already.
    """

    targets: tuple[int, ...]
    report: FitReport | None = None
    error: str | None = None
    location: str | None = None
    resumed: bool = False


@dataclass(frozen=True, eq=False)
class ManyFits:
    """All classes, in the order in which they were asked for.

    Attributes:
        classes: what became of each.
        embeddings: by targets, if they were not saved.
    """

    classes: tuple[FittedClass, ...]
    embeddings: Mapping[tuple[int, ...], Embedding]

    @property
    def failed(self) -> tuple[FittedClass, ...]:
        """Those without an XNN."""
        return tuple(fitted for fitted in self.classes if fitted.error is not None)

    @property
    def degenerate(self) -> tuple[FittedClass, ...]:
        """Those whose XNN explains little."""
        return tuple(each for each in self.classes if each.report and each.report.degenerate)

    def embedding(self, target: SupportsIndex | Sequence[SupportsIndex]) -> Embedding:
        """The embedding of a class, from memory or from where it was saved.

        Raises:
            DataError: the class was not asked for.
            XNNError: its fit failed; the message says why.
        """
        wanted = as_targets(target)
        found = next((each for each in self.classes if each.targets == wanted), None)
        if found is None:
            raise DataError(f"no fit of target(s) {list(wanted)} was asked for")
        if found.error is not None:
            raise XNNError(found.error)
        if found.location is None:
            return self.embeddings[wanted]
        return rebuild_embedding(*read_saved(found.location))


def class_folder(targets: Sequence[int], class_names: Sequence[str] | None) -> str:
    """Name of a class's folder: its index, and its name as far as every file system takes it."""
    words = [] if class_names is None else [class_names[t] for t in targets if t < len(class_names)]
    plain = unicodedata.normalize("NFKD", " ".join(words)).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:60]
    return "-".join([*(f"{target:04d}" for target in targets), *([slug] if slug else [])])


def check_places(places: Sequence[Place], out: Place, key: str) -> None:
    """Refuse before any work what would mix XNNs of different data or settings.

    `places` are the classes' folders in `out`; `key` is that of data and settings, as it is saved
    with each XNN.

    Raises:
        FileExistsError: a folder holds something else.
        ModelError: a folder holds an XNN of other data or settings.
    """
    there = file_sizes(out)
    for place in places:
        if place.name not in there:
            continue
        inside = file_sizes(place)
        if inside and MARKER not in inside:
            raise FileExistsError(f"{place} exists and is no saved XNN; choose another --out")
        if MARKER in inside and read_about(place).get("fit_key") != key:
            raise ModelError(
                f"{place} was fitted to other data or with other settings; choose another --out, "
                "or remove it"
            )


def finished_report(place: Place | None) -> FitReport | None:
    """The report of a class that an earlier run has finished; its weights are checked."""
    if place is None or MARKER not in file_sizes(place):
        return None
    return structure(read_saved(place)[0]["report"], FitReport, f"the report in {place}")


def write_class_index(fits: ManyFits, cache: ActivationCache, layer: str, out: Place) -> None:
    """Write the index of fits to a cache into their folder or URL; whole or not at all."""
    about = {
        "model_fingerprint": cache.model_fingerprint,
        "layer": layer,
        "classes": [_entry(fitted, cache.class_names) for fitted in fits.classes],
    }
    write_bytes(out / INDEX, [FORMAT.encode(about)])


def _entry(fitted: FittedClass, names: tuple[str, ...] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "targets": list(fitted.targets),
        "names": None if names is None else [names[target] for target in fitted.targets],
        "folder": fitted.location and as_place(fitted.location).name,
        "error": fitted.error,
    }
    report = fitted.report
    if report is not None:
        held_out = report.validation
        entry |= {
            "degenerate": list(report.degenerate),
            **{name: getattr(held_out, name) for name in INDEXED},
            "loss": report.validation_losses.total,
            "images": report.train.images + held_out.images,
        }
    return entry
