"""The differentiable relevance on Z is that of excitation backprop."""

import pytest
import torch
from torch import nn

from torchxnn.attribution import ExcitationBackprop
from torchxnn.attribution.effective_weights import EffectiveUnits
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import XNNError
from torchxnn.training.losses import pull_away
from torchxnn.training.objective import overlap_terms
from torchxnn.training.relevance import relevance_moments, relevance_through
from torchxnn.training.stacked import Stack


class OnPixels(nn.Module):
    """Z are the pixels, so a heatmap is the relevance on Z."""

    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding

    def forward(self, images):
        return self.embedding(images.flatten(1))


def make(seed=0, nonnegative=True):
    torch.manual_seed(seed)
    embedding = SRAE(12, 3, hidden=(9, 6), nonnegative=nonnegative).double()
    embedding.scale.fill_(2.5)
    return embedding


def relevance_of(embedding, z):
    layers = list(embedding.encoder)
    weights, biases = [each.weight for each in layers], [each.bias for each in layers]
    return relevance_through(weights, biases, z / embedding.scale)


def test_it_is_what_the_default_maps_of_x_features_say_of_z():
    embedding = make()
    z = torch.rand(4, 12).double()
    found = relevance_of(embedding, z)
    images = z.reshape(4, 1, 3, 4)
    on_pixels = EffectiveUnits(lambda given: given.flatten(1), embedding, images)
    maps = ExcitationBackprop(on_pixels).attribute_many(images, range(3)).flatten(2)
    alive = embedding(z) > 0  # the ReLU of an x-feature that is off counts as on in the loss alone
    assert alive.sum() >= 4
    expected = maps.clamp(min=0)
    expected = expected / expected.sum(2, keepdim=True)
    torch.testing.assert_close(found[alive], expected[alive])


def test_by_hand():
    weights = [torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[1.0, 2.0], [-1.0, 1.0]])]
    biases = [torch.tensor([0.0, -3.0]), torch.zeros(2)]
    # the second hidden unit is off (2 + 0.5 - 3 < 0): J = [[1, -1], [-1, 1]], z = (2, .5)
    found = relevance_through(weights, biases, torch.tensor([[2.0, 0.5]]))
    assert found.tolist() == [[[1.0, 0.0], [0.0, 1.0]]]


def test_rows_are_probabilities_and_gradients_are_finite():
    embedding = make(1)
    z = torch.rand(5, 12).double()
    z[0] = 0
    found = relevance_of(embedding, z)
    sums = found.sum(2)
    assert bool(((sums - 1).abs().lt(1e-9) | (sums == 0)).all())
    assert bool((found >= 0).all())
    moments, means = relevance_moments(found)
    pull_away(moments, means).backward()
    for parameter in embedding.encoder.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


def test_equal_x_features_overlap_wholly():
    embedding = make(2)
    with torch.no_grad():
        last = embedding.encoder[-1]
        last.weight.copy_(last.weight[:1].expand_as(last.weight))
    overlap = pull_away(*relevance_moments(relevance_of(embedding, torch.rand(6, 12).double())))
    assert float(overlap.detach()) == pytest.approx(1.0)


def test_signed_activations_are_refused():
    stack = Stack([make(nonnegative=False)], torch.device("cpu"))
    with pytest.raises(XNNError, match="after its ReLU"):
        overlap_terms(stack, torch.randn(1, 2, 12).double(), torch.ones(1, 2, dtype=torch.bool))
