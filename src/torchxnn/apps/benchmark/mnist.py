"""The convolutional XNN on handwritten digits (paper section 4.4 and figure 10).

Trains a network of two convolutions on the training images, attaches the paper's MNIST variant
(one encoder, one decoder, max pooling, fully connected readout, 5 x-features) to its last pooling
layer for one digit, and draws figure 10. Pixels are 0 to 1 without further normalisation, so that
the black background is 0 and receives no relevance.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors.torch import save
from torch import Tensor, nn

from torchxnn.apps.benchmark.measure import faithfulness_figures
from torchxnn.apps.benchmark.settings import MnistConfig
from torchxnn.apps.gallery import evenly_spaced, ranked
from torchxnn.data.datasets.mnist import MNIST
from torchxnn.data.record import record_activations
from torchxnn.errors import DataError
from torchxnn.explanations.drawing.canvas import save_figure
from torchxnn.metrics.evaluation import Evaluation
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.parallel.process import one_thread
from torchxnn.storage.artifact import to_json
from torchxnn.storage.files import replace_file
from torchxnn.training.config import Losses
from torchxnn.xnn import XNN

PIXELS = Preprocessing(size=28, resize="squash", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
LAYER = "pool2"
BATCH = 500


def run_mnist(
    config: MnistConfig,
    on_network_epoch: Callable[[int], None] | None = None,
    on_epoch: Callable[[int, int, Losses], None] | None = None,
) -> dict[str, Any]:
    """Train, fit, measure and draw; write network, XNN, figure 10 and `results.json`.

    Args:
        config: what to explain, and how thoroughly.
        on_network_epoch: called after each epoch of the network's training with their number.
        on_epoch: called after each epoch of the XNN's fit, see `XNN.fit`.

    Returns:
        What `results.json` holds.

    Raises:
        DataError: a digit that does not exist, or no files of MNIST.
    """
    digit, seed = config.digit, config.train.seed
    if not 0 <= digit <= 9:
        raise DataError(f"digit must be 0 to 9, got {digit}")
    with one_thread():
        start = time.perf_counter()
        train, test = load(config.root, "train"), load(config.root, "test")
        network = train_network(*train, config.network_epochs, seed, on_network_epoch)
        xnn = XNN(network, LAYER, class_names=[str(d) for d in range(10)], preprocessing=PIXELS)
        report = xnn.fit(batches(*train), digit, config=config.train, on_epoch=on_epoch)
        measured = {
            name: xnn.evaluate(batches(*part), maps=name == "test")
            for name, part in (("train", train), ("test", test))
        }
    results = {
        "training_images": len(train[0]),
        "test_images": len(test[0]),
        "accuracy_train": accuracy(network, *train),
        "accuracy_test": accuracy(network, *test),
        "digit": digit,
        "config": asdict(config.train),
        **figures_of(str(digit), measured, report.seconds),
    }
    groups = choose_digits(xnn, *test, digit, config.examples)
    results["examples"] = draw_figure(xnn, test[0], groups, config.out / "figure_10.png")
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    replace_file(config.out / "mnist_cnn.safetensors", save(weights))
    xnn.save_pretrained(config.out / "xnn")
    results["seconds"] = time.perf_counter() - start
    replace_file(config.out / "results.json", to_json(results))
    return results


def batches(images: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs of images and labels."""
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))


def figures_of(name: str, measured: dict[str, Evaluation], seconds: float) -> dict[str, Any]:
    """The figures in the form of every benchmark's `results.json`."""
    train, test = (measured[side].faithfulness for side in ("train", "test"))
    maps = measured["test"].orthogonality
    row = faithfulness_figures(train, test) | {"seconds": seconds}
    if maps is not None:
        row |= {"o1": maps.o1, "o2": maps.o2}
        row["mean_squared_correlation"] = maps.mean_squared_correlation
    return {"methods": {"SRAE": row}, "classes": {name: {"methods": {"SRAE": row}}}}


def describe(results: dict[str, Any]) -> list[str]:
    """The figures for people."""
    row = results["methods"]["SRAE"]
    return [
        f"network: {results['accuracy_test']:.2%} of {results['test_images']} test images, trained "
        f"on {results['training_images']}",
        f"F_reg {row['f_reg_train']:.3f} on training, {row['f_reg_test']:.3f} on test images "
        f"({row['f_reg_positives']:.3f} on positives); R^2 {row['r2']:.3f}, F_cls "
        f"{row['f_cls_test']:.2%}, {row['active']} active, {row['dead']} dead",
    ]


