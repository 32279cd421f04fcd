"""What a model says: its logits, the class it predicts, and what a single logit means.

A model with one output decides between two classes: a positive logit speaks for class 1, every
other one for class 0. Whoever needs that rule finds it here and states it nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchxnn.embeddings.exact import exact
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.meaning import CLASSES, Meaning

_SHOWN = 5  # entries of a tuple or mapping that a message names


def as_logits(output: Any) -> Float[Tensor, "batch outputs"]:
    """Check a model's output: (B, K) stays, (B,) becomes (B, 1), in float32 or float64.

    The logits may lie in an object, a mapping or a tuple; see `logits_of`.

    Raises:
        DataError: the output is anything else.
    """
    found = logits_of(output)
    _warn_of_rivals(output, found)
    return found.detach().float() if found.dtype != torch.float64 else found.detach()


def logits_of(output: Any) -> Float[Tensor, "batch outputs"]:
    """The logits (B, K) in whatever a model returns; gradients flow.

    They are a tensor (B, K) or (B,), the attribute or the key `logits` (as models of transformers
    have it), or the first entry of a tuple or a list. That one must be (B, K), since a tensor (B,)
    may be anything there, such as losses. Further dimensions of size 1, as in (B, K, 1, 1) or
    (B, 1, K), are taken away.

    Raises:
        DataError: there are no logits in it; the message says what came.
    """
    found = _returned(output)
    if isinstance(found, Tensor) and found.ndim > 2 and found[0].numel() == max(found.shape[1:]):
        found = found.flatten(1)
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise DataError(
            f"the model must return logits (B, k), it returns {shape_or_type(output)}; wrap it in "
            "a module whose forward returns its logits alone"
        )
    if found.is_complex():
        raise DataError(
            "the model returns complex numbers, which are no logits; wrap it in a module that "
            "returns real ones, such as .real or .abs() of them"
        )
    return found


def about_shape(output: Any) -> str:
    """A line about logits with further dimensions of size 1; empty if they are (B, K) or (B,)."""
    found = _returned(output)
    if not isinstance(found, Tensor) or found.ndim < 3:
        return ""
    shape = ", ".join(map(str, found.shape[1:]))
    return f"the model returns (B, {shape}), which counts as logits (B, {found[0].numel()})"


def _returned(output: Any) -> Any:
    """What may be the logits in whatever a model returns, (B,) as (B, 1) where that is allowed."""
    found, named = output, True
    if isinstance(output, Mapping):
        found = output.get("logits")
    elif hasattr(output, "logits"):
        found = output.logits
    elif isinstance(output, (tuple, list)):
        found, named = output[0] if output else None, False
    if named and isinstance(found, Tensor) and found.ndim == 1:
        return found.unsqueeze(1)
    return found


def _warn_of_rivals(output: Any, logits: Tensor) -> None:
    """Say which of several tensors (B, k) of a tuple counts as the logits, if their k differ."""
    if not isinstance(output, (tuple, list)) or hasattr(output, "logits"):
        return
    widths = [v.shape[1] for v in output if isinstance(v, Tensor) and v.ndim == 2]
    if len(set(widths)) > 1:
        warnings.warn(
            f"the model returns several tensors (B, k), with k of {', '.join(map(str, widths))}: "
            f"the first counts as its {logits.shape[1]} logits; if it is not, wrap the model in a "
            "module whose forward returns its logits alone",
            XNNWarning,
            stacklevel=3,
        )


def shape_or_type(output: Any) -> str:
    """What a module returned, for messages: shapes of tensors, types of everything else."""
    match output:
        case Tensor():
            return str(tuple(output.shape))
        case Mapping():
            parts = [f"{key} {_shape_or_name(value)}" for key, value in output.items()]
        case tuple() | list():
            parts = [_shape_or_name(value) for value in output]
        case _:
            return f"a {type(output).__name__}"
    shown = parts[:_SHOWN] + ["..."] * (len(parts) > _SHOWN)
    return f"a {type(output).__name__} of {', '.join(shown) or 'nothing'}"


def _shape_or_name(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def count_classes(outputs: int) -> int:
    """How many classes a model with so many outputs tells apart: two if it has one output."""
    return 2 if outputs == 1 else outputs


def predicted_classes(
    logits: Float[Tensor, "samples outputs"], boundary: float = 0.0
) -> Int64[Tensor, " samples"]:
    """The class that the model predicts for each sample (M,): the one with the largest logit.

    A single output predicts class 1 above `boundary`; see `Meaning`.
    """
    return (logits[:, 0] > boundary).long() if logits.shape[1] == 1 else logits.argmax(1)


def class_of_target(target: int, outputs: int | None) -> int:
    """The class that an output speaks for: its own index, but class 1 for a single logit.

    `outputs` is how many outputs the model has; None, if nobody knows, counts as several.
    """
    return 1 if outputs == 1 else target


def class_probabilities(
    logits: Float[Tensor, "samples outputs"], meaning: Meaning = CLASSES
) -> Float[Tensor, "samples outputs"]:
    """The probability of each output: softmax of classes, else the sigmoid of the logit.

    Outputs that are probabilities already, or their logarithms, are taken as such.
    """
    if meaning.scale != "logits":
        return logits if meaning.scale == "probabilities" else logits.exp()
    exclusive = meaning.outputs_are == "classes" and logits.shape[1] > 1
    return logits.softmax(1) if exclusive else logits.sigmoid()


def class_margins(
    logits: Float[Tensor, "samples outputs"], boundary: float = 0.0
) -> Float[Tensor, " samples"]:
    """How far the logit of the predicted class is ahead of the next one (M,), in float64.

    That of a single one is how far it is from `boundary`. On the CPU if no float64 is known where
    the logits are.
    """
    if logits.shape[1] == 1:
        return (exact(logits[:, 0]) - boundary).abs()
    first, second = exact(logits.topk(2, dim=1).values).unbind(1)
    return first - second


def both_class_names(names: tuple[str, ...], outputs: int | None) -> tuple[str, ...]:
    """Names of classes by index: a single logit with one name speaks for it and against it."""
    return (f"not {names[0]}", names[0]) if outputs == 1 and len(names) == 1 else names


def check_targets(targets: Iterable[int], outputs: int) -> None:
    """Refuse targets that the model has no output for.

    Raises:
        DataError: a target is not one of 0 to `outputs - 1`; the message names it.
    """
    for target in targets:
        if not 0 <= target < outputs:
            raise DataError(
                f"target {target} is out of range: the model has {outputs} output(s), "
                f"so 0 to {outputs - 1}" + "; output 0 speaks for class 1" * (outputs == 1)
            )


def check_class_names(names: Sequence[str] | None, outputs: int) -> None:
    """Refuse class names of which there are too few or too many, since they would be wrong ones.

    Raises:
        DataError: neither one for each output nor, of a single logit, one for both classes.
    """
    if names is not None and len(names) not in (outputs, count_classes(outputs)):
        raise DataError(
            f"there are {len(names)} class name(s) and {outputs} output(s) of the model; give a "
            "name for each, in the order of the outputs"
        )
