"""`explanation.json`: the plain values of an explanation, of whatever input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from torchxnn.attribution.base import Certificate
from torchxnn.errors import DataError
from torchxnn.explanations.base import Reasons
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.storage.artifact import Format, structure

MARKER = "explanation.json"
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
    record = {
        "sentence": reasons.sentence(),
        "order": {t: reasons.order(k) for k, t in enumerate(reasons.targets)},
        **{name: getattr(reasons, name) for name in (*_TUPLES, *_SCALARS, *_ARRAYS)},
        "certificate": reasons.certificate,
        "faithfulness": reasons.faithfulness,
        **more,
    }
    (folder / MARKER).write_bytes(_format(kind).encode(record))


def read_record(folder: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read what `write_record` wrote: the whole record, and the arguments that `Reasons` takes.

    Raises:
        DataError: the folder holds no explanation, a damaged one, or one of another kind or a newer
            version.
    """
    file = folder / MARKER
    record = _format(kind).read(file)
    try:
        values: dict[str, Any] = {name: tuple(record[name]) for name in _TUPLES}
        values |= {name: record[name] for name in _SCALARS}
        values |= {name: torch.tensor(record[name], dtype=torch.float32) for name in _ARRAYS}
        certificate, faithfulness = record["certificate"], record["faithfulness"]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file} is damaged: {error!r}") from error
    values["certificate"] = structure(certificate, Certificate, str(file))
    values["faithfulness"] = faithfulness and structure(faithfulness, Faithfulness, str(file))
    return record, values


def _format(kind: str) -> Format:
    return Format(kind, 1, "a saved explanation of this kind")
