"""Where a report comes from, in lines to read: data, model, fit, programs, settings."""

from __future__ import annotations

import platform
from dataclasses import asdict, fields
from typing import Any

import torch

from torchxnn.apps.report.content import Report
from torchxnn.storage.artifact import __version__
from torchxnn.training.report import FitReport

_FOUND_BY = {"label": "their label", "prediction": "the network's prediction"}
_LIMITS = {"epochs": "most epochs", "trials": "most trials"}
"""Settings that only bound what the fit did, which has a line of its own."""

_OF_VECTORS = ("hidden", "subspace")  # not used where the layer gives maps


def provenance(report: Report) -> list[tuple[str, str]]:
    """What was run on what, and how it went: (term, text)."""
    fit = report.fit
    limit = fit.config.epochs
    ran = f"{fit.trials} of at most {fit.config.trials} trials"
    return [
        *((f"{term[:1].upper()}{term[1:]}", text) for term, text in report.provenance),
        ("Positives", f"found by {_FOUND_BY.get(fit.positives_by, fit.positives_by)}"),
        ("Fit", f"{fit.epochs} of at most {limit} epochs in the best trial; {ran}; {_time(fit)}"),
        ("Held-out loss", _losses(fit)),
        ("Programs", _programs(report)),
    ]


def settings(report: Report) -> list[tuple[str, str]]:
    """The settings of the fit that took part in it: (term, text)."""
    config, on_maps = report.fit.config, report.on_maps
    own = [field.name for field in fields(config) if field.name != "conv"]
    rows = {name: getattr(config, name) for name in own if not (on_maps and name in _OF_VECTORS)}
    if on_maps:
        rows |= asdict(config.conv)
    return [(_LIMITS.get(name, name.replace("_", " ")), _text(rows[name])) for name in rows]


def _time(fit: FitReport) -> str:
    return f"{fit.seconds:.0f} s" if fit.seconds >= 1 else "less than 1 s"


def _losses(fit: FitReport) -> str:
    """The total and its terms; those that are left out of the loss are 0."""
    losses, kind = asdict(fit.validation_losses), fit.config.reconstruction
    total = losses.pop("total")
    names = {"sparse_reconstruction": f"reconstruction ({kind})", "pull_away": "pull-away"}
    terms = [f"{names.get(name, name)} {value:.4g}" for name, value in losses.items() if value]
    return f"{total:.4g} in all, of weighted terms: {', '.join(terms) or 'none'}"


def _programs(report: Report) -> str:
    versions = {"torchxnn": __version__, "torch": torch.__version__}
    for explanation in report.explanations[:1]:
        versions |= explanation.certificate.versions
    versions["Python"] = platform.python_version()
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"{named}; {platform.system()} {platform.machine()}"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return {"None": "none", "True": "yes", "False": "no"}.get(str(value), str(value))
