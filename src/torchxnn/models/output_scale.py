"""Whether a model's outputs are logits or what a sigmoid or a softmax made of them."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.models.config import OutputScale
from torchxnn.models.watched_pass import Squashed, WatchedPass

_LAYERS = (nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, nn.LogSoftmax, nn.LogSigmoid)
_ROUNDING = {torch.float16: 1e-2, torch.bfloat16: 1e-1}
"""How far the sum of rounded probabilities may be from 1; 1e-4 in other precisions."""

_SPREAD = 0.5
"""Outputs within [0, 1] that differ less may be the logits of a model that learned nothing."""


def output_scale(model: nn.Module, watched: WatchedPass) -> tuple[OutputScale, str]:
    """What the outputs of a watched pass are, and a line with the way to the logits behind them.

    Logarithms of probabilities are logits less a number that differs from image to image (the
    logarithm of a sum over all classes), so contributions to them are none to the logit. The line
    is empty for logits.
    """
    last = watched.last
    if last is None:
        by = _shape_of_rows(watched.logits, model)
        if by is None:
            return "logits", ""
        last = Squashed(by, "", watched.logits)
        step = f"every row {'of exponentials ' if by == 'log_softmax' else ''}sums to 1"
        way = "return from it what goes into the softmax"
    else:
        step, way = _step(model, last)
    if last.by == "log_softmax":
        return "log-probabilities", (
            f"the model's outputs are logarithms of probabilities, not logits ({step}): an XNN "
            f"explains logits; {way}, or allow 'probabilities' if these numbers are to be explained"
        )
    single = watched.logits.shape[1] == 1
    sign = ", whose sign decides the class" if single else ""
    value = " (a regression: outputs_are='value', --outputs-are value)" if single else ""
    return "probabilities", (
        f"the model's outputs are probabilities, not logits ({step}): an XNN explains logits"
        f"{sign}; {way}, or allow 'probabilities' if these numbers are to be explained{value}"
    )


def within_unit_interval(logits: Float[Tensor, "samples outputs"]) -> bool:
    """Whether many outputs look like probabilities by their values alone."""
    low, high = float(logits.min()), float(logits.max())
    return low >= 0 and high <= 1 and high - low >= _SPREAD


def _shape_of_rows(logits: Tensor, model: nn.Module) -> Literal["softmax", "log_softmax"] | None:
    """The function that rows of several outputs must come from, whatever computed them."""
    if logits.shape[1] < 2:
        return None
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    near = _ROUNDING.get(dtype, 1e-4)
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < near).all()):
        return "softmax"
    if bool((logits <= 0).all()) and bool(((logits.exp().sum(1) - 1).abs() < near).all()):
        return "log_softmax"
    return None


def _step(model: nn.Module, last: Squashed) -> tuple[str, str]:
    """The last step of a model in words, and how to leave it out."""
    module = model.get_submodule(last.place)
    kind = type(module).__name__
    if not isinstance(module, _LAYERS):
        return (
            f"its last step is a {last.by} in the forward of {kind}",
            f"return from it what goes into the {last.by}",
        )
    way = f"return from its forward what goes into the {kind}"
    if last.place and last.only:
        way = f"leave it out: model.set_submodule({last.place!r}, torch.nn.Identity())"
    return f"its last step is the {kind} {last.place!r}", way
