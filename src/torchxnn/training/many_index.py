"""`index.json` beside many saved XNNs: which classes there are, how good, and what failed."""

from __future__ import annotations

from typing import Any

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.storage.artifact import Format
from torchxnn.storage.paths import Location, child, write_bytes
from torchxnn.training.many import FittedClass, ManyFits

INDEX = "index.json"
FORMAT = Format("torchxnn.many", 1, "an index of saved XNNs")


def write_index(fits: ManyFits, cache: ActivationCache, layer: str, out: Location) -> None:
    """Write the index; it appears whole or not at all.

    Args:
        fits: all classes of a run.
        cache: what they were fitted to.
        layer: that they explain.
        out: folder or URL of the run.
    """
    about = {
        "model_fingerprint": cache.model_fingerprint,
        "layer": layer,
        "classes": [_entry(fitted, cache.class_names) for fitted in fits.classes],
    }
    write_bytes(child(out, INDEX), [FORMAT.encode(about)])


def _entry(fitted: FittedClass, names: tuple[str, ...] | None) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "targets": list(fitted.targets),
        "names": None if names is None else [names[target] for target in fitted.targets],
        "folder": fitted.location and fitted.location.replace("\\", "/").rpartition("/")[2],
        "error": fitted.error,
    }
    report = fitted.report
    if report is not None:
        held_out = report.validation
        entry |= {
            "degenerate": list(report.degenerate),
            "r2": held_out.r2,
            "f_reg": held_out.f_reg,
            "f_cls": held_out.f_cls,
            "f_cls_positives": held_out.f_cls_positives,
            "active": held_out.active,
            "n_features": held_out.n_features,
            "loss": report.validation_losses.total,
            "images": report.train.images + held_out.images,
        }
    return entry
