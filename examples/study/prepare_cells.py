"""Train a small network on white blood cells, for the second data set of the paper's human study.

    python examples/study/prepare_cells.py --cells WBC --weights cub50_squeezenet.safetensors \
        --out runs/cells

WBC is a folder with `images/` and a `labels.csv` of the columns id and class. The features of a
SqueezeNet whose weights are given stay as they are; a head is trained on two thirds of the pictures
of every class that has at least `--least` of them. Written are the pictures in class folders, those
for training and those for the study apart, and the network's weights.
"""

from __future__ import annotations

import csv
import random
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import tyro
from safetensors.torch import save_file

from torchxnn.data import ImageFolder, make_loader
from torchxnn.errors import DataError
from torchxnn.models import load_model
from torchxnn.models.bundled import PREPROCESSING, SqueezeNetWithHead, pool_features, train_head

HIDDEN = 1024
TRAIN_SHARE = 2 / 3


@dataclass(frozen=True)
class Prepare:
    """What to read and write."""

    cells: Path
    """folder with images/ and labels.csv"""
    weights: Path
    """state dict of `torchxnn.models.bundled:squeezenet_with_head`; its features are used"""
    out: Path
    """folder to write; must not exist"""
    least: int = 30
    """pictures that a class must have"""
    seed: int = 0


def main(prepare: Prepare) -> None:
    """Split, train, say how well it does."""
    if prepare.out.exists():
        raise SystemExit(f"{prepare.out} exists; choose another --out")
    split(prepare)
    train = ImageFolder(prepare.out / "train", PREPROCESSING)
    test = ImageFolder(prepare.out / "test", PREPROCESSING)
    loaded = load_model("torchxnn.models.bundled:squeezenet_with_head", prepare.weights)
    features = cast(SqueezeNetWithHead, loaded.model).features
    network = SqueezeNetWithHead(features, len(train.classes), HIDDEN)
    labels = torch.tensor(cast(tuple[int, ...], train.labels))
    pooled = pool_features(network, make_loader(train), None)
    network.classifier = train_head(
        pooled, labels, len(train.classes), hidden=HIDDEN, epochs=40, seed=prepare.seed
    )
    network.eval()
    save_file(network.state_dict(), prepare.out / "cells.safetensors")
    with torch.no_grad():
        pairs = [(network(x).argmax(1), y) for x, y in make_loader(test)]
    right = torch.cat([found == truth for found, truth in pairs]).float().mean().item()
    print(f"{', '.join(train.classes)}: {len(train)} pictures to train on, {len(test)} others")
    print(f"accuracy on the others: {right:.1%}")


def split(prepare: Prepare) -> None:
    """Copy the pictures into class folders."""
    table = prepare.cells / "labels.csv"
    members: dict[str, list[str]] = defaultdict(list)
    try:
        with table.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                members[row["class"]].append(row["id"])
    except (OSError, KeyError) as error:
        raise DataError(f"{table} cannot be read: {error!r}") from error
    for name, ids in sorted(members.items()):
        if len(ids) < prepare.least:
            continue
        random.Random(f"{prepare.seed}/{name}").shuffle(ids)
        cut = round(TRAIN_SHARE * len(ids))
        for part, own in (("train", ids[:cut]), ("test", ids[cut:])):
            folder = prepare.out / part / name
            folder.mkdir(parents=True)
            for each in own:
                shutil.copy(prepare.cells / "images" / f"{each}.jpg", folder)


if __name__ == "__main__":
    main(tyro.cli(Prepare, description=__doc__))
