"""What a model says of one input, and what is true of it, in the words that its outputs need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from torchxnn.data.labels import as_given, settle
from torchxnn.explanations.drawing.overlay import number
from torchxnn.explanations.summands import listed
from torchxnn.models.attached import FittedXNN, XNNOutput
from torchxnn.models.config import OutputsConfig

Label = int | float | Sequence[float] | Tensor
"""What is true of one input: a class index, multi-hot labels (K,), or a value."""

MOST_NAMED = 6  # labels; what a page says of the rest is their number


def verdict(xnn: FittedXNN, output: XNNOutput) -> dict[str, Any]:
    """The predicted class and its name, as `Reasons` has them, of a batch of one."""
    kind, logits, boundary = xnn.meaning.outputs_are, output.logits[0], xnn.meaning.boundary
    if kind == "classes":
        predicted = int(output.predicted[0])
        return {"predicted_class": predicted, "predicted_name": xnn.class_name(predicted)}
    if kind == "value":
        shown = listed([number(float(logits[target])) for target in xnn.targets])
        return {"predicted_class": None, "predicted_name": shown}
    seen = [target for target in xnn.targets if float(logits[target]) > boundary]
    others = [i for i in (logits > boundary).nonzero().flatten().tolist() if i not in seen]
    names = _names([xnn.target_name(output) for output in [*seen, *others]])
    return {"predicted_class": seen[0] if seen else None, "predicted_name": names}


def truth(xnn: FittedXNN, label: Label) -> str:
    """What is true of one input, in words.

    Raises:
        DataError: it is not of the form that the outputs of the model need.
    """
    kind = xnn.meaning.outputs_are
    if kind == "classes" and isinstance(label, int):
        return xnn.class_name(label)
    given = as_given(torch.as_tensor(label).unsqueeze(0))
    if kind == "value":
        return listed([number(float(value)) for value in given.flatten()])
    outputs = xnn.outputs or (given.shape[1] if given.ndim == 2 else max(xnn.targets) + 1)
    found, _ = settle(given, outputs, OutputsConfig(kind))
    if found is None or kind == "classes":
        return "" if found is None else xnn.class_name(int(found[0]))
    every = [int(found[0])] if found.ndim == 1 else (found[0] == 1).nonzero().flatten().tolist()
    return _names([xnn.target_name(output) for output in every])


def _names(names: Sequence[str]) -> str:
    """Some names and the number of the others."""
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return listed([*names[:MOST_NAMED], *more]) or "none of the labels"
