"""Layers beside the path to the outputs."""

import warnings

import pytest
import torch
from torch import nn

from conftest import make_images, make_net
from torchxnn import XNN, TrainConfig
from torchxnn.errors import XNNWarning
from torchxnn.models.reach import check_reaches


class Beside(nn.Module):
    """A network with a branch that its logits do not take, and tokens of which one is left out."""

    def __init__(self):
        super().__init__()
        self.net, self.branch, self.tokens = make_net(), nn.Linear(3, 8), nn.Identity()
        self.head = nn.Linear(3, 4)

    def forward(self, images):
        self.branch(images.mean((2, 3)))
        tokens = self.tokens(images.flatten(2).mT)
        return self.net(images) + self.head(tokens[:, 1:].mean(1))


def test_a_layer_beside_the_path_is_named_before_the_fit():
    images, labels = make_images(40)
    model = Beside().eval()
    with pytest.warns(XNNWarning) as said:
        XNN(model, "branch").fit([(images, labels)], 1, config=TrainConfig(epochs=2, trials=1))
    assert "'branch' does not reach the model's outputs" in str(said[0].message)
    with warnings.catch_warnings(action="error"):
        for layer in ("net.classifier.1", "tokens[1]", "tokens[mean]"):
            check_reaches(model, layer, images[:2])
    with pytest.warns(XNNWarning, match=r"tokens\[0\]"):
        check_reaches(model, "tokens[0]", images[:2])


def test_what_is_cut_from_gradients_is_on_the_path_and_half_precision_too():
    net = make_net()
    net.classifier.register_forward_pre_hook(lambda _, given: given[0].detach())
    check_reaches(net, "avgpool", make_images(2)[0])
    check_reaches(net.bfloat16(), "avgpool", make_images(2)[0])


def test_token_ids_are_not_looked_at():
    text = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2)).eval()
    check_reaches(text, "2", torch.randint(0, 9, (2, 3)))
