"""A literal, slow excitation backprop: every operation's matrix written out, the formula in loops.

A network is a list of nodes. `DagNetwork` runs them as an ordinary `nn.Module`; `reference` carries
relevance through them for one image, with nothing in common with the library's code: the matrix of
a linear node comes from the images of the basis vectors, probabilities from a loop over units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchxnn.attribution.excitation_backprop.prepared import prepare
from torchxnn.attribution.excitation_backprop.propagation import Walk
from torchxnn.attribution.excitation_backprop.tracing import record


@dataclass(frozen=True)
class Node:
    """One operation.

    `kind` is "linear" (with `weights_of_one`, the same operation with all weights 1), "pass"
    (element-wise; the first input receives), "move" (copies of elements), "max" (copies chosen by
    the data) or "sum". `folds_into` names the affine node that is one unit with a linear node,
    `scale` and `shift` of an affine node say how.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    run: Callable[..., Tensor]
    weights_of_one: Callable[..., Tensor] | None = None
    folds_into: str | None = None
    slope: Callable[[Tensor], Tensor] | None = None


class _Step(nn.Module):
    def __init__(self, node: Node) -> None:
        super().__init__()
        self.run = node.run

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.run(*inputs)


class DagNetwork(nn.Module):
    """The nodes as a module; the last one is the output, "x" the images."""

    def __init__(self, nodes: list[Node]) -> None:
        super().__init__()
        self.nodes = nodes
        self.steps = nn.ModuleDict({node.name: _Step(node) for node in nodes})

    def forward(self, images: Tensor) -> Tensor:
        values = {"x": images}
        for node in self.nodes:
            inputs = [values[name] for name in node.inputs]
            values[node.name] = self.steps[node.name](*inputs)
        return values[self.nodes[-1].name]


def matrix(run: Callable[..., Tensor], first: Tensor, *others: Tensor) -> Tensor:
    """The matrix of a function that is affine in its first argument, from the basis vectors."""
    zero = torch.zeros(first.shape, dtype=torch.float64)
    offset = run(zero, *others).flatten()
    columns = []
    for index in range(zero.numel()):
        basis = zero.clone()
        basis.view(-1)[index] = 1
        columns.append(run(basis, *others).flatten() - offset)
    return torch.stack(columns, 1)


def pass_down(
    weights: Tensor,
    structure: Tensor,
    x: Tensor,
    signs: list[int],
    relevance: Tensor,
    *,
    dual: bool = False,
    absorb: bool = False,
) -> Tensor:
    """R_j = sum_i P(j|i) R_i, P proportional to (s_i w_ij x_j)+, else |w_ij x_j|, |w_ij|, even.

    A dual unit: (s_i w_ij x_j)+, else |x_j| where there is a connection, else even. With `absorb`
    nothing is passed on where nothing agrees.
    """
    result = torch.zeros_like(x)
    for i in range(weights.shape[0]):
        if relevance[i] == 0:
            continue
        options = [
            (signs[i] * weights[i] * x).clamp(min=0),
            (weights[i] * x).abs(),
            weights[i].abs(),
            structure[i].abs(),
        ]
        if dual:
            options[1:3] = [(structure[i] != 0) * x.abs()]
        if absorb and float(options[0].sum()) <= 0:
            continue
        won = next(option for option in options if float(option.sum()) > 0)
        result += won / won.sum() * relevance[i]
    return result


def _sign(value: float) -> int:
    return -1 if value < 0 else 1


def _signs(node: Node, values: dict[str, Tensor], by_name: dict[str, Node]) -> list[int]:
    if node.folds_into is None:
        return [_sign(v) for v in values[node.name].flatten().tolist()]
    affine = by_name[node.folds_into]
    assert affine.slope is not None
    slope = affine.slope(values[node.name]).flatten()
    after = values[affine.name].flatten()
    # The folded unit's row is slope * w, its sign that of the affine output.
    return [_sign(a) * _sign(b) for a, b in zip(after.tolist(), slope.tolist(), strict=True)]


