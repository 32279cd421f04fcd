"""What is known of relevance without looking is true, and maps do not depend on it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torchxnn.attribution import ExcitationBackprop
from torchxnn.attribution.excitation_backprop.propagation import Walk
from torchxnn.attribution.excitation_backprop.silence import Silence


class Branches(nn.Module):
    """Folded and plain BatchNorm, some scales negative, a sum, a pool, a concatenation, a clamp."""

    def __init__(self, flip: bool, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        self.last = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 3)
        for norm in self.norms:
            norm.weight.data = torch.tensor([1.0, 0.5, -1.0 if flip else 2.0, 1.5])
            norm.bias.data = torch.tensor([0.3, -0.2, 0.1, 0.0])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.stem(images).relu(), 2)
        x = self.norms[2](x).relu()  # fed by a pool, so it is a step of its own
        first, second, third = self.convs
        y = self.norms[0](first(x)).clamp(0, 6)
        y = torch.add(x, self.norms[1](second(y)), alpha=self.alpha).relu()
        y = F.max_pool2d(y, 2)
        y = torch.cat([y, F.relu(third(y)).flip(3)], 1)
        return self.head(self.last(y).relu().mean((2, 3)))


COMPETE = Walk.compete


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("contrastive", [False, True])
@pytest.mark.parametrize("alpha", [1.0, -1.0])
@pytest.mark.filterwarnings("ignore:.*their biases decided")
def test_what_is_known_is_true_and_changes_nothing(monkeypatch, flip, contrastive, alpha):
    model = Branches(flip, alpha).double().eval()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    seen = set()

    def watched(self, operation, linear, value, relevance):
        negative = self.negative(operation.output)
        if isinstance(negative, torch.Tensor):
            reached = bool(((relevance != 0) & negative).any())
            silent = self._silence.of_negative(operation.output)
            assert not (silent and reached)
            seen.add((operation.place.module, silent))
        return COMPETE(self, operation, linear, value, relevance)

    monkeypatch.setattr(Walk, "compete", watched)
    method = ExcitationBackprop(model, contrastive=contrastive)
    found = method.attribute_many(images, [0, 2])
    known = {module for module, silent in seen if silent}
    # The stem is below a BatchNorm of its own, the first two may be below one that turns signs,
    # and what is subtracted wins where it is negative.
    likely = {"convs.0"} | ({"convs.1"} if alpha > 0 else set())
    assert known == {"last", "convs.2"} | (set() if flip else likely)
    monkeypatch.setattr(Silence, "of_negative", lambda self, value: False)
    assert torch.equal(found, method.attribute_many(images, [0, 2]))


def test_a_fallback_that_gives_to_silent_inputs_is_known():
    """All inputs of the head are 0, so it shares evenly, also to what the ReLU held back."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1)).eval()
    model[0].weight.data.fill_(1.0)
    model[0].bias.data.fill_(-5.0)
    model[3].weight.data.fill_(1.0)
    images = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    method = ExcitationBackprop(model, contrastive=False)
    with pytest.warns(UserWarning, match="their biases decided"):
        found = method.attribute(images, 0)
    torch.testing.assert_close(found, torch.full((1, 2, 2), 0.25))
