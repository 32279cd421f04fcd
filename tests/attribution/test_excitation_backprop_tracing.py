"""In-place operations and views: the map equals that of the same network without them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reference_ebp import measured
from torchxnn.attribution import ExcitationBackprop
from torchxnn.errors import UnsupportedOperationError


class Net(nn.Module):
    """A function between two layers; `forward` hands it the feature maps and a convolution."""

    def __init__(self, body: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.first = nn.Conv2d(3, 4, 3, padding=1).double()
        self.inner = nn.Conv2d(4, 4, 3, padding=1).double()
        self.head = nn.Linear(4 * 36, 3).double()
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.body = body

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.first(images), self.inner).flatten(1))


def slice_add_(x, inner):
    y = inner(x)
    x[:, :2] += y[:, :2]
    return x


def slice_add(x, inner):
    return torch.cat([x[:, :2] + inner(x)[:, :2], x[:, 2:]], 1)


def relu_of_a_view_(x, inner):
    F.relu(x.view(x.shape[0], -1), inplace=True)
    return inner(x)


def relu_before(x, inner):
    return inner(F.relu(x))


def read_after_add_(x, inner):
    y = inner(x)
    x += y  # the convolution above must keep the old x
    return x.relu_()


def read_after_add(x, inner):
    return F.relu(x + inner(x))


def old_view_read_after_write_(x, inner):
    view = x[:, 1:3]
    x.relu_()
    return torch.cat([view, inner(x)[:, :2]], 1)


def old_view_read_after_write(x, inner):
    x = F.relu(x)
    return torch.cat([x[:, 1:3], inner(x)[:, :2]], 1)


def assign_into_zeros_(x, inner):
    result = torch.zeros_like(x)
    for index in range(4):
        result[:, index] = x[:, 3 - index]
    result[:, :, 0] = inner(x)[:, :, 0]
    return result


def assign_into_zeros(x, inner):
    return torch.cat([inner(x)[:, :, :1], x.flip(1)[:, :, 1:]], 2)


def chunks_(x, inner):
    a, b = x[:, :2], x[:, 2:]
    b.mul_(0.5)
    a.add_(b)
    return inner(x)


def chunks(x, inner):
    a, b = x.chunk(2, 1)
    return inner(torch.cat([a + 0.5 * b, 0.5 * b], 1))


def transposed_(x, inner):
    y = x.permute(0, 2, 3, 1)
    y[..., 0].clamp_(min=0)
    y.unsqueeze_(0).squeeze_(0)
    return inner(y.permute(0, 3, 1, 2))


def transposed(x, inner):
    return inner(torch.cat([F.relu(x[:, :1]), x[:, 1:]], 1))


def through_data_(x, inner):
    x.data.relu_()
    return inner(x)


def overwritten_(x, inner):
    y = inner(x)
    x.zero_()
    x.copy_(y[:, :1])
    x[:, 0].fill_(3.0)
    return x


def overwritten(x, inner):
    y = inner(x)[:, :1].expand(-1, 3, -1, -1)
    return torch.cat([torch.full_like(y[:, :1], 3.0), y], 1)


def constant_changed_later_(x, inner):
    factor = torch.full((1, 4, 1, 1), -2.0, dtype=x.dtype)
    weight = torch.eye(4, dtype=x.dtype)[:, :, None, None] * factor
    y = F.conv2d(x, weight)
    weight.mul_(-1.0).add_(0.5)  # the recorded convolution must keep the old weights
    return y.relu()


def constant_not_changed(x, inner):
    return F.relu(F.conv2d(x, -2.0 * torch.eye(4, dtype=x.dtype)[:, :, None, None]))


def out_index_put_(x, inner):
    y = inner(x)
    x[:, torch.tensor([0, 3])] = y[:, torch.tensor([1, 2])]
    return x


def out_index_put(x, inner):
    y = inner(x)
    return torch.stack([y[:, 1], x[:, 1], x[:, 2], y[:, 2]], 1)


PAIRS = [
    (slice_add_, slice_add),
    (relu_of_a_view_, relu_before),
    (read_after_add_, read_after_add),
    (old_view_read_after_write_, old_view_read_after_write),
    (assign_into_zeros_, assign_into_zeros),
    (chunks_, chunks),
    (transposed_, transposed),
    (through_data_, relu_before),
    (overwritten_, overwritten),
    (constant_changed_later_, constant_not_changed),
    (out_index_put_, out_index_put),
]


@pytest.mark.parametrize(("changing", "pure"), PAIRS, ids=lambda body: body.__name__)
@pytest.mark.parametrize("contrastive", [False, True])
def test_in_place_equals_pure(changing, pure, contrastive):
    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(4)).double()
    nets = Net(changing), Net(pure)
    torch.testing.assert_close(nets[0](images), nets[1](images))
    for at in ("first", None):
        maps = [measured(net, images, 1, at and net.first, contrastive=contrastive) for net in nets]
        torch.testing.assert_close(maps[0], maps[1])
    assert not torch.allclose(maps[0], torch.zeros(()).double())


def test_layer_output_changed_in_place_afterwards_keeps_its_relevance():
    def body(x, inner):
        y = inner(x)
        return y.relu_()

    images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(4)).double()
    net = Net(body)
    maps = ExcitationBackprop(net, contrastive=False, stop_at="inner").attribute(images, 0)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(2).double())


def test_refusal_names_operation_module_and_line():
    class Odd(nn.Module):
        def forward(self, x):
            return x.cumsum(1)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 2, 1), Odd())
            self.head = nn.Linear(2 * 16, 2)

        def forward(self, x):
            return self.head(self.stem(x).flatten(1))

    with pytest.raises(UnsupportedOperationError, match=r"aten\.cumsum.* in stem\.1") as caught:
        ExcitationBackprop(Model()).attribute(torch.rand(1, 3, 4, 4), 0)
    assert "test_excitation_backprop_tracing.py:" in str(caught.value)


def test_operation_without_rule_beside_the_path_does_not_matter():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            self.head = nn.Linear(2, 2)

        def forward(self, x):
            x = self.conv(x)
            gate = torch.sigmoid(x.cumsum(1).var(1, keepdim=True))
            return self.head((x.exp() * gate).mean((2, 3)))

    torch.manual_seed(0)
    maps = ExcitationBackprop(Model(), contrastive=False).attribute(torch.rand(2, 3, 4, 4), 0)
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(2))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (lambda x, inner: x * inner(x), "gate"),
        (lambda x, inner: x @ inner(x), "gate"),
        (lambda x, inner: 1 / (x.abs() + 2) + x, r"divides|reciprocal"),
        (lambda x, inner: F.conv2d(x, inner(x)[:1, :, :3, :3].expand(4, -1, -1, -1), padding=1),
         "weights depend"),
        (lambda x, inner: x.flatten(1).softmax(1), "logits"),
        (lambda x, inner: torch.add(x, inner(x), out=torch.empty_like(x)), "add.out"),
    ],
)  # fmt: skip
def test_refused(body, match):
    images = torch.randn(2, 3, 6, 6).double()
    with pytest.raises(UnsupportedOperationError, match=match):
        measured(Net(body), images, 0, None, contrastive=False)


def test_attention_modules_do_not_escape_into_fused_kernels():
    """The fast path of `nn.TransformerEncoderLayer` is one opaque kernel."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 2, 2)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.attention = nn.MultiheadAttention(8, 2)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            x = self.encoder(self.embed(x).flatten(2).transpose(1, 2)).transpose(0, 1)
            return self.head(self.attention(x, x, x)[0].mean(0))

    method = ExcitationBackprop(Model().eval(), contrastive=False)
    maps, certificate = method.attribute(torch.rand(2, 3, 8, 8), 1, return_certificate=True)
    assert certificate.conservation_error < 1e-5
    assert float(maps.min()) >= 0
