"""Whether a value is a piecewise linear function of another, from the operations between them.

Numbers cannot tell a kink from a bend for certain; the graph that PyTorch keeps for gradients
names every operation, so a module that is not known to be piecewise linear is refused by name.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from torchxnn.errors import XNNError

_ANYWHERE = frozenset((
    "Abs", "AdaptiveAvgPool1D", "AdaptiveAvgPool2D", "AdaptiveAvgPool3D", "AdaptiveMaxPool2D",
    "Add", "Alias", "Amax", "Amin", "AsStrided", "AvgPool2D", "AvgPool3D", "Cat", "Clamp",
    "ClampMax", "ClampMin", "Clone", "ConstantPadNd", "Diagonal", "Expand", "Flip", "Gather",
    "Hardtanh", "Index", "IndexSelect", "LeakyRelu", "Max", "MaxPool2DWithIndices",
    "MaxPool3DWithIndices", "Maximum", "Mean", "Min", "Minimum", "Narrow", "Neg", "Permute",
    "PreluKernel", "Relu", "Repeat", "Roll", "Rsub", "Select", "Slice", "Sort", "Split",
    "SplitWithSizes", "Squeeze", "Stack", "Sub", "Sum", "T", "Threshold", "ToCopy", "Topk",
    "Transpose", "Unbind", "UnsafeSplit", "UnsafeView", "Unsqueeze", "UpsampleBilinear2D",
    "UpsampleNearest2D", "View", "Where", "AccumulateGrad",
))  # fmt: skip
"""Operations that are linear in all that they read, but for kinks."""

_PRODUCTS = frozenset((
    "Addmm", "Addmv", "Baddbmm", "Bmm", "Convolution", "MkldnnConvolution",
    "CudnnConvolution", "MkldnnLinear", "Div", "Dot", "Linear", "Mm", "Mul", "Mv",
))  # fmt: skip
"""Operations that are linear in one of the things that they read if the others are constants."""

_NORMALISED = frozenset(["NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm"])
"""Linear with the statistics of the training, not with those of the batch."""


def check_piecewise_linear(values: Tensor, source: Tensor) -> None:
    """Refuse values that are not known to be a piecewise linear function of `source`, a leaf.

    What is detached from the graph on the way counts as a constant.

    Raises:
        XNNError: the first operation that bends, by name.
    """
    path = between(values, source)
    if not path:
        raise XNNError("the outputs do not depend on the layer's activations; choose another layer")
    for node in path:
        kind = _kind(node)
        dependent = [following in path for following, _ in node.next_functions]
        straight = (
            kind in _ANYWHERE
            or (kind in _PRODUCTS and sum(dependent) == 1 and (kind != "Div" or dependent[0]))
            or (kind in _NORMALISED and not getattr(node, "_saved_training", True))
        )
        if not straight:
            raise XNNError(
                f"what lies above the layer is not piecewise linear (it runs {kind.lower()!r} on "
                "its way to the outputs), so it has no effective weights: use excitation_backprop, "
                "or attach to a layer closer to the outputs"
            )


def between(values: Tensor, source: Tensor) -> dict[Any, None]:
    """Nodes of the graph between values and a leaf, those nearer to the leaf first."""
    leads: dict[Any, bool] = {}
    stack: list[tuple[Any, bool]] = [(values.grad_fn, False)] if values.grad_fn else []
    while stack:
        node, complete = stack.pop()
        following = [each for each, _ in node.next_functions if each is not None]
        if complete:
            own = getattr(node, "variable", None) is source
            leads[node] = own or any(leads[each] for each in following)
        elif node not in leads:
            stack.append((node, True))
            stack += [(each, False) for each in following if each not in leads]
    return {node: None for node, there in leads.items() if there}


def _kind(node: Any) -> str:
    """The operation of a node: "torch::autograd::AccumulateGrad", "ReluBackward0"."""
    return re.sub(r"Backward\d*$", "", str(node.name()).rsplit("::", 1)[-1])
