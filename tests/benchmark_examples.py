"""A small set of coloured squares in CUB's layout, and a network that tells them apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from torchxnn.data.datasets.base import ImageDataset, make_loader
from torchxnn.models.load import LoadedModel
from torchxnn.models.preprocessing import Preprocessing

CLASSES, TRAIN, TEST, SIDE = 3, 12, 4, 32
COLOURS = ((230, 40, 40), (40, 230, 40), (40, 40, 230))


def network() -> LoadedModel:
    """Factory for `--model benchmark_examples:network`; its layer is `3`."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Sequential(nn.Linear(6 * 15 * 15, 12), nn.ReLU()),
        nn.Linear(12, CLASSES),
    )
    return LoadedModel(model, Preprocessing(size=SIDE, resize="squash"), None, "")


def rooms_network(rooms: int = 6) -> LoadedModel:
    """Factory for rooms; with a layer like that of `network`, and random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Sequential(nn.Linear(6 * 15 * 15, 12), nn.ReLU()),
            nn.Linear(12, rooms),
        )
    return LoadedModel(model, Preprocessing(size=SIDE, resize="squash"), None, "")


def ten_rooms_network() -> LoadedModel:
    return rooms_network(10)


def write_room(path: Path, kind: int, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    pixels[: 4 + 2 * kind] = 20 * kind
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_rooms(root: Path, rooms: tuple[str, ...], train: int = 10, test: int = 3) -> Path:
    """Places365 pictures of the given rooms, in the layout with `labels.csv`."""
    rng, rows = np.random.default_rng(0), ["file,class,split,source_path"]
    for kind, room in enumerate(rooms):
        for index in range(train + test):
            split = "train" if index < train else "eval"
            rows.append(f"{split}/{room}/{index}.png,{room},{split},x")
            write_room(root / "images" / split / room / f"{index}.png", kind, rng)
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def write_squares(root: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = {name: [] for name in ("images", "labels", "split", "boxes", "parts")}
    number = 0
    for kind in range(CLASSES):
        for index in range(TRAIN + TEST):
            number += 1
            x, y = (int(v) for v in rng.integers(2, 12, 2))
            pixels = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
            pixels[y : y + 16, x : x + 16] = COLOURS[kind]
            pixels[y : y + 5, x : x + 5] = 255  # a part of its own
            path = root / "images" / f"{kind + 1:03d}.Square_{kind}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            lines["images"].append(f"{number} {path.relative_to(root / 'images')}")
            lines["labels"].append(f"{number} {kind + 1}")
            lines["split"].append(f"{number} {int(index < TRAIN)}")
            lines["boxes"].append(f"{number} {x}.0 {y}.0 16.0 16.0")
            lines["parts"] += [
                f"{number} 1 {x + 2}.0 {y + 2}.0 1",
                f"{number} 2 {x + 12}.0 {y + 12}.0 {int(index % 3 > 0)}",
            ]
    files = {
        "images.txt": lines["images"],
        "classes.txt": [f"{k + 1} {k + 1:03d}.Square_{k}" for k in range(CLASSES)],
        "image_class_labels.txt": lines["labels"],
        "train_test_split.txt": lines["split"],
        "bounding_boxes.txt": lines["boxes"],
        "parts/parts.txt": ["1 corner", "2 body"],
        "parts/part_locs.txt": lines["parts"],
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join(content) + "\n")
    return root


def write_weights(root: Path, path: Path) -> Path:
    """Train the network for a moment and write its state dict."""
    from torchxnn.data.datasets.cub import CUB

    return train_briefly(network, lambda pre: CUB(root, pre, "train"), 36, 40, path)


def train_briefly(
    factory: Callable[[], LoadedModel],
    open_dataset: Callable[[Preprocessing], ImageDataset],
    batch: int,
    epochs: int,
    path: Path,
) -> Path:
    """Train a network from seed 0 and write its state dict."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loaded = factory()
        batches = list(make_loader(open_dataset(loaded.preprocessing), batch))
        optimizer = torch.optim.Adam(loaded.model.parameters(), lr=3e-3)
        for _ in range(epochs):
            for images, labels in batches:
                loss = nn.functional.cross_entropy(loaded.model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    save_file(loaded.model.state_dict(), path)
    return path
