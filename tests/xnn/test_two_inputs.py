"""The how-to of docs/unusual_inputs.md: an image and a row of metadata, held fixed by a wrapper."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from torchxnn import XNN, TrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "unusual_inputs.md"


class ImageAndRow(nn.Module):
    """A classifier of an image and two numbers."""

    def __init__(self):
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.fuse = nn.Sequential(nn.Linear(26, 16), nn.ReLU())
        self.head = nn.Linear(16, 3)

    def forward(self, images, rows):
        return self.head(self.fuse(torch.cat([self.look(images), rows], 1)))


@pytest.mark.filterwarnings("ignore:.*of the relevance met units", "ignore:degenerate fit")
def test_an_image_is_explained_with_its_metadata_held_fixed():
    code = re.search(
        r"```python\n(from torch import nn\n+class WithMetadata.*?)```",
        PAGE.read_text("utf-8"),
        re.S,
    )[1]
    names = {}
    exec(code, names)
    torch.manual_seed(0)
    model, row = ImageAndRow().eval(), torch.tensor([0.5, -1.0])
    images, labels = torch.rand(45, 3, 12, 12), torch.arange(45) % 3
    for k in range(3):
        images[labels == k, k] += 2
    wrapped = names["WithMetadata"](model, row)
    assert torch.equal(wrapped(images), model(images, row.expand(45, 2)))
    xnn = XNN(wrapped, layer="model.fuse")
    fast = TrainConfig(hidden=(16,), epochs=8, trials=1, pretrain_epochs=1)
    xnn.fit([(images, labels)], target=1, config=fast)
    explanation = xnn.explain(images[1])
    assert explanation.heatmaps.shape[1:] == (12, 12)
    assert explanation.certificate.conservation_error < 1e-5
