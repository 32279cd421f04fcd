"""Where sums and solves are done in float64: on the tensor's own device, or else on the CPU.

Apple's GPUs (MPS) know no float64. PyTorch refuses to make, receive or compute it there, and even
to convert on the way to the CPU, so a tensor from there is copied first and converted then.
"""

from __future__ import annotations

import torch
from torch import Tensor

CPU = torch.device("cpu")

WITHOUT_FLOAT64 = ("mps",)
"""Types of device that know no float64."""


def knows_float64(device: torch.device) -> bool:
    """Whether a device has float64."""
    return device.type not in WITHOUT_FLOAT64


def exact_device(device: torch.device) -> torch.device:
    """The device of what is computed in float64 from tensors on a device: itself, or the CPU."""
    return device if knows_float64(device) else CPU


def exact(tensor: Tensor) -> Tensor:
    """The tensor in float64, on `exact_device` of its own; the same tensor if it is that already.

    Differentiable. On a device without float64 it is a copy that the host waits for, so sum large
    tensors there in blocks first.
    """
    return tensor.double() if knows_float64(tensor.device) else tensor.cpu().double()


def exact_sum(tensor: Tensor, dims: int | list[int], *, keepdim: bool = False) -> Tensor:
    """Sum over dimensions in float64, on `exact_device` of the tensor's.

    Where the device has float64, there is no copy of the tensor in it.
    """
    there = tensor if knows_float64(tensor.device) else tensor.cpu()
    return there.sum(dims, keepdim=keepdim, dtype=torch.float64)


def where_exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The same tensors, as they are, on `exact_device` of each: for figures of several."""
    return tuple(each if knows_float64(each.device) else each.cpu() for each in tensors)


def back(tensor: Tensor, like: Tensor) -> Tensor:
    """A result of exact arithmetic on the device and in the precision of another tensor."""
    return tensor.to(like.dtype).to(like.device)
