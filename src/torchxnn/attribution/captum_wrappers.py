"""A network as methods want to see it that hook modules: every operation of interest runs once.

Captum's DeepLIFT, guided backprop and Grad-CAM put hooks on modules. That goes wrong, in part
silently, where a network calls functions instead of modules, uses a module twice, or works in
place; and an XNN holds the explained model outside its module registry. So nothing is hooked in the
network. A `TorchFunctionMode`, which belongs to one thread, sees the calls as they run and sends
each one through a fresh module that belongs to the wrapper; the hooks go there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from torchxnn.attribution.excitation_backprop.tape import leaves
from torchxnn.errors import LayerError, UnsupportedOperationError
from torchxnn.models.hooks import replace_output
from torchxnn.models.outputs import shape_or_type

Run = Callable[[Tensor], Tensor]
Rule = Callable[..., nn.Module | None]
"""From a call's arguments after the first to the module that replaces it; None leaves it alone."""

_REARRANGES = {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "reshape",
               "view", "flatten", "unflatten", "pixel_shuffle", "pixel_unshuffle", "unfold", "fold",
               "mT", "T"}  # fmt: skip
_ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward"}


class _Intercept(TorchFunctionMode):
    def __init__(self, handle: Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]) -> None:
        super().__init__()
        self._handle = handle

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._handle(func, args, kwargs or {})


def _name(func: Any) -> str:
    """`relu` for F.relu, Tensor.relu and Tensor.relu_ alike."""
    name = getattr(func, "__name__", "")
    return name if name.endswith("__") else name.removesuffix("_")


