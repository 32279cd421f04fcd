"""More birds in the layout of FunnyBirds, each drawn elsewhere, and a network that knows them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from benchmark_examples import train_briefly
from dataset_examples import BIRD_CLASSES, BIRD_PARTS, bird_entry, draw_bird
from torchxnn.models.load import LoadedModel
from torchxnn.models.preprocessing import Preprocessing

SIDE = 32


def bird_network() -> LoadedModel:
    """Factory for `--model bird_examples:bird_network`; its layer is `3`."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Sequential(nn.Linear(6 * 15 * 15, 16), nn.ReLU()),
        nn.Linear(16, len(BIRD_CLASSES)),
    )
    return LoadedModel(model, Preprocessing(size=SIDE, resize="squash"), None, "")


def _moved(image: Image.Image, place: np.ndarray) -> Image.Image:
    return Image.fromarray(np.roll(np.asarray(image), tuple(place), axis=(0, 1)))


def write_birds(root: Path, train: int = 14, test: int = 3) -> Path:
    """Four classes of birds, each picture moved a little, half the training birds lack parts."""
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    wholes = [dict(zip(BIRD_PARTS, kinds, strict=True)) for kinds in BIRD_CLASSES]
    (root / "parts.json").write_text(json.dumps(BIRD_PARTS))
    classes = [{"class_idx": label, "parts": kinds} for label, kinds in enumerate(wholes)]
    (root / "classes.json").write_text(json.dumps(classes))

    def write(image: Image.Image, name: str) -> None:
        path = root / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)

    for half, count in (("train", train), ("test", test)):
        entries = []
        for label, whole in enumerate(wholes):
            for copy in range(count):
                lacking = rng.permutation(list(BIRD_PARTS))[
                    : 2 if half == "train" and copy % 2 else 0
                ]
                kinds = {part: kind for part, kind in whole.items() if part not in lacking}
                scene, place = kinds | {"object 0": 0}, rng.integers(0, 3, 2)
                name = f"{label}/{len(entries):06}"
                entries.append(bird_entry(label, kinds, 1))
                write(_moved(draw_bird(scene), place), f"{half}/{name}")
                write(_moved(draw_bird(scene, part_map=True), place), f"{half}_part_map/{name}")
                for removed in BIRD_PARTS if half == "test" else ():
                    kept = {key: kind for key, kind in scene.items() if key != removed}
                    body = "_".join(part for part in BIRD_PARTS if part in kept)
                    write(_moved(draw_bird(kept), place), f"test_interventions/{name}/body_{body}")
        (root / f"dataset_{half}.json").write_text(json.dumps(entries))
    return root


def write_bird_weights(root: Path, path: Path) -> Path:
    """Train the network for a moment and write its state dict."""
    from torchxnn.data.datasets.funnybirds import FunnyBirds

    return train_briefly(bird_network, lambda pre: FunnyBirds(root, pre, "train"), 56, 60, path)
