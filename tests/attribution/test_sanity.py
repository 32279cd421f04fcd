import pytest
import torch
from torch import nn

from conftest import make_images, make_net
from torchxnn.attribution import ExcitationBackprop
from torchxnn.attribution.sanity import (
    layers_from_the_top,
    mean_rank_correlation,
    randomize,
    randomize_from_the_top,
)
from torchxnn.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")


def test_order_is_from_the_last_to_run():
    assert layers_from_the_top(make_net(), make_images(1)[0]) == [
        "classifier.3",
        "classifier.0",
        "features.1",
        "features.0",
    ]


def test_order_counts_a_reused_module_by_its_last_run_and_idle_ones_last():
    class Reusing(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle = nn.Linear(2, 2)
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            return self.a(self.b(self.a(x)))

    assert layers_from_the_top(Reusing(), torch.zeros(1, 2)) == ["a", "b", "idle"]


def test_randomize_keeps_mean_and_spread():
    layer = nn.Linear(100, 100)
    layer.weight.data.mul_(3).add_(1)
    before = layer.weight.detach().clone()
    randomize(layer, torch.Generator().manual_seed(0))
    assert not torch.equal(layer.weight, before)
    assert float(layer.weight.detach().mean()) == pytest.approx(float(before.mean()), abs=0.02)
    assert float(layer.weight.detach().std()) == pytest.approx(float(before.std()), rel=0.05)


def test_maps_that_depend_on_the_weights_change_and_others_do_not():
    net, images = make_net(), make_images(4)[0]
    before = {key: value.clone() for key, value in net.state_dict().items()}

    def excitation(model):
        return ExcitationBackprop(model).attribute_many(images, [0, 1])

    steps = list(randomize_from_the_top(net, images, excitation))
    assert [step.layer for step in steps][:2] == ["", "classifier.3"]
    assert len(steps) == 5
    assert steps[0].correlation == 1.0
    assert steps[-1].correlation < 0.7
    assert all(torch.equal(net.state_dict()[key], before[key]) for key in before)

    edges = [s.correlation for s in randomize_from_the_top(net, images, lambda _: images[:, :2])]
    assert edges == pytest.approx([1.0] * 5)


def test_the_same_seed_gives_the_same_destruction():
    net, images = make_net(), make_images(2)[0]

    def draw(model):
        return ExcitationBackprop(model).attribute_many(images, [0])

    def run(seed):
        return [s.correlation for s in randomize_from_the_top(net, images, draw, seed=seed)]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_rank_correlation_by_hand():
    a = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 2, 2)
    assert mean_rank_correlation(a, a.square()) == pytest.approx(1)
    assert mean_rank_correlation(a, -a) == pytest.approx(-1)
    swapped = torch.tensor([2.0, 1.0, 3.0, 4.0]).reshape(1, 1, 2, 2)
    assert mean_rank_correlation(a, swapped) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert mean_rank_correlation(a, torch.zeros_like(a)) == 0.0


def test_nothing_to_destroy():
    with pytest.raises(ModelError, match="no parameters"):
        list(randomize_from_the_top(nn.Flatten(), torch.zeros(1, 2), lambda _: torch.zeros(1)))
