import random

import pytest
import torch
from beartype._check.code import codemain
from hypothesis import HealthCheck, settings
from torch import nn

from real_browser import opened_browser

# How long an example takes, to run or to be made, depends on who else computes on this machine.
settings.register_profile("torchxnn", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("torchxnn")

# Type checks look at a random entry of a list. They draw from a generator of their own, or each
# model under test would seem to draw from Python's, and be run eight times more when examined.
codemain.getrandbits = random.Random(0).getrandbits


class SmallNet(nn.Module):
    """A convolution, pooling, and three fully connected layers on 3 x 12 x 12 images."""

    def __init__(self, outputs=4, inplace=False):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=inplace), nn.MaxPool2d(2)
        )
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.classifier = nn.Sequential(
            nn.Linear(32, 24), nn.ReLU(inplace=inplace), nn.Dropout(), nn.Linear(24, outputs)
        )

    def forward(self, images):
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


def make_net(outputs=4, inplace=False, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SmallNet(outputs, inplace)
        for buffer in net.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
        net.classifier[3].weight.data.mul_(8)
    return net.eval()


@pytest.fixture
def net():
    return make_net()


def make_images(count, seed=0, classes=4):
    """Images of `classes` kinds, each with a bright square of its own colour and place."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 12, 12, generator=generator) * 0.5
    labels = torch.arange(count) % classes
    for i, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        images[i, label % 3, 6 * row : 6 * row + 5, 6 * column : 6 * column + 5] += 2.0
    return images, labels


@pytest.fixture
def images():
    return make_images(96)[0]


@pytest.fixture
def few_starts(monkeypatch):
    """Components from two starts: most of a small fit's time, where a test is of what follows."""
    for name in ("STARTS", "BOOTSTRAPS"):
        monkeypatch.setattr(f"torchxnn.embeddings.components.{name}", 2)


@pytest.fixture(scope="module")
def chromium():
    """A real browser; tests that take it are skipped where there is none."""
    with opened_browser() as browser:
        yield browser


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tests share the machine; results of float32 sums then do not depend on its load."""
    torch.set_num_threads(1)