def _in_place(func: Any, kwargs: dict[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    return bool(kwargs.get("inplace")) or (name.endswith("_") and not name.endswith("__"))


class Unrolled(nn.Module):
    """Runs a network with chosen operations replaced by modules, one per call.

    Args:
        run: images to outputs.
        images: an example, to find the calls.
        rules: by function name, what replaces a call.
        refused: function names that must not occur, with what to say about each.

    Raises:
        UnsupportedOperationError: a refused function ran, or a call has no replacement.
    """

    def __init__(
        self, run: Run, images: Tensor, rules: Mapping[str, Rule], refused: Mapping[str, str]
    ) -> None:
        super().__init__()
        self._run, self._rules, self._refused = run, rules, refused
        self._building, self._position = True, 0
        self.calls = nn.ModuleList()
        self(images)
        self._building = False

    def forward(self, images: Tensor) -> Tensor:
        """The network's outputs."""
        self._position = 0
        with _Intercept(self._handle):
            outputs = self._run(images)
        if self._position != len(self.calls):
            raise self._changed()
        return outputs

    def _handle(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = _name(func)
        if name in self._refused:
            raise UnsupportedOperationError(f"{self._refused[name]} (it calls {name!r})")
        rule = self._rules.get(name)
        data, rest = (args[0], args[1:]) if args else (kwargs.get("input"), ())
        if rule is None or not isinstance(data, Tensor) or not data.requires_grad:
            return func(*args, **kwargs)
        settings = {key: v for key, v in kwargs.items() if key not in ("input", "inplace")}
        module = rule(*rest, **settings)
        if module is None:
            return func(*args, **kwargs)
        if self._building:
            self.calls.append(module)
        elif self._position == len(self.calls):
            raise self._changed()
        module = self.calls[self._position]
        self._position += 1
        # A rule's module never works in place: the methods need what went in.
        result = module(data.clone())
        return data.copy_(result) if _in_place(func, kwargs) else result

    def _changed(self) -> UnsupportedOperationError:
        return UnsupportedOperationError(
            "the network runs other operations on other images; use occlusion or rise"
        )


class Tapped(nn.Module):
    """Runs a network with the feature maps of one place going through the module `tap`.

    The place is the output of `layer`, or, without one, of the last operation with feature maps:
    tensors (B, C, h, w) with h w > 1 that come from a convolution by way of operations that keep
    that layout, and that are not the result of a pooling.

    Args:
        run: images to outputs.
        images: an example, to find the place.
        layer: a module that runs once, or None.

    Raises:
        LayerError: there are no such feature maps, attention follows them, or `layer` does not run
            once with an output (B, C, h, w).
    """

    def __init__(self, run: Run, images: Tensor, layer: nn.Module | None = None) -> None:
        super().__init__()
        self._run = run
        self._layer = (layer,)  # a tuple: not registered
        self.tap = nn.Identity()
        self._place = self._find(images) if layer is None else 0

    def forward(self, images: Tensor) -> Tensor:
        """The network's outputs."""
        layer = self._layer[0]
        if layer is not None:
            return self._run_hooked(layer, images)
        seen = 0

        def handle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal seen
            result = func(*args, **kwargs)
            if not _is_map(result):
                return result
            seen += 1
            if seen != self._place:
                return result
            # Later operations may write into the tensor, so the tapped one is kept apart.
            tapped = self.tap(result.clone()).clone()
            if any(result is argument for argument in args):
                return result.copy_(tapped)
            return tapped

        with _Intercept(handle):
            return self._run(images)

    def _run_hooked(self, layer: nn.Module, images: Tensor) -> Tensor:
        calls = 0

        def through(output: Any) -> Tensor:
            nonlocal calls
            calls += 1
            if not isinstance(output, Tensor) or output.ndim != 4:
                raise LayerError(
                    f"Grad-CAM needs a layer with feature maps (B, C, h, w); "
                    f"{type(layer).__name__} returns {shape_or_type(output)}"
                )
            return self.tap(output.clone()).clone()

        with replace_output(layer, through):
            outputs = self._run(images)
        if calls != 1:
            raise LayerError(
                f"the layer for Grad-CAM ({type(layer).__name__}) ran {calls} times in one forward "
                "pass; choose one that runs once"
            )
        return outputs

    def _find(self, images: Tensor) -> int:
        """Number of the last suitable result among the tensors (B, C, h, w), counted from 1."""
        known: dict[int, Tensor] = {}  # holds the tensors too, so that no id is used again
        seen, place, attention = 0, 0, False

        def handle(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            nonlocal seen, place, attention
            name, result = _name(func), func(*args, **kwargs)
            attention |= name in _ATTENTION or (name == "softmax" and result.ndim > 2)
            if not _is_map(result):
                return result
            seen += 1
            spatial = result.shape[2] * result.shape[3] > 1
            derived = any(id(tensor) in known for tensor in leaves((args, kwargs), Tensor))
            if spatial and (name == "conv2d" or (derived and name not in _REARRANGES)):
                known[id(result)] = result
                if "pool" not in name:
                    place, attention = seen, False
            return result

        with _Intercept(handle):
            self._run(images)
        if place == 0 or attention:
            what = (
                "attention follows its last feature maps"
                if place
                else "no convolution gives it feature maps (B, C, h, w)"
            )
            raise LayerError(
                f"Grad-CAM finds no layer in this network: {what}; name one with "
                "GradCAM(module, layer=...), or use another method"
            )
        return place


def _is_map(result: Any) -> bool:
    return isinstance(result, Tensor) and result.ndim == 4 and result.requires_grad


# --- what an `Unrolled` network runs instead of a call, for DeepLIFT and guided backprop


RECTIFIERS = ("leaky_relu", "rrelu", "prelu", "elu", "selu", "celu", "gelu",
               "silu", "mish", "hardswish", "softplus", "glu", "threshold")  # fmt: skip
NO_RESCALE = (
    "rrelu", "prelu", "selu", "celu", "gelu", "silu", "mish", "hardswish",
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

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,  # True arrives under another name
    ) -> None:
        super().__init__()
        self._kernel, self._dilation = _pair(kernel_size), _pair(dilation)
        self._stride, self._padding = _pair(stride or kernel_size), _pair(padding)
        self._ceil = ceil_mode
        self.pool = nn.MaxPool2d((self._kernel[0] * self._kernel[1], 1))

    def forward(self, maps: Tensor) -> Tensor:
        """The maxima of the windows, (B, C, h, w), of maps (B, C, H, W); without B as well."""
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


class Clip(nn.Module):
    """`hardtanh` as ReLUs: a + relu(x - a) - relu(x - b), which is x cut to [a, b].

    The rescale rule of a sum of functions of one x is the sum of their rules, so DeepLIFT through
    these two is the rescale rule of the whole.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self._low, self._high = low, high
        self.above_low, self.above_high = nn.ReLU(), nn.ReLU()

    def forward(self, values: Tensor) -> Tensor:
        """The values cut to the range."""
        return self._low + self.above_low(values - self._low) - self.above_high(values - self._high)


class GuidedClip(nn.Module):
    """`hardtanh` as one ReLU, whose output is cut above: a + min(relu(x - a), b - a).

    Guided backprop cuts a negative gradient once, and passes none where the value is cut.
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self._low, self._range = low, high - low
        self.above_low = nn.ReLU()

    def forward(self, values: Tensor) -> Tensor:
        """The values cut to the range."""
        above = self.above_low(values - self._low)
        return self._low + functional.hardtanh(above, -1.0, self._range)


def _clips(clip: type[Clip | GuidedClip]) -> dict[str, Rule]:
    """What replaces operations that cut their values, from below alone or on both sides."""

    def clamp(min: Any = None, max: Any = None, **_: Any) -> nn.Module | None:
        if min == 0 and max is None:
            return nn.ReLU()
        numbers = all(isinstance(bound, (int, float)) for bound in (min, max))
        return clip(float(min), float(max)) if numbers and min < max else None

    return {
        "relu": lambda *_, **__: nn.ReLU(),
        "clamp": clamp,
        "clamp_min": clamp,
        "relu6": lambda *_, **__: clip(0.0, 6.0),
        "hardtanh": lambda min_val=-1.0, max_val=1.0, *_, **__: clip(
            float(min_val), float(max_val)
        ),
    }


GUIDED = _clips(GuidedClip)
RESCALE: dict[str, Rule] = {
    **_clips(Clip),
    "leaky_relu": lambda negative_slope=0.01, *_: nn.LeakyReLU(negative_slope),
    "elu": lambda alpha=1.0, *_: nn.ELU(alpha),
    "softplus": nn.Softplus,
    "sigmoid": lambda *_: nn.Sigmoid(),
    "tanh": lambda *_: nn.Tanh(),
    "max_pool2d": MaxPool,
}
