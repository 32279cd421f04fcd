import pytest
import torch
from torch import nn

from torchxnn.attribution.effective_weights import EffectiveUnits, effective_weights
from torchxnn.attribution.excitation_backprop.method import ExcitationBackprop
from torchxnn.errors import DataError


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
