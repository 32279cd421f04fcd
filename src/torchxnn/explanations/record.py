"""`explanation.json`: the plain values of an explanation, of whatever input."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torchxnn.attribution.base import Certificate
from torchxnn.errors import DataError
from torchxnn.explanations.base import Reasons
from torchxnn.metrics.faithfulness import Faithfulness

MARKER, FORMAT_VERSION = "explanation.json", 1
_ARRAYS = ("features", "contributions", "intercept", "logits", "reproduced")
_TUPLES = ("targets", "target_names", "feature_names", "degenerate")
_SCALARS = ("predicted_class", "predicted_name", "label", "path")


def write_record(folder: Path, kind: str, reasons: Reasons, more: dict[str, Any]) -> None:
    """Write `explanation.json` into a folder.

    Args:
        folder: that exists.
        kind: such as "torchxnn.explanation"; the reader asks for the same.
        reasons: the explanation.
        more: plain values beside what every explanation holds.
    """
    known = reasons.faithfulness
    record = {
        "format": kind,
        "version": FORMAT_VERSION,
        "sentence": reasons.sentence(),
        "order": {str(t): reasons.order(k) for k, t in enumerate(reasons.targets)},
        **{name: getattr(reasons, name) for name in (*_TUPLES, *_SCALARS)},
        **{name: getattr(reasons, name).tolist() for name in _ARRAYS},
        "certificate": asdict(reasons.certificate),
        "faithfulness": None if known is None else asdict(known),
        **more,
    }
    text = json.dumps(_jsonable(record), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / MARKER).write_text(text + "\n", encoding="utf-8", errors="replace")


def read_record(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `write_record` wrote: the whole record, and the arguments that `Reasons` takes.

    Raises:
        DataError: the folder holds no explanation, or one of another kind or a newer version.
    """
    try:
        record = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} holds no readable {MARKER}: {error}") from error
    if record.get("format") != kind or record.get("version") != FORMAT_VERSION:
        raise DataError(
            f"{folder / MARKER} is {record.get('format')!r} version {record.get('version')!r}; "
            f"this reads {kind!r} version {FORMAT_VERSION}"
        )
    values: dict[str, Any] = {name: tuple(record[name]) for name in _TUPLES}
    values |= {name: record[name] for name in _SCALARS}
    values |= {name: torch.tensor(record[name], dtype=torch.float32) for name in _ARRAYS}
    values["certificate"] = Certificate(**record["certificate"])
    faithfulness = record["faithfulness"]
    values["faithfulness"] = faithfulness and Faithfulness.from_json(faithfulness)
    return record, values


def _jsonable(value: Any) -> Any:
    """JSON knows no NaN and no lone surrogates (which undecodable file names hold)."""
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
