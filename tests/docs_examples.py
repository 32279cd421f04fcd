"""The blocks of code in README and docs, and the small world in which they run.

Stand-ins take the place of what the pages take for granted: every `torchvision:NAME`, `timm:NAME`
and `MODEL` is a random network of the same layer names, every folder of photographs holds generated
pictures, object storage is in memory, and fits are short.
"""

import re
import shlex
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import torchxnn.models
import torchxnn.xnn
from torchxnn import XNN, TrainConfig
from torchxnn.errors import XNNWarning
from torchxnn.models.load import LoadedModel
from torchxnn.models.preprocessing import Preprocessing
from volume_examples import write_volumes

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")))
SIZE, OUTPUTS = 16, 50
LABELS = (0, 1, 2, 3, 7, 47)
CLASSES = tuple("tench" if i == 3 else f"class{i:02d}" for i in range(OUTPUTS))
PREPROCESSING = Preprocessing(size=SIZE, resize="squash")
FOLDERS = ("DIR", "TEST_DIR", "IMAGES", "photos", "photos_test")
WEIGHTS = ("resnet.safetensors", "model.safetensors")


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self):
        return f"{self.page}:{self.line}"

    def commands(self):
        """Command lines without prompt and comment; a backslash continues a line."""
        joined = re.sub(r"\\\n\s*", " ", self.text)
        for line in joined.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while "&&" in words:
                cut = words.index("&&")
                yield words[:cut]
                words = words[cut + 1 :]
            if words:
                yield words


def read_blocks(page):
    """The fenced blocks of a page, in order."""
    found, lines = [], (ROOT / page).read_text("utf-8").splitlines()
    start, language = None, ""
    for number, line in enumerate(lines, start=1):
        fence = re.fullmatch(r"\s*```(\w*).*", line)
        if fence and start is None:
            start, language = number, fence[1]
        elif fence:
            text = "\n".join(lines[start : number - 1])
            if not language and re.match(r"(\$ )?(xnn|pip|ray|make) ", text):
                language = "console"
            found.append(Block(page, start, language, text))
            start = None
    assert start is None, f"{page}: a block is not closed"
    return found


class StandIn(nn.Module):
    """A small network with the layer names that the pages use; images (B, 3, 16, 16)."""

    preprocessing = PREPROCESSING

    def __init__(self, outputs=OUTPUTS):
        super().__init__()
        self.layer3 = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
        self.layer4 = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, outputs))
        self.preprocessing = PREPROCESSING

    def forward(self, images):
        return self.classifier(self.avgpool(self.layer4(self.layer3(images))).flatten(1))


def stand_in():
    """Always the same random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = StandIn()
        network.classifier[2].weight.data.mul_(8)
    return network.eval()


def make_pictures(per_class=14, seed=0):
    """Tensors (B, 3, 16, 16) and labels, every class with a bright square of its own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(LABELS).repeat(per_class)
    images = torch.rand(len(labels), 3, SIZE, SIZE, generator=generator) * 0.4
    for image, label in zip(images, labels.tolist(), strict=True):
        place = LABELS.index(label)
        row, column = divmod(place, 3)
        image[place % 3, 7 * row : 7 * row + 6, 5 * column : 5 * column + 5] += 0.6
    return images, labels


def make_world(folder):
    """Everything that the pages name, in a folder."""
    images, labels = make_pictures()
    for name in FOLDERS:
        for index, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
            place = folder / name / CLASSES[label]
            place.mkdir(parents=True, exist_ok=True)
            pixels = (image * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{index:03d}.png")
    Image.fromarray(pixels).save(folder / "photo.jpg")
    for name in WEIGHTS:
        save_file(stand_in().state_dict(), folder / name)
    fitted_xnn("avgpool", 3).save_pretrained(folder / "RUN")
    (folder / "my_project.py").write_text(
        "from docs_examples import stand_in\nfrom volume_examples import network_of_volumes\n\n\n"
        "def load_network():\n    return stand_in()\n\n\n"
        "def load_volume_network():\n    return network_of_volumes()\n"
    )
    write_volumes(folder / "SCANS", 8)


def fitted_xnn(layer, target):
    """An XNN as `xnn fit` leaves it."""
    images, labels = make_pictures()
    source = {"model": "MODEL", "weights": None, "data": "DIR", "random_weights": False}
    xnn = XNN(stand_in(), layer, class_names=CLASSES, preprocessing=PREPROCESSING, source=source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", XNNWarning)
        xnn.fit([(images, labels)], target, config=shortened(TrainConfig()))
    return xnn


def shortened(config):
    """The same settings with few epochs and a small embedding."""
    few = {"epochs": 30, "trials": 1, "pretrain_epochs": 1}
    return replace(config or TrainConfig(), hidden=(32,), **few)


def names_of_a_page():
    """What python blocks may use without having made it."""
    images, labels = make_pictures()
    xnn = fitted_xnn("classifier.1", 47)
    dataset = list(zip(images, labels.tolist(), strict=True))
    return {
        "model": xnn.model,
        "xnn": xnn,
        "images": images[:4],
        "image": images[3],
        "loader": list(zip(images.split(28), labels.split(28), strict=True)),
        "dataset": dataset,
        "names": CLASSES,
    }


def use_stand_ins(patch):
    """Short fits, and stand-ins for networks that the pages take from libraries."""
    original = torchxnn.models.load._find_source

    def find(spec, *more):
        if spec.startswith(("torchvision:", "timm:")) or spec == "MODEL":
            loaded = LoadedModel(stand_in(), PREPROCESSING, CLASSES, spec)
            return torchxnn.models.load.Source(
                spec, lambda **_: loaded, PREPROCESSING, lambda: loaded, "nothing"
            )
        return original(spec, *more)

    fit = torchxnn.xnn.fit_embedding

    def short(train, validation, targets, n, config=None, *more):
        return fit(train, validation, targets, n, shortened(config), *more)

    patch.setattr(torchxnn.models.load, "_find_source", find)
    patch.setattr(torchxnn.xnn, "fit_embedding", short)