def build_network() -> nn.Sequential:
    """Two convolutions with pooling and one fully connected layer.

    The convolutions have no bias, so black stays 0 in every layer and no relevance ends there.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 24, 5, padding=2, bias=False),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(24, 48, 5, padding=2, bias=False),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(0.5),
            classifier=nn.Linear(48 * 7 * 7, 10),
        )
    )


def load(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """All digits of a split, (M, 1, 28, 28) from 0 to 1, and their labels."""
    digits = MNIST(root, PIXELS, split)
    images = torch.stack([digits[index].image for index in range(len(digits))])
    return images, torch.tensor(digits.labels)


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image turned up to 12 degrees, resized up to 10%, sheared a little, moved up to 2 px."""
    count = len(images)

    def draw(limit: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle, shear, zoom = draw(math.radians(12)), draw(0.15), 1 + draw(0.1)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    theta = torch.stack([cos, shear - sin, draw(2 / 14), sin, cos, draw(2 / 14)], dim=1).reshape(
        count, 2, 3
    )
    grid = nn.functional.affine_grid(theta, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def train_network(
    images: Tensor,
    labels: Tensor,
    epochs: int,
    seed: int,
    on_epoch: Callable[[int], None] | None = None,
) -> nn.Sequential:
    """Adam with one rise and fall of the learning rate, on distorted digits."""
    generator, size = torch.Generator().manual_seed(seed), 100
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network()
        steps = epochs * (len(images) // size)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
        for epoch in range(1, epochs + 1):
            order = torch.randperm(len(images), generator=generator)
            for index in order[: len(order) // size * size].split(size):
                outputs = network(distort(images[index], generator))
                loss = nn.functional.cross_entropy(outputs, labels[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
            if on_epoch is not None:
                on_epoch(epoch)
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of digits that the network names."""
    predicted = torch.cat([network(part).argmax(1) for part in images.split(BATCH)])
    return float((predicted == labels).double().mean())


def choose_digits(
    xnn: XNN, images: Tensor, labels: Tensor, digit: int, count: int
) -> list[list[int]]:
    """Positives evenly spaced from the highest logit down, then other digits.

    The negatives are the median examples of the digits with the highest to the lowest mean logit.
    """
    logit = record_activations(xnn.model, xnn.layer, images.split(BATCH)).logits[:, digit]
    mine = ranked(logit, labels == digit)
    upper = mine[: round(0.9 * (len(mine) - 1)) + 1]  # without the lowest tenth
    others = [d for d in range(10) if d != digit]
    others.sort(key=lambda d: -float(logit[labels == d].mean()))
    negatives = []
    for other in evenly_spaced(others, count):
        members = ranked(-logit, labels == other)
        negatives.append(members[len(members) // 2])
    return [evenly_spaced(upper, count), negatives]


def draw_figure(xnn: XNN, images: Tensor, groups: list[list[int]], file: Path) -> list[Any]:
    """Figure 10: per row one digit, its x-features' heatmaps, their contributions above each."""
    n, rows = len(xnn.feature_names), sum(map(len, groups))
    figure = Figure(figsize=(1.5 * (n + 1), 1.75 * rows))
    axes = figure.subplots(rows, n + 1, squeeze=False)
    shown = []
    chosen = [(index, positive) for positive, group in enumerate(groups) for index in group]
    for row, (index, negative) in zip(axes, chosen, strict=True):
        explanation = xnn.explain(images[index])
        values, digit = explanation.contributions[0].tolist(), images[index, 0].numpy()
        row[0].imshow(digit, cmap="gray_r")
        row[0].set_ylabel("negative" if negative else "positive")
        logit, reproduced = float(explanation.logits[0]), float(explanation.reproduced[0])
        row[0].set_title(f"logit {logit:.1f}\nXNN {reproduced:.1f}", fontsize=9)
        for i, axis in enumerate(row[1:]):
            heat = explanation.heatmaps[i].clamp(min=0)
            top = float(heat.flatten().quantile(0.995))
            axis.imshow(digit, cmap="gray_r", alpha=0.35)
            axis.imshow(heat.numpy(), cmap="Reds", vmin=0, vmax=max(top, 1e-12), alpha=0.75)
            color = "firebrick" if values[i] > 0 else "navy" if values[i] < 0 else "grey"
            axis.set_title(f"X{i + 1}: {values[i]:+.2f}", fontsize=10, color=color)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        shown.append({"index": index, "contributions": values})
    figure.tight_layout()
    save_figure(figure, file, dpi=110)
    return shown
