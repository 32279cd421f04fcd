"""What happens inside one forward pass: where numbers are drawn, and what made the outputs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchxnn.models.hooks import (
    preserve_state,
    run_watched,
    takes_shape,
    watch_inputs,
    watch_output,
)
from torchxnn.models.outputs import about_shape, as_logits
from torchxnn.models.without_compiler import EagerMode

Squashing = Literal["sigmoid", "softmax", "log_softmax", "logsigmoid"]

_SQUASHING: dict[Any, Squashing] = {
    torch.ops.aten.sigmoid: "sigmoid",
    torch.ops.aten.sigmoid_: "sigmoid",
    torch.ops.aten.hardsigmoid: "sigmoid",
    torch.ops.aten._softmax: "softmax",
    torch.ops.aten._log_softmax: "log_softmax",
    torch.ops.aten.log_sigmoid_forward: "logsigmoid",
}


@dataclass(frozen=True, eq=False)
class Squashed:
    """What a sigmoid, a softmax or the logarithm of one of them gave.

    Attributes:
        by: the function.
        place: dotted name of the innermost module that called it; empty for the model itself.
        values: what it returned.
        only: whether that module called nothing of the kind before in this pass.
    """

    by: Squashing
    place: str
    values: Tensor
    only: bool = True

    def made(self, logits: Tensor) -> bool:
        """Whether the model's outputs (B, K) are these values but for rounding, or a column."""
        values = self.values.reshape(len(logits), -1).to(logits.dtype)
        if values.shape != logits.shape and logits.shape[1] > 1:
            return False
        near = torch.isclose(values, logits, rtol=1e-2, atol=1e-4)
        return bool(near.all() if values.shape == logits.shape else near.all(0).any())


@dataclass(eq=False)
class WatchedPass:
    """One forward pass in evaluation mode without gradients.

    Attributes:
        logits: (B, K), in float32 or float64.
        shape: a line about outputs that are logits with further dimensions; else empty.
        random: dotted names of the modules that drew random numbers, innermost ones.
        squashed: what sigmoids and softmaxes over vectors gave, in the order of the pass.
        training: modules that the model itself put into training mode meanwhile.
    """

    logits: Tensor = field(init=False)
    shape: str = ""
    random: list[str] = field(default_factory=list)
    squashed: list[Squashed] = field(default_factory=list)
    training: list[str] = field(default_factory=list)

    @property
    def last(self) -> Squashed | None:
        """The sigmoid or softmax whose values are the model's outputs; None if there is none."""
        return next((each for each in reversed(self.squashed) if each.made(self.logits)), None)


def watch_pass(model: nn.Module, inputs: Tensor) -> WatchedPass:
    """Run a model, not wrapped, on a batch and look at what it does; it is left as it was.

    Raises:
        DataError: it returns no logits.
    """
    found = WatchedPass()
    running: list[str] = []
    watches: list[AbstractContextManager[None]] = []
    for name, module in model.named_modules():
        watches.append(watch_inputs(module, partial(_enter, running, name)))
        watches.append(watch_output(module, lambda _: running.pop()))
    with torch.no_grad(), preserve_state(model):
        with takes_shape(inputs), _Operations(found, running, len(inputs)):
            returned = run_watched(model, inputs, watches)
        found.training = [name for name, module in model.named_modules() if module.training]
    found.logits, found.shape = as_logits(returned), about_shape(returned)
    return found


def _enter(running: list[str], name: str, _: tuple[Any, ...]) -> None:
    running.append(name)


class _Operations(EagerMode):
    """Notes random numbers and squashed vectors, operation by operation."""

    def __init__(self, found: WatchedPass, running: list[str], batch: int) -> None:
        super().__init__()
        self._found, self._running, self._batch = found, running, batch

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        place = self._running[-1] if self._running else ""
        if torch.Tag.nondeterministic_seeded in func.tags and place not in self._found.random:
            self._found.random.append(place)
        by = _SQUASHING.get(func.overloadpacket)
        values = result[0] if isinstance(result, tuple) else result
        if by is not None and self._is_vectors(values):
            only = all(each.place != place for each in self._found.squashed)
            self._found.squashed.append(Squashed(by, place, values, only))
        return result

    def _is_vectors(self, values: Tensor) -> bool:
        """Whether there is one vector per image, so that maps of attention are not kept."""
        if values.ndim == 0 or len(values) != self._batch:
            return False
        return values[0].numel() <= max(values.shape[1:], default=1)
