"""The share of relevance that met a fallback: by hand, and by a walk along every single path."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import nn

from torchxnn.attribution import ExcitationBackprop
from torchxnn.attribution.excitation_backprop.rules.table import RULES
from torchxnn.errors import AttributionWarning

MODES = [(contrastive, certify) for contrastive in (False, True) for certify in (False, True)]


def measured(module, images, targets, contrastive, certify, undecided="share"):
    """The library's share of every image by itself."""
    method = ExcitationBackprop(module, contrastive=contrastive, undecided=undecided)
    each = torch.tensor([targets] * len(images))
    return method._run(images, [each], [certify])[0].fallback_share


def linear(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return layer


@pytest.mark.parametrize(("contrastive", "certify"), MODES)
def test_two_hidden_layers_by_hand(contrastive, certify):
    """x = (1, 2), h = (1, 3), z = (4, 2); the biases of h_2 and z_2 outweigh all that they see.

    z_1 gets 4/5 and z_2 1/5, which met a fallback there. Of both 1/4 goes to h_1 and 3/4 to h_2, so
    h_2 shares out 3/4 by its fallback, but of these 1/5 * 3/4 had met one before: the share is
    1/5 + 4/5 * 3/4 = .8, and not the sum 1/5 + 3/4 = .95.
    """
    module = nn.Sequential(
        nn.Flatten(),
        linear([[1.0, 0.0], [-1.0, -1.0]], [0.0, 6.0]),
        nn.ReLU(),
        linear([[1.0, 1.0], [-1.0, -1.0]], [0.0, 6.0]),
        nn.ReLU(),
        linear([[1.0, 0.5], [1.0, -1.0]], [0.0, 0.0]),
    )
    images = torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2)
    assert measured(module, images, [0], contrastive, certify).tolist() == pytest.approx([0.8])


class Branches(nn.Module):
    """Two branches that join by a sum; units of one or of both may be decided by their biases."""

    def __init__(self, seed, bias):
        super().__init__()
        sizes = {"first": (4, 3), "long": (3, 3), "short": (4, 3), "last": (3, 2)}
        self.layers = nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()})
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers.values():
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) - bias / 6
            layer.bias.data = bias * torch.rand(layer.bias.shape, generator=generator)
        self.layers["last"].weight.data.abs_()

    def forward(self, images):
        layers, x = self.layers, images.flatten(1)
        hidden = torch.relu(layers["first"](x))
        joined = torch.relu(layers["long"](hidden)) + torch.relu(layers["short"](x))
        return layers["last"](joined)


def paths(module, x, target):
    """The share of all paths from the target down to x, by their probabilities, one by one."""
    layers = module.layers
    hidden = torch.relu(layers["first"](x))
    branches = {"long": torch.relu(layers["long"](hidden)), "short": torch.relu(layers["short"](x))}
    inputs = {"first": x, "long": hidden, "short": x, "last": branches["long"] + branches["short"]}

    def below(name, unit, chance, met):
        """Probability of the paths on from a unit that meet a fallback there, below, or before."""
        if chance == 0:
            return 0.0
        given, weight = inputs[name], layers[name].weight[unit]
        odds = (weight * given).clamp(min=0)
        if float(odds.sum()) <= 0:
            met, odds = True, (weight * given).abs()
            odds = odds if float(odds.sum()) > 0 else weight.abs()
        found = 0.0
        for index, odd in enumerate((odds / odds.sum() * chance).tolist()):
            if name == "last":
                for branch, value in branches.items():
                    part = odd * float(value[index] / given[index]) if odd else 0.0
                    found += below(branch, index, part, met)
            elif name == "long":
                found += below("first", index, odd, met)
            else:
                found += odd * met
        return found

    return below("last", target, 1.0, False)


@pytest.mark.parametrize(("contrastive", "certify"), MODES)
@pytest.mark.parametrize("bias", [0.0, 6.0])
def test_the_share_is_that_of_all_paths(bias, contrastive, certify):
    images = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    found, expected = [], []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)
        for seed in range(4):
            module = Branches(seed, bias).double()
            shares = measured(module, images, [0], contrastive, certify)
            ended = measured(module, images, [0], contrastive, certify, "absorb")
            torch.testing.assert_close(shares, ended, atol=1e-12, rtol=0)
            found += shares.tolist()
            expected += [paths(module, image.flatten(), 0) for image in images]
    assert found == pytest.approx(expected, abs=1e-12)
    assert max(expected) <= 1 + 1e-12
    assert (max(expected) > 0.1) == (bias > 0)


@pytest.mark.parametrize("targets", [[1], [0, 1]])
@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
def test_a_certificate_changes_no_map(targets):
    """Differences, witness and clean part are carried beside each other where a fallback is met."""
    module = Branches(1, 6.0).double()
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    method = ExcitationBackprop(module)
    each = torch.tensor([targets] * len(images))
    plain, certified = (method.draw(images, each, certify) for certify in (False, True))
    assert float(plain.fallback_share.max()) > 0.1
    assert torch.equal(plain.maps, certified.maps)
    assert torch.equal(plain.fallback_shares, certified.fallback_shares)
    assert certified.conservation_error < 1e-12
    met = {layer.layer: layer.fallback_share for layer in method.certify_layers(images, targets)}
    assert max(met.values()) <= float(plain.fallback_share.max()) + 1e-12
    assert max(met.values()) > 0.1


@pytest.mark.parametrize("loss", [1e-5, 0.1])
@pytest.mark.filterwarnings("ignore::torchxnn.errors.AttributionWarning")
def test_what_is_lost_where_a_fallback_is_met_is_told(loss):
    """A small loss by the witness, of all targets together; a large one of each by itself."""
    module = Branches(1, 6.0).double()
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    rule = RULES["relu"]

    def lossy(operation, relevance, walk):
        return [
            (value, (1 - loss) * share)
            for value, share in rule.propagate(operation, relevance, walk)
        ]

    RULES["relu"] = replace(rule, propagate=lossy)
    try:
        _, certificate = ExcitationBackprop(module).attribute_many(images, [0, 1], True)
    finally:
        RULES["relu"] = rule
    once, twice = loss, 1 - (1 - loss) ** 2  # by the short branch and by the long one
    least, most = (once, twice) if loss > 1e-4 else (2 * once, 2 * twice)
    assert least * 0.999 <= certificate.conservation_error <= most * 1.001