def reference(
    nodes: list[Node], image: Tensor, target: int, *, dual: bool = False, absorb: bool = False
) -> dict[str, Tensor]:
    """Marginal relevance of every node's output for one image (1, ...), in float64.

    The last node must be linear and is the layer that feeds the target; `dual` negates its weights.
    With `absorb` relevance ends at units of the other nodes that nothing agrees with.
    """
    by_name = {node.name: node for node in nodes}
    values = {"x": image}
    for node in nodes:
        values[node.name] = node.run(*(values[name] for name in node.inputs))
    relevance = {name: torch.zeros(value.numel()).double() for name, value in values.items()}
    relevance[nodes[-1].name][target] = 1
    for node in reversed(nodes):
        received = relevance[node.name]
        sources = [values[name] for name in node.inputs]
        if node.kind == "pass":
            relevance[node.inputs[0]] += received
        elif node.kind == "linear":
            weights = matrix(node.run, *sources)
            structure = weights
            if node.weights_of_one is not None:
                structure = matrix(node.weights_of_one, sources[0])
            signs = _signs(node, values, by_name)
            if node is nodes[-1]:
                signs = [1] * weights.shape[0]
                weights = -weights if dual else weights
            relevance[node.inputs[0]] += pass_down(
                weights,
                structure,
                sources[0].flatten(),
                signs,
                received,
                dual=dual and node is nodes[-1],
                absorb=absorb and node is not nodes[-1],
            )
        elif node.kind in ("move", "max"):
            _copies(node, sources, received, relevance)
        elif node.kind == "sum":
            _sum(node, values, received, relevance, absorb=absorb)
    return relevance


def _copies(
    node: Node, sources: list[Tensor], received: Tensor, relevance: dict[str, Tensor]
) -> None:
    """Each output element equals one input element: found by nudging the inputs one by one."""
    base = node.run(*sources).flatten()
    step = 1e-7 if node.kind == "max" else 1.0
    for position, source in enumerate(sources):
        for j in range(source.numel()):
            nudged = [item.clone(memory_format=torch.contiguous_format) for item in sources]
            nudged[position].view(-1)[j] += step
            moved = (node.run(*nudged).flatten() - base).abs() > step / 2
            relevance[node.inputs[position]][j] += received[moved].sum()


def _sum(
    node: Node,
    values: dict[str, Tensor],
    received: Tensor,
    relevance: dict[str, Tensor],
    *,
    absorb: bool,
) -> None:
    terms = [values[name].flatten() for name in node.inputs]
    total = values[node.name].flatten()
    for i in range(total.numel()):
        each = torch.stack([term[i] for term in terms])
        options = [(_sign(float(total[i])) * each).clamp(min=0), each.abs(), torch.ones_like(each)]
        if absorb and float(options[0].sum()) <= 0:
            continue
        won = next(option for option in options if float(option.sum()) > 0)
        for position, name in enumerate(node.inputs):
            relevance[name][i] += won[position] / won.sum() * received[i]


def measured(
    module: nn.Module,
    images: Tensor,
    target: int,
    at: nn.Module | None,
    *,
    contrastive: bool,
    absorb: bool = False,
) -> Tensor:
    """The library's relevance of a layer's output or of the images, (B, ...), not summed.

    It is not scaled, either, where some of it was absorbed.
    """
    (tape,) = record(module.eval(), images, stop=at)
    with torch.no_grad():
        seeds = torch.zeros((1, *tape.output.shape), dtype=images.dtype)
        seeds[:, :, target] = 1
        prepared = prepare(tape, certify=False)
        settings = {"contrastive": contrastive, "absorb": absorb, "beside": contrastive}
        walk = Walk(prepared, **settings, free=True)
        found = walk.run(seeds, tape.images if tape.stop is None else tape.stop)
        return found[0] - found[1] if len(found) > 1 else found[0]
