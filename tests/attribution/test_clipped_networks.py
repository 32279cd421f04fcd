"""DeepLIFT and guided backprop through ReLU6 and hardtanh: literal second versions."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchxnn.attribution import DeepLift, GuidedBackprop

SIZES = (12, 9, 8, 2)


class Clipped(nn.Module):
    """Fully connected layers, with ReLU6 and hardtanh as modules, as functions, or as `clamp`."""

    def __init__(self, form):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(*size) for size in pairwise(SIZES)).double()
        for layer in self.layers:
            layer.weight.data.normal_(0, 1.5, generator=generator)
            layer.bias.data.normal_(0, 1, generator=generator)
        modules = nn.ReLU6(inplace=True), nn.Hardtanh(-0.5, 0.7)
        self.cuts = {
            "modules": modules,
            "functions": (F.relu6, lambda x: F.hardtanh(x, -0.5, 0.7)),
            "clamp": (lambda x: x.clamp(0, 6), lambda x: torch.clamp(x, min=-0.5, max=0.7)),
        }[form]

    def forward(self, images):
        hidden = self.layers[0](images.flatten(1))
        for cut, layer in zip(self.cuts, self.layers[1:], strict=True):
            hidden = layer(cut(hidden))
        return hidden


def cut(x, low, high):
    return min(max(x, low), high)


BOUNDS = ((0.0, 6.0), (-0.5, 0.7))


def activations(net, image):
    """What goes into the two cuts, as lists of numbers."""
    before, hidden = [], image.flatten().tolist()
    for layer, bounds in zip(net.layers, (*BOUNDS, None), strict=True):
        rows = zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
        given = hidden
        hidden = [sum(w * h for w, h in zip(row, given, strict=True)) + b for row, b in rows]
        if bounds is not None:
            before.append(hidden)
            hidden = [cut(value, *bounds) for value in hidden]
    return before, hidden


def down(net, factors, target):
    """Multipliers of the input: those of the layers, and one factor per cut unit."""
    multipliers = net.layers[2].weight[target].tolist()
    for layer, factor in zip((net.layers[1], net.layers[0]), factors[::-1], strict=True):
        multipliers = [factor(unit, m) for unit, m in enumerate(multipliers)]
        columns = zip(*layer.weight.tolist(), strict=True)
        multipliers = [sum(m * w for m, w in zip(multipliers, c, strict=True)) for c in columns]
    return multipliers


@pytest.fixture
def images():
    return torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(1)).double() * 1.5


@pytest.mark.parametrize("form", ["modules", "functions", "clamp"])
def test_deep_lift_is_the_rescale_rule_and_adds_up(form, images):
    net, baseline = Clipped(form), torch.full((3, 1, 1), 0.2).double()
    maps, certificate = DeepLift(net, baseline=baseline).attribute_many(images, [0, 1], True)
    assert certificate.completeness_error < 1e-10
    start, values = activations(net, baseline.expand(3, 2, 2))
    for image, both in zip(images, maps, strict=True):
        before, outputs = activations(net, image)
        assert any(v > 6 for v in before[0]) or any(v > 0.7 for v in before[1])

        def rescaled(level, b=before):
            def factor(unit, m):
                x, x0 = b[level][unit], start[level][unit]
                return m * (cut(x, *BOUNDS[level]) - cut(x0, *BOUNDS[level])) / (x - x0)

            return factor

        for target in (0, 1):
            found = torch.tensor(down(net, [rescaled(0), rescaled(1)], target), dtype=torch.float64)
            expected = (found.reshape(3, 2, 2) * (image - baseline)).sum(0)
            torch.testing.assert_close(both[target], expected)
            delta = outputs[target] - values[target]
            assert float(both[target].sum()) == pytest.approx(delta)


@pytest.mark.parametrize("form", ["modules", "functions", "clamp"])
def test_guided_backprop_cuts_negative_gradients_and_stops_where_values_are_cut(form, images):
    net = Clipped(form)
    maps = GuidedBackprop(net).attribute_many(images, [0, 1])
    for image, both in zip(images, maps, strict=True):
        before, _ = activations(net, image)

        def guided(level, b=before):
            low, high = BOUNDS[level]
            return lambda unit, m: max(m, 0.0) if low < b[level][unit] < high else 0.0

        for target in (0, 1):
            found = torch.tensor(down(net, [guided(0), guided(1)], target), dtype=torch.float64)
            torch.testing.assert_close(both[target], found.reshape(3, 2, 2).sum(0))
