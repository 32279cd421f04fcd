"""Every rule in float64 against the literal matrix version, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_ebp import DagNetwork, Node, measured, reference
from torchxnn.attribution.excitation_backprop.competition import split_by_sign
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.excitation_backprop.rules.table import RULES

CASES: dict[str, Callable[[torch.Generator], list[Node]]] = {}


def case(build: Callable[[torch.Generator], list[Node]]) -> Callable[..., list[Node]]:
    CASES[build.__name__] = build
    return build


def random(gen: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=gen, dtype=torch.float64)


def conv(
    name: str, source: str, gen: torch.Generator, shape: tuple[int, ...], **settings: object
) -> Node:
    folds = settings.pop("folds_into", None)
    transposed = settings.pop("transposed", False)
    function = F.conv_transpose2d if transposed else F.conv2d
    groups = int(settings.get("groups", 1))  # type: ignore[call-overload]
    weight = random(gen, *shape)
    bias = random(gen, shape[1] * groups if transposed else shape[0])
    return Node(
        name,
        "linear",
        (source,),
        lambda x: function(x, weight, bias, **settings),
        lambda x: function(x, torch.ones_like(weight), None, **settings),
        folds_into=folds,  # type: ignore[arg-type]
    )


def dense(name: str, source: str, weight: Tensor, bias: Tensor | None, **settings: object) -> Node:
    return Node(
        name,
        "linear",
        (source,),
        lambda x: F.linear(x, weight, bias),
        lambda x: F.linear(x, torch.ones_like(weight)),
        **settings,  # type: ignore[arg-type]
    )


def unary(name: str, source: str, function: Callable[[Tensor], Tensor]) -> Node:
    return Node(name, "pass", (source,), function)


def moves(name: str, sources: str, function: Callable[..., Tensor], kind: str = "move") -> Node:
    return Node(name, kind, tuple(sources.split()), function)


def average(name: str, source: str, function: Callable[[Tensor], Tensor]) -> Node:
    return Node(name, "linear", (source,), function)


def head(source: str, features: int, gen: torch.Generator) -> list[Node]:
    return [
        moves("flat", source, lambda x: x.flatten(1)),
        dense("head", "flat", random(gen, 3, features), random(gen, 3)),
    ]


@case
def plain_convolutions(gen: torch.Generator) -> list[Node]:
    return [
        conv("c1", "x", gen, (4, 3, 3, 3), padding=1, stride=2),
        unary("r1", "c1", F.relu),
        conv("c2", "r1", gen, (2, 4, 2, 2)),
        unary("r2", "c2", F.relu),
        *head("r2", 2 * 4, gen),
    ]


@case
def grouped_dilated(gen: torch.Generator) -> list[Node]:
    return [
        conv("c1", "x", gen, (6, 1, 3, 2), groups=3, dilation=2, padding=(1, 0)),
        unary("g1", "c1", F.gelu),
        conv("c2", "g1", gen, (4, 3, 1, 1), groups=2),
        *head("c2", 4 * 4 * 4, gen),
    ]


@case
def transposed(gen: torch.Generator) -> list[Node]:
    return [
        conv("c1", "x", gen, (3, 2, 3, 3), transposed=True, stride=2, padding=1),
        unary("t1", "c1", torch.tanh),
        *head("t1", 2 * 11 * 11, gen),
    ]


def _normalised(gen: torch.Generator, after: Callable[[Tensor], Tensor]) -> list[Node]:
    mean, gamma, beta = random(gen, 4), random(gen, 4), random(gen, 4)
    variance = random(gen, 4).abs() + 0.5
    return [
        conv("c1", "x", gen, (4, 3, 3, 3), folds_into="bn"),
        Node(
            "bn",
            "pass",
            ("c1",),
            lambda x: F.batch_norm(x, mean, variance, gamma, beta),
            slope=lambda x: gamma.reshape(1, -1, 1, 1).expand(x.shape),
        ),
        unary("a", "bn", after),
        conv("c2", "a", gen, (2, 4, 3, 3)),
        unary("r2", "c2", F.hardswish),
        *head("r2", 2 * 2 * 2, gen),
    ]


@case
def batch_norm_relu(gen: torch.Generator) -> list[Node]:
    return _normalised(gen, F.relu)


@case
def batch_norm_silu(gen: torch.Generator) -> list[Node]:
    return _normalised(gen, F.silu)


@case
def layer_norm_after_permute(gen: torch.Generator) -> list[Node]:
    gamma, beta = random(gen, 4), random(gen, 4)

    def norm(x: Tensor) -> Tensor:
        return F.layer_norm(x, (4,), gamma, beta)

    # The literal version sees permutation and norm as one affine node.
    return [
        conv("c1", "x", gen, (4, 3, 3, 3), folds_into="ln"),
        Node(
            "ln",
            "pass",
            ("c1",),
            lambda x: norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
            slope=lambda x: gamma.reshape(1, -1, 1, 1).expand(x.shape),
        ),
        unary("a", "ln", F.gelu),
        *head("a", 4 * 4 * 4, gen),
    ]


@case
def layer_scale_and_shift(gen: torch.Generator) -> list[Node]:
    scale, shift = random(gen, 5), random(gen, 5)
    return [
        moves("f", "x", lambda x: x.flatten(1)),
        dense("d1", "f", random(gen, 5, 108), None, folds_into="s"),
        Node(
            "s",
            "pass",
            ("d1",),
            lambda x: 2 - (x * scale + shift) / 3,
            slope=lambda x: -scale.expand(x.shape),
        ),
        unary("e", "s", F.elu),
        dense("head", "e", random(gen, 3, 5), random(gen, 3)),
    ]


@case
def averages(gen: torch.Generator) -> list[Node]:
    return [
        average("a1", "x", lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)),
        average("a2", "a1", lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")),
        average("a3", "a2", lambda x: F.adaptive_avg_pool2d(x, (3, 2))),
        conv("c", "a3", gen, (4, 3, 1, 1)),
        average("a4", "c", lambda x: x.mean((2, 3))),
        dense("head", "a4", random(gen, 3, 4), None),
    ]


@case
def sums_over_positions(gen: torch.Generator) -> list[Node]:
    return [
        average("a1", "x", lambda x: x.sum(2, keepdim=True)),
        average("a2", "a1", lambda x: F.adaptive_avg_pool2d(x, 1)),
        *head("a2", 3, gen),
    ]


@case
def maxima(gen: torch.Generator) -> list[Node]:
    return [
        moves("m1", "x", lambda x: F.max_pool2d(x, 3, 2, 1), "max"),
        moves("m2", "m1", lambda x: x.amax(2), "max"),
        moves("m3", "m2", lambda x: x.max(1).values, "max"),
        dense("d", "m3", random(gen, 4, 3), None),
        moves("first", "d", lambda x: x[:, :2]),
        moves("other", "d", lambda x: x[:, 2:]),
        moves("m4", "first other", torch.maximum, "max"),
        dense("head", "m4", random(gen, 3, 2), None),
    ]


@case
def adaptive_maximum(gen: torch.Generator) -> list[Node]:
    return [
        moves("m1", "x", lambda x: F.adaptive_max_pool2d(x, (2, 3)), "max"),
        *head("m1", 18, gen),
    ]


@case
def concatenation_and_shuffle(gen: torch.Generator) -> list[Node]:
    return [
        conv("c1", "x", gen, (2, 3, 3, 3), padding=1),
        conv("c2", "x", gen, (2, 3, 1, 1)),
        unary("r1", "c1", F.leaky_relu),
        moves("cat", "r1 c2 r1", lambda a, b, c: torch.cat([a, b, c], 1)),
        moves("shuffle", "cat", lambda x: x.view(-1, 2, 3, 6, 6).transpose(1, 2).flatten(1, 2)),
        conv("c3", "shuffle", gen, (4, 6, 3, 3)),
        moves("pixels", "c3", lambda x: F.pixel_shuffle(x, 2)),
        *head("pixels", 64, gen),
    ]


MOVES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "roll": (lambda x: x.roll((1, -2), (2, 3)), 108),
    "flip": (lambda x: x.flip(3), 108),
    "constant_pad_nd": (lambda x: F.pad(x, (1, 0, 2, 1)), 3 * 9 * 7),
    "reflection_pad2d": (lambda x: F.pad(x, (1, 1, 2, 2), mode="reflect"), 3 * 10 * 8),
    "replication_pad2d": (lambda x: F.pad(x, (1, 1, 2, 2), mode="replicate"), 3 * 10 * 8),
    "expand": (lambda x: x[:, :, :, :1].expand(-1, -1, -1, 4), 72),
    "repeat": (lambda x: x.repeat(1, 2, 1, 1), 216),
    "index": (lambda x: x[:, [0, 2, 2], :, 1:4], 54),
    "index_select": (lambda x: x.index_select(1, torch.tensor([2, 1])), 72),
    "gather": (lambda x: x.gather(3, torch.zeros(len(x), 3, 6, 2, dtype=torch.int64) + 1), 36),
    "unbind": (lambda x: torch.stack(x.unbind(1)[:2], 3), 72),
    "split": (lambda x: torch.cat(x.split(4, dim=2)[::-1], 2), 108),
    "split_with_sizes": (lambda x: torch.cat(x.split([1, 5], 2)[::-1], 2), 108),
    "select": (lambda x: x[:, 1], 36),
    "unfold": (lambda x: x.unfold(2, 3, 2), 3 * 2 * 6 * 3),
    "im2col": (lambda x: F.unfold(x, 3, stride=2), 27 * 4),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), 108),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 3), 108),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), 432),
    "masked_fill": (lambda x: x.masked_fill(torch.eye(6, dtype=torch.bool), 0.0), 108),
    "where": (lambda x: torch.where(torch.eye(6, dtype=torch.bool), x, 0.0), 108),
    "tril": (lambda x: x.tril(), 108),
    "diagonal": (lambda x: x.diagonal(dim1=2, dim2=3), 18),
    "as_strided": (lambda x: x.as_strided((len(x), 2, 3), (108, 36, 7), 4), 6),
    "swapped": (lambda x: x.movedim(1, -1).transpose(1, 2).unsqueeze(1).squeeze(1), 108),
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name: str) -> None:
    function, features = MOVES[name]
    gen = torch.Generator().manual_seed(1)
    nodes = [
        conv("c", "x", gen, (3, 3, 1, 1)),
        moves("m", "c", function),
        unary("t", "m", torch.tanh),
        *head("t", features, gen),
    ]
    compare(nodes)


@case
def residual_sums(gen: torch.Generator) -> list[Node]:
    return [
        conv("c1", "x", gen, (3, 3, 3, 3), padding=1),
        Node("s1", "sum", ("x", "c1"), lambda a, b: a + b),
        unary("r1", "s1", F.relu),
        conv("c2", "r1", gen, (3, 3, 3, 3), padding=1),
        Node("s2", "sum", ("c2", "r1"), torch.add),
        *head("s2", 108, gen),
    ]


@case
def gates(gen: torch.Generator) -> list[Node]:
    squeeze = random(gen, 4, 4)

    def excite(x: Tensor) -> Tensor:
        return x * torch.sigmoid(F.linear(x.mean((2, 3)), squeeze))[:, :, None, None]

    def old_swish(x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6 * x

    return [
        conv("c1", "x", gen, (4, 3, 3, 3)),
        unary("se", "c1", excite),
        unary("swish", "se", lambda x: x * x.sigmoid()),
        conv("c2", "swish", gen, (4, 4, 1, 1)),
        unary("hard", "c2", old_swish),
        unary("unit", "hard", lambda x: x / x.norm(dim=1, keepdim=True)),
        *head("unit", 64, gen),
    ]


@case
def gated_linear_unit(gen: torch.Generator) -> list[Node]:
    gate = random(gen, 5, 108)
    value = random(gen, 5, 108)
    return [
        moves("f", "x", lambda x: x.flatten(1)),
        # silu(g x) * v x: the gate is frozen, so it is a linear layer with scaled rows.
        dense("d", "f", value, None),
        Node("glu", "pass", ("d", "f"), lambda d, f: F.silu(F.linear(f, gate)) * d),
        dense("head", "glu", random(gen, 3, 5), None),
    ]


def _attend(gen: torch.Generator, mix: Callable[[Tensor, Tensor, Tensor], Tensor]) -> list[Node]:
    wq, wk = random(gen, 4, 3), random(gen, 4, 3)
    frozen: dict[int, Tensor] = {}

    def attend(value: Tensor, tokens: Tensor) -> Tensor:
        return mix(F.linear(tokens, wq), F.linear(tokens, wk), value)

    del frozen
    return [
        moves("t", "x", lambda x: x.flatten(2).transpose(1, 2)[:, :5]),
        dense("v", "t", random(gen, 4, 3), random(gen, 4)),
        Node("a", "linear", ("v", "t"), attend),
        dense("p", "a", random(gen, 3, 4), random(gen, 3)),
        Node("s", "sum", ("t", "p"), torch.add),
        *head("s", 15, gen),
    ]


@case
def attention_kernel(gen: torch.Generator) -> list[Node]:
    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.unsqueeze(1) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=0.3).squeeze(1)

    return _attend(gen, mix)


@case
def attention_kernel_masked(gen: torch.Generator) -> list[Node]:
    bias = random(gen, 5, 5)

    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.unsqueeze(1) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).squeeze(1)

    return _attend(gen, mix)


@case
def attention_kernel_causal(gen: torch.Generator) -> list[Node]:
    def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.unsqueeze(1) for t in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1)

    return _attend(gen, mix)


@case
def attention_by_hand(gen: torch.Generator) -> list[Node]:
    return _attend(gen, lambda q, k, v: (q @ k.mT / 2).softmax(-1) @ v)


@case
def constant_on_the_left(gen: torch.Generator) -> list[Node]:
    weight = random(gen, 4, 6)
    return [
        Node("p", "linear", ("x",), lambda x: weight @ x, lambda x: torch.ones_like(weight) @ x),
        unary("a", "p", F.mish),
        *head("a", 72, gen),
    ]


@case
def units_without_agreeing_input(gen: torch.Generator) -> list[Node]:
    """Positive outputs made by the bias alone share by |w x|."""
    weight = -random(gen, 4, 3, 3, 3).abs()
    return [
        unary("r0", "x", F.relu),
        Node(
            "c",
            "linear",
            ("r0",),
            lambda x: F.conv2d(x, weight, torch.full((4,), 50.0).double()),
            lambda x: F.conv2d(x, torch.ones_like(weight)),
        ),
        unary("r", "c", F.relu),
        *head("r", 64, gen),
    ]


@case
def units_without_input(gen: torch.Generator) -> list[Node]:
    """Inputs of zero share by |w|; weights of zero share evenly."""
    weight = random(gen, 4, 3, 3, 3)
    weight[:2] = 0
    return [
        unary("r0", "x", lambda x: F.relu(x) * 0.0),
        Node(
            "c",
            "linear",
            ("r0",),
            lambda x: F.conv2d(x, weight, torch.full((4,), 5.0).double()),
            lambda x: F.conv2d(x, torch.ones_like(weight)),
        ),
        *head("c", 64, gen),
    ]


def compare(nodes: list[Node], images: Tensor | None = None) -> None:
    """Every layer, marginal and contrastive, for a batch of two and two targets.

    What biases decide is shared for one target, and absorbed for the other.
    """
    if images is None:
        images = random(torch.Generator().manual_seed(5), 2, 3, 6, 6)
    module = DagNetwork(nodes)
    for target, absorb in ((0, False), (2, True)):
        positive = [reference(nodes, image[None], target, absorb=absorb) for image in images]
        dual = [reference(nodes, image[None], target, dual=True, absorb=absorb) for image in images]
        for name in ["x", *(node.name for node in nodes[:-1])]:
            at = None if name == "x" else module.steps[name]
            wanted = torch.stack([r[name] for r in positive])
            if not bool(wanted.any()):
                continue
            found = measured(module, images, target, at, contrastive=False, absorb=absorb)
            found = found.flatten(1)
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12, msg=name)
            wanted = wanted - torch.stack([r[name] for r in dual])
            found = measured(module, images, target, at, contrastive=True, absorb=absorb)
            found = found.flatten(1)
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-12, msg=name)


@pytest.mark.parametrize("name", CASES)
def test_rule_equals_the_literal_version(name: str) -> None:
    compare(CASES[name](torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("kind", ["transposed", "padded", "padded average of a constant"])
def test_units_that_see_no_input_take_no_part(kind: str) -> None:
    """Outputs made of padding or of the holes of a stride are constants: a part of the bias."""
    gen = torch.Generator().manual_seed(8)
    weight, bias = random(gen, 3, 3, 1, 1), random(gen, 3)

    def spread(x: Tensor) -> Tensor:
        if kind == "transposed":
            return F.conv_transpose2d(x, weight, bias, stride=2).tanh()
        if kind == "padded":
            return F.conv2d(x, weight, bias, padding=1).tanh()
        return F.conv2d(F.pad(x, (1, 0, 1, 0), value=2.0), weight, bias).tanh()

    images = random(gen, 2, 3, 4, 4)
    reached = (spread(images) != spread(images + 1)).any(0).any(0).flatten()
    positions = reached.numel()
    rows = random(gen, 5, 3 * positions)
    kept = rows.view(5, 3, positions)[:, :, reached].flatten(1)

    class Net(torch.nn.Module):
        def __init__(self, *, drop: bool) -> None:
            super().__init__()
            self.drop = drop

        def forward(self, images: Tensor) -> Tensor:
            x = spread(images).flatten(2)
            if self.drop:
                return F.linear(x[:, :, reached].flatten(1), kept)
            return F.linear(x.flatten(1), rows)

    for contrastive in (False, True):
        maps = [
            measured(Net(drop=drop), images, 3, None, contrastive=contrastive)
            for drop in (False, True)
        ]
        torch.testing.assert_close(maps[0], maps[1])


def test_attention_literal_version_needs_frozen_weights() -> None:
    """Sanity of the literal version itself: basis vectors leave queries and keys alone."""
    nodes = CASES["attention_by_hand"](torch.Generator().manual_seed(3))
    tokens = random(torch.Generator().manual_seed(2), 1, 5, 3)
    value = random(torch.Generator().manual_seed(4), 1, 5, 4)
    attend = next(node for node in nodes if node.name == "a").run
    torch.testing.assert_close(attend(2 * value, tokens), 2 * attend(value, tokens))


def test_every_rule_is_documented() -> None:
    for name, rule in RULES.items():
        text = rule.propagate.__doc__ or ""
        assert len(text) > 40, name


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, math.nan])
def test_relevance_of_negative_units_is_seen_in_any_layout(layout, value):
    relevance = torch.zeros(3 * 2, 4, 5, 6).contiguous(memory_format=layout).unflatten(0, (3, 2))
    negative = torch.zeros(2, 4, 5, 6, dtype=torch.bool)
    negative[1, 2, 3, 4] = True
    relevance[:, 0] = 7.0  # of positive units
    relevance[2, 1, 2, 3, 4] = value
    parts = dict(split_by_sign(relevance, negative))
    if value == 0:
        assert list(parts) == [1]
        assert parts[1] is relevance
    else:
        expected = torch.zeros_like(relevance)
        expected[2, 1, 2, 3, 4] = value
        torch.testing.assert_close(parts[-1], expected, equal_nan=True)
        torch.testing.assert_close(parts[1] + parts[-1], relevance, equal_nan=True)


def moved_gate(x: Tensor) -> Tensor:
    """Squeeze and excitation whose gate is reshaped and cut before it multiplies."""
    gate = torch.sigmoid(x.mean((2, 3)) @ torch.ones(3, 6))
    return (x * gate.reshape(-1, 2, 3, 1, 1)[:, 0]).flatten(1)


def test_a_moved_gate_is_a_gate_wherever_its_rule_is_written(monkeypatch):
    class Gated(nn.Module):
        def forward(self, x):
            return moved_gate(x)

    images = torch.rand(1, 3, 2, 2, dtype=torch.float32)
    expected = ExcitationBackprop(Gated(), contrastive=False).attribute(images, 0)
    assert expected.flatten().nonzero().flatten().tolist() == [0]  # the gate receives nothing
    for rule in RULES.values():
        monkeypatch.setattr(rule.propagate, "__module__", "a_module_of_another_name")
    assert torch.equal(
        ExcitationBackprop(Gated(), contrastive=False).attribute(images, 0), expected
    )
