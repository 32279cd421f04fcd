"""What a model says: its logits, the class it predicts, and what a single logit means.

A model with one output decides between two classes: a positive logit speaks for class 1, every
other one for class 0. Whoever needs that rule finds it here and states it nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchxnn.errors import DataError


def as_logits(output: Any) -> Float[Tensor, "batch outputs"]:
    """Check a model's output: (B, K) stays, (B,) becomes (B, 1), in float32 or float64.

    Raises:
        DataError: the output is anything else.
    """
    if isinstance(output, Tensor) and output.ndim == 1:
        output = output.unsqueeze(1)
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise DataError(f"the model must return logits (B, k), it returns {shape_or_type(output)}")
    return output.detach().float() if output.dtype != torch.float64 else output.detach()


def shape_or_type(output: Any) -> str:
    """What a module returned, for messages: the shape of a tensor, the type of anything else."""
    return str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__


def count_classes(outputs: int) -> int:
    """How many classes a model with so many outputs tells apart: two if it has one output."""
    return 2 if outputs == 1 else outputs


def predicted_classes(logits: Float[Tensor, "samples outputs"]) -> Int64[Tensor, " samples"]:
    """The class that the model predicts for each sample (M,): the one with the largest logit."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(1)


def class_of_target(target: int, outputs: int | None) -> int:
    """The class that an output speaks for: its own index, but class 1 for a single logit.

    `outputs` is how many outputs the model has; None, if nobody knows, counts as several.
    """
    return 1 if outputs == 1 else target


def class_probabilities(
    logits: Float[Tensor, "samples outputs"],
) -> Float[Tensor, "samples outputs"]:
    """The probability of the class of each output: softmax, or the sigmoid of a single logit."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)


def class_margins(logits: Float[Tensor, "samples outputs"]) -> Float[Tensor, " samples"]:
    """How far the logit of the predicted class is ahead of the next one (M,), in float64."""
    if logits.shape[1] == 1:
        return logits[:, 0].abs().double()
    first, second = logits.topk(2, dim=1).values.double().unbind(1)
    return first - second


def check_targets(targets: Iterable[int], outputs: int) -> None:
    """Refuse targets that the model has no output for.

    Raises:
        DataError: a target is not one of 0 to `outputs - 1`; the message names it.
    """
    for target in targets:
        if not 0 <= target < outputs:
            raise DataError(
                f"target {target} is out of range: the model has {outputs} output(s), "
                f"so 0 to {outputs - 1}"
            )
