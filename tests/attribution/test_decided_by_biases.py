"""Units that their biases decided: relevance is shared by size, or ends there."""

import warnings

import pytest
import torch
from torch import nn

from torchxnn.attribution import EffectiveExcitationBackprop, ExcitationBackprop
from torchxnn.errors import AttributionWarning, XNNError

MODES = [(contrastive, certify) for contrastive in (False, True) for certify in (False, True)]


def linear(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    return layer


def three_hidden():
    """h = (x_1, 6 - x_1 - x_2, x_2); the bias decides the second. One output speaks for the first
    two and against the third, the other is the second alone."""
    return nn.Sequential(
        nn.Flatten(),
        linear([[1.0, 0.0], [-1.0, -1.0], [0.0, 1.0]], [0.0, 6.0, 0.0]),
        nn.ReLU(),
        linear([[1.0, 1.0, -1.0], [0.0, 1.0, 0.0]], [0.0, 0.0]),
    )


def drawn(method, images, targets, certify=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttributionWarning)
        return method.draw(images, torch.tensor([targets]).expand(len(images), -1), certify)


IMAGE = torch.tensor([1.0, 2.0]).reshape(1, 1, 1, 2)


@pytest.mark.parametrize(("contrastive", "certify"), MODES)
def test_what_is_left_is_scaled(contrastive, certify):
    """x = (1, 2), h = (1, 3, 2): the unit gives 1/4 to h_1, 3/4 end at h_2; the dual all to h_3."""
    found = drawn(
        ExcitationBackprop(three_hidden(), contrastive=contrastive, undecided="absorb"),
        IMAGE,
        [0],
        certify,
    )
    expected = [1.0, -1.0] if contrastive else [1.0, 0.0]
    assert found.maps.flatten().tolist() == pytest.approx(expected)
    assert found.fallback_shares.tolist() == [[pytest.approx(0.75)]]
    assert found.conservation_error < 1e-6


@pytest.mark.parametrize(("contrastive", "certify"), MODES)
def test_shared_by_size(contrastive, certify):
    """h_2 shares its 3/4 by |w x| = (1, 2): x_1 gets 1/4 + 1/4, x_2 1/2 and the dual's 1."""
    method = ExcitationBackprop(three_hidden(), contrastive=contrastive)
    found = drawn(method, IMAGE, [0], certify)
    expected = [0.5, -0.5] if contrastive else [0.5, 0.5]
    assert found.maps.flatten().tolist() == pytest.approx(expected)
    assert found.fallback_shares.tolist() == [[pytest.approx(0.75)]]
    assert found.conservation_error < 1e-6


@pytest.mark.parametrize(("contrastive", "certify"), MODES)
def test_where_nothing_is_left_the_map_is_zero_and_says_so(contrastive, certify):
    method = ExcitationBackprop(three_hidden(), contrastive=contrastive, undecided="absorb")
    found = drawn(method, IMAGE, [0, 1], certify)
    assert found.maps[0, 1].abs().max() == 0
    assert found.fallback_shares.tolist() == [[pytest.approx(0.75), pytest.approx(1.0)]]
    assert found.conservation_error < 1e-6
    with pytest.warns(AttributionWarning, match="100% of the relevance met units that"):
        method.attribute(IMAGE, 1)


class Maps(nn.Module):
    """The same hidden units as channels of a convolution, and a second convolution above."""

    def __init__(self):
        super().__init__()
        below, above = three_hidden()[1], three_hidden()[3]
        self.below, self.above = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1)
        self.below.weight.data = below.weight.data.reshape(3, 2, 1, 1)
        self.below.bias.data = below.bias.data
        self.above.weight.data = torch.eye(3).reshape(3, 3, 1, 1)
        self.above.weight.data[1] *= -1
        self.above.bias.data = torch.tensor([0.0, 9.0, 0.0])
        self.last = above

    def forward(self, images):
        hidden = self.above(torch.relu(self.below(images)))
        return self.last(torch.relu(hidden).flatten(1))


@pytest.mark.parametrize(("contrastive", "certify"), MODES)
def test_at_a_layer_what_ended_above_it_is_made_up_for(contrastive, certify):
    """Above: (1, 6, 2), of which the bias decides the second: 1/7 reaches h_1 and no other."""
    settings = {"contrastive": contrastive, "stop_at": "below", "channel_dim": 2}
    method = ExcitationBackprop(Maps(), **settings, undecided="absorb")
    found = drawn(method, IMAGE.reshape(1, 2, 1, 1), [0], certify)
    expected = [1.0, 0.0, -1.0] if contrastive else [1.0, 0.0, 0.0]
    assert found.maps.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert found.fallback_shares.tolist() == [[pytest.approx(6 / 7)]]


@pytest.mark.parametrize(("contrastive", "certify"), MODES)
def test_a_target_that_its_own_bias_decides_shares(contrastive, certify):
    """Nothing speaks for the target, so all of its map rests on sizes, and counts as that."""
    module = nn.Sequential(nn.Flatten(), linear([[-1.0, -1.0]], [9.0]))
    method = ExcitationBackprop(module, contrastive=contrastive, undecided="absorb")
    found = drawn(method, IMAGE, [0], certify)
    expected = [1 / 3, 2 / 3]
    if contrastive:  # the dual agrees with all
        expected = [0.0, 0.0]
    assert found.maps.flatten().tolist() == pytest.approx(expected)
    assert found.fallback_shares.tolist() == [[pytest.approx(1.0)]]


def test_images_are_scaled_one_by_one():
    """Beside an image without such units, and in batches of any size."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 1, 2, generator=generator) * 5  # the bias decides some of them
    for contrastive, certify in MODES:
        method = ExcitationBackprop(three_hidden(), contrastive=contrastive, undecided="absorb")
        whole = drawn(method, images, [0], certify)
        alone = torch.cat([drawn(method, image[None], [0], certify).maps for image in images])
        torch.testing.assert_close(whole.maps, alone)
        assert len(set(whole.fallback_share.tolist())) > 3
        sums = whole.maps.sum((1, 2, 3))
        torch.testing.assert_close(sums, torch.full((6,), float(not contrastive)))


def test_effective_weights_take_the_setting():
    module = nn.Sequential(*three_hidden(), nn.ReLU(), linear([[1.0, 0.0]], [0.0]))
    for undecided, expected in (("absorb", [1.0, -1.0]), ("share", [0.5, -0.5])):
        method = EffectiveExcitationBackprop(module, layer="2", undecided=undecided)
        found = drawn(method, IMAGE, [0])
        assert found.maps.flatten().tolist() == pytest.approx(expected)
        assert found.fallback_shares.tolist() == [[pytest.approx(0.75)]]


def test_another_word_is_refused():
    with pytest.raises(XNNError, match="undecided is 'sink'; it must be share or absorb"):
        ExcitationBackprop(three_hidden(), undecided="sink")


def test_the_certificate_tells_the_share_of_every_target():
    images = torch.cat([IMAGE, IMAGE.flip(3)])  # h = (1, 3, 2) and (2, 3, 1)
    with pytest.warns(AttributionWarning, match="100%"):
        _, certificate = ExcitationBackprop(three_hidden()).attribute_many(images, [0, 1], True)
    assert certificate.fallback_shares == (pytest.approx(0.75), pytest.approx(1.0))
    assert certificate.fallback_share == pytest.approx(1.0)
