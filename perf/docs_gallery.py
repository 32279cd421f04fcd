"""Draw the gallery of the documentation: handwritten digits, one XNN per class.

The digits come with scikit-learn (Alpaydin and Kaynak, Optical Recognition of Handwritten Digits,
CC BY 4.0), so the pictures may be shown here; those of CUB may not. Run from the repository:

    python perf/docs_gallery.py

It writes `docs/gallery/*.webp` and `docs/gallery.md`; about two minutes on one core.
"""

import argparse
import io
import warnings
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from torchxnn import XNN, TrainConfig
from torchxnn.apps.benchmark.figures.comparison import comparison_figure
from torchxnn.data.datasets.base import Sample
from torchxnn.errors import XNNWarning
from torchxnn.explanations.drawing.canvas import figure_bytes
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.files import replace_file

SIDE, ROWS, TRAINED = 32, 3, 1200
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PREPROCESSING = Preprocessing(size=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

HEAD = """# Gallery

Handwritten digits, one XNN with five x-features for each class of a small convolutional network.
Each picture shows three test images of a class: on the left the image and the single heatmap of the
logit, then the x-features in order of their mean contribution, each with its contribution to this
image's logit.

The images are made by `python perf/docs_gallery.py`. The digits come with scikit-learn
(E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI, CC BY 4.0); they are
small, 8 x 8 pixels enlarged to 32 x 32. Birds (CUB-200-2011) may be used for research only, so they
are not shown here: `xnn benchmark cub` writes their gallery on your machine ([how](evaluation.md)).

"""


def network() -> nn.Sequential:
    """Two convolutions, pooling, two fully connected layers."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(4),
        nn.Flatten(), nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def train_network(epochs: int) -> tuple[nn.Module, Tensor, Tensor, Tensor, Tensor]:
    """The trained network, images, labels, and the rows of training and test images."""
    torch.manual_seed(0)
    data = load_digits()
    small = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    images = nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear").expand(-1, 3, -1, -1)
    images, labels = images.contiguous(), torch.tensor(data.target)
    order = torch.randperm(len(images))
    train, test = order[:TRAINED], order[TRAINED:]
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for batch in train[torch.randperm(len(train))].split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval(), images, labels, train, test


def main(docs: Path, classes: int = 10, epochs: int = 8) -> None:
    """Train, fit, draw, write the page."""
    torch.set_num_threads(1)
    model, images, labels, train, test = train_network(epochs)
    with torch.no_grad():
        right = (model(images[test]).argmax(1) == labels[test]).float().mean()
    text = [HEAD, f"The network is right about {right:.1%} of {len(test)} test images.\n"]
    loader = [(images[batch], labels[batch]) for batch in train.split(100)]
    for target in range(classes):
        xnn = XNN(model, "9", class_names=WORDS, preprocessing=PREPROCESSING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XNNWarning)  # the figure and the page say so
            report = xnn.fit(loader, target, config=TrainConfig(seed=0))
            found = xnn.evaluate([(images[test], labels[test])], maps=False).faithfulness
        chosen = test[labels[test] == target][:ROWS].tolist()
        samples = [Sample(images[i], target, f"digit {i}") for i in chosen]
        file = f"gallery/{target}_{WORDS[target]}.webp"
        save_webp(figure_bytes(comparison_figure(xnn, samples, target), "png", 90), docs / file)
        state = "; ".join(report.degenerate) or "not degenerate"
        text.append(
            f"\n## {WORDS[target].capitalize()}\n\n![Three images of the digit {WORDS[target]}: "
            f"the heatmap of the whole logit, then of {found.n_features} x-features with their "
            f"contributions]({file})\n\n*On test images R² {found.r2:.3f}, F_cls "
            f"{found.f_cls:.1%}; {found.active} of {found.n_features} x-features are active "
            f"({state}).*\n"
        )
        print(f"{WORDS[target]}: R² {found.r2:.3f}, {found.active} active")
    replace_file(docs / "gallery.md", "".join(text).encode())


def save_webp(png: bytes, file: Path) -> None:
    """Write a picture a third as large as its PNG."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "webp", quality=80, method=6)
    replace_file(file, buffer.getvalue())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=Path(__file__).parent.parent / "docs")
    main(parser.parse_args().docs)
