import pytest
import torch
from torch import nn

from torchxnn.attribution.effective_weights import (
    EffectiveExcitationBackprop,
    EffectiveUnits,
    effective_weights,
)
from torchxnn.attribution.excitation_backprop.drawn_maps import DrawnMaps
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.attribution.methods import attributor
from torchxnn.attribution.piecewise_linear import between, check_piecewise_linear
from torchxnn.errors import DataError, XNNError


def network(seed, *layers):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*(make() for make in layers)).double().eval()


def below():
    return network(
        0, lambda: nn.Conv2d(3, 6, 3, stride=2), nn.ReLU, nn.Flatten, lambda: nn.Linear(54, 12),
        nn.ReLU,
    )  # fmt: skip


def above():
    return network(1, lambda: nn.Linear(12, 8), nn.ReLU, lambda: nn.Linear(8, 3), nn.ReLU)


def images(count):
    generator = torch.Generator().manual_seed(2)
    return torch.rand(count, 3, 8, 8, generator=generator, dtype=torch.float64)


def test_by_hand():
    units = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    values = [[[1.0, 2.0], [1.0, -1.0]], [0.5, -3.0], [[2.0, 5.0]], [1.0]]
    with torch.no_grad():
        for parameter, value in zip(units.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
    weights, offsets = effective_weights(units, torch.tensor([[1.0, 1.0], [4.0, 0.0]]).double())
    # the second unit is off for the first row, and on for the second one
    assert weights[:, 0].tolist() == [[2.0, 4.0], [7.0, -1.0]]
    assert offsets[:, 0].tolist() == [2.0, -13.0]


def test_units_are_those_of_the_module_and_neighbours_too():
    network, units, batch = below(), above(), images(4)
    effective = EffectiveUnits(network, units, batch)
    assert torch.allclose(effective(batch), units(network(batch)))
    near = batch * (1 + 1e-9)  # no rectifier switches
    assert torch.allclose(effective(near), units(network(near)), rtol=0, atol=1e-12)
    assert not any(parameter.requires_grad for parameter in effective.buffers())


def test_maps_are_those_of_one_linear_layer_per_image():
    network, units, batch = below(), above(), images(3)
    maps = ExcitationBackprop(EffectiveUnits(network, units, batch)).attribute_many(batch, range(3))
    for index, image in enumerate(batch.split(1)):
        weights, offsets = effective_weights(units, network(image).detach())
        linear = nn.Linear(12, 3).double()
        with torch.no_grad():
            linear.weight.copy_(weights[0])
            linear.bias.copy_(offsets[0])
        alone = ExcitationBackprop(nn.Sequential(network, linear)).attribute_many(image, range(3))
        assert torch.allclose(maps[index], alone[0])
    assert float(maps.abs().sum()) > 0


def test_a_linear_module_has_its_own_weights():
    linear = nn.Linear(12, 3).double()
    z = torch.rand(2, 12, dtype=torch.float64)
    weights, offsets = effective_weights(linear, z)
    assert torch.allclose(weights, linear.weight.expand(2, 3, 12))
    assert torch.allclose(offsets, linear.bias.expand(2, 3))


def test_maps_of_a_layer_are_refused():
    with pytest.raises(DataError, match=r"vectors \(B, S_z\), got activations of shape \(1, 4, 2"):
        effective_weights(nn.Identity(), torch.zeros(1, 4, 2, 2))


def whole():
    return nn.Sequential(below(), above()).eval()


def test_the_method_draws_any_batch_and_any_targets():
    model, batch = whole(), images(5)
    method = EffectiveExcitationBackprop(model, layer="0")
    expected = ExcitationBackprop(EffectiveUnits(below(), above(), batch)).attribute_many(
        batch, range(3)
    )
    assert torch.allclose(method.attribute_many(batch, [0, 1, 2]), expected)
    assert torch.allclose(method.attribute_many(batch[3:], [2, 0]), expected[3:, [2, 0]])
    each = torch.tensor([0, 2, 1, 1, 0])
    assert torch.allclose(method.attribute(batch, each), expected[torch.arange(5), each])


def test_the_certificate_names_the_method_and_the_contrast_mass():
    batch = images(2)
    method = EffectiveExcitationBackprop(whole(), layer="0")
    maps, certificate = method.attribute_many(batch, [0, 1, 2], return_certificate=True)
    assert certificate.method == "excitation_backprop_effective"
    assert certificate.conservation_error < 1e-9
    mass = maps.clamp(min=0).sum((2, 3))
    off = whole()(batch) == 0
    for target, found in enumerate(certificate.contrast_mass):
        there = mass[~off[:, target], target]
        assert found == (pytest.approx(float(there.min())) if len(there) else None)


def test_parts_of_a_batch_put_together_keep_their_method_and_mass():
    method = EffectiveExcitationBackprop(whole(), layer="0")
    parts = [method.draw(each, torch.tensor([[0, 2]]), True) for each in images(2).split(1)]
    both = DrawnMaps.cat(parts)
    assert both.certificate().method == "excitation_backprop_effective"
    masses = torch.cat([part.contrast_mass for part in parts])
    assert torch.allclose(both.contrast_mass, masses, equal_nan=True)


def test_marginal_maps_have_no_contrast_mass():
    method = EffectiveExcitationBackprop(whole(), layer="0", contrastive=False)
    maps, certificate = method.attribute(images(1), 0, return_certificate=True)
    assert certificate.contrast_mass is None
    assert float(maps.sum()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("bend", "named"), [(nn.GELU(), "gelu"), (nn.Softmax(1), "softmax"), (nn.Sigmoid(), "sigmoid")]
)
def test_what_bends_is_refused_by_name(bend, named):
    model = nn.Sequential(below(), nn.Linear(12, 8).double(), bend, nn.Linear(8, 3).double())
    with pytest.raises(XNNError, match=f"not piecewise linear .*'{named}'.*use excitation_backp"):
        EffectiveExcitationBackprop(model, layer="0").attribute(images(1), 0)
    smooth_below = nn.Sequential(below(), bend, nn.Linear(12, 3).double())
    maps = EffectiveExcitationBackprop(smooth_below, layer="1")
    with pytest.raises(XNNError, match="needs the layer"):
        attributor("excitation_backprop_effective", smooth_below)
    maps.check(images(1))  # what is below the layer may bend


class Past(nn.Module):
    """Reads the image past its layer."""

    def __init__(self):
        super().__init__()
        self.low, self.high = below(), nn.Linear(12, 3).double()

    def forward(self, images):
        return self.high(self.low(images)) + images.mean((1, 2, 3)).unsqueeze(1)


def test_a_way_past_the_layer_is_refused():
    with pytest.raises(XNNError, match="read the image past layer 'low'"):
        EffectiveExcitationBackprop(Past().eval(), layer="low").attribute(images(2), 0)


def straight(make):
    z = torch.rand(2, 6, requires_grad=True)
    check_piecewise_linear(make(z), z)


@pytest.mark.parametrize(
    "make",
    [
        lambda z: z * torch.tensor(2.0) + z.abs(),
        lambda z: z / 3,
        lambda z: nn.BatchNorm1d(6).eval()(z).clamp(0, 1),
        lambda z: torch.where(z > 0.5, z, 2 * z).view(2, 3, 2).amax(2),
        lambda z: z * (z > 0.5).float(),
    ],
)
def test_kinks_are_allowed(make):
    straight(make)


@pytest.mark.parametrize(
    "make",
    [
        lambda z: z * z,
        lambda z: 1 / z,
        lambda z: z / z.sum(1, keepdim=True),
        lambda z: nn.BatchNorm1d(6)(z),
        lambda z: nn.LayerNorm(6)(z),
        lambda z: z.exp(),
    ],
)
def test_bends_are_not(make):
    with pytest.raises(XNNError, match="not piecewise linear"):
        straight(make)


def test_nothing_between_is_said():
    z = torch.rand(2, 3, requires_grad=True)
    assert between(torch.rand(2, 3), z) == {}
    with pytest.raises(XNNError, match="do not depend"):
        check_piecewise_linear(torch.rand(2, 3), z)
