"""`index.json` beside many saved XNNs: which classes there are, how good, and what failed."""

from __future__ import annotations

from typing import Any

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.storage.artifact import __version__
from torchxnn.storage.paths import Location, child, write_bytes
from torchxnn.storage.saved_folder import to_json
from torchxnn.training.many import FittedClass, ManyFits

INDEX = "index.json"
FORMAT, FORMAT_VERSION = "torchxnn.many", 1


def write_index(fits: ManyFits, cache: ActivationCache, layer: str, out: Location) -> None:
    """Write the index; it appears whole or not at all.

    Args:
        fits: all classes of a run.
        cache: what they were fitted to.
        layer: that they explain.
        out: folder or URL of the run.
    """
    about = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {"torchxnn": __version__},
        "model_fingerprint": cache.model_fingerprint,
        "layer": layer,
        "classes": [_entry(fitted, cache.class_names) for fitted in fits.classes],
    }
    write_bytes(child(out, INDEX), [to_json(about).encode()])


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
