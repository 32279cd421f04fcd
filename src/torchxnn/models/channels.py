"""How many channels a network takes, where its preprocessing does not say it rightly."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.errors import XNNWarning
from torchxnn.models.hooks import run_watched, watch_inputs
from torchxnn.models.layers import unwrap
from torchxnn.models.preprocessing import MOST_CHANNELS, Preprocessing


class _Reached(BaseException):
    """Stops a pass at the first convolution; not an `Exception`, so that no model swallows it."""


def settle_channels(model: nn.Module, preprocessing: Preprocessing) -> Preprocessing:
    """The preprocessing with as many channels as the model's first convolution takes.

    A pass of a black image tells which convolution is the first, and whether the model makes its
    channels fit before it. Mean and standard deviation of other channels are not known: they
    become the mean of those given, with a warning. A model whose first layer is no convolution
    stays as it was described.
    """
    wanted = _first_convolution(model, preprocessing)
    if wanted is None or wanted == preprocessing.channels or wanted > MOST_CHANNELS:
        return preprocessing
    settled = preprocessing.with_channels(wanted)
    warnings.warn(
        f"the network takes {wanted} channel(s), and its preprocessing has "
        f"{preprocessing.channels}: it is fed {wanted} with mean {settled.mean[0]:.3f} and std "
        f"{settled.std[0]:.3f}, unless --mean and --std, or an attribute `preprocessing` of the "
        "model, say otherwise",
        XNNWarning,
        stacklevel=3,
    )
    return settled


def black_image(model: nn.Module, preprocessing: Preprocessing) -> Float[Tensor, "1 *pixels"]:
    """A batch of one image (1, C, H, W) of zeros in float32, where the model lies."""
    parameter = next(iter(model.parameters()), torch.zeros(()))
    return torch.zeros(1, *preprocessing.shape, device=parameter.device)


def _first_convolution(model: nn.Module, preprocessing: Preprocessing) -> int | None:
    """Channels that the first convolution takes; None if it runs as it is, or there is none."""
    inner, found = unwrap(model), list[int]()

    def stop(module: Any, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            fits = inputs[0].shape[1] == module.in_channels
            found.append(preprocessing.channels if fits else module.in_channels)
        raise _Reached

    convolutions = [m for m in inner.modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    watches = [watch_inputs(module, partial(stop, module)) for module in convolutions]
    with torch.no_grad(), suppress(_Reached, Exception):  # what fails is said by the real pass
        run_watched(inner, black_image(inner, preprocessing), watches)
    return found[0] if found else None
