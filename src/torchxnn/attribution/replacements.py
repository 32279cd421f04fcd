"""What an `Unrolled` network runs instead of a call, for DeepLIFT and guided backprop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from torchxnn.attribution.captum_wrappers import Rule

RECTIFIERS = ("relu6", "hardtanh", "leaky_relu", "rrelu", "prelu", "elu", "selu", "celu", "gelu",
               "silu", "mish", "hardswish", "softplus", "glu", "threshold")  # fmt: skip
NO_RESCALE = (
    "relu6", "hardtanh", "rrelu", "prelu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
    "hardsigmoid", "glu", "threshold", "softsign", "tanhshrink", "softshrink", "hardshrink",
    "logsigmoid", "softmax", "log_softmax", "layer_norm", "group_norm", "instance_norm", "rms_norm",
    "local_response_norm", "scaled_dot_product_attention", "multi_head_attention_forward",
    "max_pool1d", "max_pool3d", "max_pool2d_with_indices", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "lp_pool2d", "lstm", "gru", "rnn_tanh", "rnn_relu",
)  # fmt: skip


class MaxPool(nn.Module):
    """`max_pool2d` as a pooling of windows that do not overlap.

    Captum's rule for pooling inverts it with `max_unpool2d`, which is wrong for overlapping
    windows (kernel 3, stride 2: ResNet, SqueezeNet): a pixel that wins twice counts once.
    Smaller differences to its results on whole networks come from pooling right after a ReLU:
    Captum then overwrites the pooling's multiplier, for both hook the same tensor; `Unrolled`
    hands each module a tensor of its own.
    """

    def __init__(self, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> None:
        super().__init__()
        self._kernel, self._dilation = _pair(kernel), _pair(dilation)
        self._stride, self._padding = _pair(stride or kernel), _pair(padding)
        self._ceil = ceil
        self.pool = nn.MaxPool2d((self._kernel[0] * self._kernel[1], 1))

    def forward(self, maps: Tensor) -> Tensor:
        """Pool (B, C, H, W)."""
        single = maps.ndim == 3
        maps = maps.unsqueeze(0) if single else maps
        settings = (self._kernel, self._stride, self._padding, self._dilation, self._ceil)
        with torch.no_grad():
            size = functional.max_pool2d(maps, *settings).shape[2:]
        border: list[int] = []
        for d in (1, 0):  # functional.pad begins with the last dimension
            reach = (size[d] - 1) * self._stride[d] + self._dilation[d] * (self._kernel[d] - 1) + 1
            after = max(0, reach - maps.shape[2 + d] - self._padding[d])
            border += [self._padding[d], after]
        never = float(maps.detach().min()) - 1
        padded = functional.pad(maps, border, value=never)
        windows = functional.unfold(padded, self._kernel, self._dilation, 0, self._stride)
        pooled = self.pool(windows.unflatten(1, (maps.shape[1], -1)))
        pooled = pooled.squeeze(2).unflatten(2, size)
        return pooled.squeeze(0) if single else pooled


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def _relu(*_: Any, **__: Any) -> nn.Module:
    return nn.ReLU()


def _clamp(min: Any = None, max: Any = None, **_: Any) -> nn.Module | None:
    return nn.ReLU() if min == 0 and max is None else None


def _leaky_relu(negative_slope: float = 0.01, *_: Any) -> nn.Module:
    return nn.LeakyReLU(negative_slope)


def _elu(alpha: float = 1.0, *_: Any) -> nn.Module:
    return nn.ELU(alpha)


def _softplus(beta: float = 1.0, threshold: float = 20.0) -> nn.Module:
    return nn.Softplus(beta, threshold)


def _max_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,  # True arrives under another name
) -> nn.Module:
    return MaxPool(kernel_size, stride, padding, dilation, ceil_mode)


GUIDED: dict[str, Rule] = {"relu": _relu, "clamp": _clamp, "clamp_min": _clamp}
RESCALE: dict[str, Rule] = {
    **GUIDED,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "softplus": _softplus,
    "sigmoid": lambda *_: nn.Sigmoid(),
    "tanh": lambda *_: nn.Tanh(),
    "max_pool2d": _max_pool,
}
