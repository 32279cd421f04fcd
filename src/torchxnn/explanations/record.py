"""What `explanation.json` holds of an explanation, of whatever input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from torchxnn.attribution.base import Certificate
from torchxnn.explanations.base import Reasons
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.storage.artifact import structure

_TENSORS = ("features", "contributions", "intercept", "logits", "reproduced")
_TUPLES = ("targets", "target_names", "feature_names", "degenerate")
_SCALARS = ("predicted_class", "predicted_name", "label", "path")


def reasons_record(reasons: Reasons) -> dict[str, Any]:
    """The values of the JSON file that every explanation has."""
    return {
        "sentence": reasons.sentence(),
        "order": {t: reasons.order(k) for k, t in enumerate(reasons.targets)},
        **{name: getattr(reasons, name) for name in (*_TUPLES, *_SCALARS, *_TENSORS)},
        "certificate": reasons.certificate,
        "faithfulness": reasons.faithfulness,
    }


def read_reasons(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The arguments that `Reasons` takes, from such values; `folder` is named in errors.

    Raises:
        DataError: Certificate or faithfulness are damaged.
        KeyError: A value is missing.
        TypeError: A value has another type.
    """
    values: dict[str, Any] = {name: tuple(record[name]) for name in _TUPLES}
    values |= {name: record[name] for name in _SCALARS}
    values |= {name: torch.tensor(record[name], dtype=torch.float32) for name in _TENSORS}
    values["certificate"] = structure(record["certificate"], Certificate, str(folder))
    known = record["faithfulness"]
    values["faithfulness"] = known and structure(known, Faithfulness, str(folder))
    return values
