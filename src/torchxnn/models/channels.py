"""How many channels a network takes, and whether volumes, where its preprocessing is wrong."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.errors import ModelError, XNNWarning
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
    first = _first_convolution(model, preprocessing)
    wanted = None if first is None else first.channels
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


def check_dimensions(model: nn.Module, preprocessing: Preprocessing) -> None:
    """Refuse a network of volumes that is described as one of images, and the other way round.

    Raises:
        ModelError: with the way out; the message names the first convolution.
    """
    first = _first_convolution(model, preprocessing)
    if first is None or first.wants_depth is None:
        return
    shape = " x ".join(map(str, preprocessing.shape))
    if first.wants_depth and preprocessing.depth is None:
        raise ModelError(
            f"the network takes volumes (its first convolution is a {first.kind}), and a {shape} "
            "image has no depth: give --size DEPTHxHEIGHTxWIDTH, such as --size 32x64x64, or the "
            "network an attribute `preprocessing` with size=(32, 64, 64)"
        )
    if not first.wants_depth and preprocessing.depth is not None:
        raise ModelError(
            f"the network takes images (its first convolution is a {first.kind}), not volumes "
            f"({shape}): give --size HEIGHTxWIDTH"
        )


def black_image(model: nn.Module, preprocessing: Preprocessing) -> Float[Tensor, "1 *pixels"]:
    """A batch of one image (1, C, H, W) of zeros in float32, where the model lies."""
    parameter = next(iter(model.parameters()), torch.zeros(()))
    return torch.zeros(1, *preprocessing.shape, device=parameter.device)


@dataclass(frozen=True)
class _First:
    """What the first convolution of a network takes.

    Attributes:
        kind: class name.
        channels: that the whole network is to be given.
        wants_depth: whether its input should have a dimension more, or fewer; None if it fits.
    """

    kind: str
    channels: int
    wants_depth: bool | None


def _first_convolution(model: nn.Module, preprocessing: Preprocessing) -> _First | None:
    """What the first convolution takes; None if there is none, or a pass does not come to it."""
    inner, found = unwrap(model), list[_First]()

    def stop(module: Any, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor):
            fits = inputs[0].shape[1] == module.in_channels
            channels = preprocessing.channels if fits else module.in_channels
            deep, dimensions = isinstance(module, nn.Conv3d), inputs[0].ndim
            wrong = dimensions == (4 if deep else 5)
            found.append(_First(type(module).__name__, channels, deep if wrong else None))
        raise _Reached

    kinds = nn.Conv1d | nn.Conv2d | nn.Conv3d
    convolutions = [module for module in inner.modules() if isinstance(module, kinds)]
    watches = [watch_inputs(module, partial(stop, module)) for module in convolutions]
    with torch.no_grad(), suppress(_Reached, Exception):  # what fails is said by the real pass
        run_watched(inner, black_image(inner, preprocessing), watches)
    return found[0] if found else None
