"""Draw the pictures of the page "What an explanation can and cannot tell you".

Handwritten digits and the small network of `docs_gallery.py`. Run from the repository:

    python perf/docs_limits.py

It writes `docs/gallery/limits_*.svg` and `limits_*.webp`; about a minute on one core.
"""

import argparse
import runpy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from torchxnn import XNN, TrainConfig
from torchxnn.embeddings.matching import feature_correlation, match_features
from torchxnn.errors import XNNWarning
from torchxnn.explanations.alike import drawn_correlation
from torchxnn.explanations.drawing.canvas import figure_bytes
from torchxnn.explanations.drawing.overlay import INK, MUTED, heatmap_over, overlay
from torchxnn.storage.files import replace_file

GALLERY: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("docs_gallery.py")))
OURS, OTHER, GREY = "#0072B2", "#D55E00", "#BBBBBB"
FOUR, THREE = 4, 3
SEVEN = 7  # of ten digits the one whose two fits agree most like their mean


@dataclass(frozen=True, eq=False)
class Digits:
    """A trained network, and the images that it was trained and tested on."""

    model: torch.nn.Module
    images: Tensor
    labels: Tensor
    train: Tensor
    test: Tensor

    def fit(self, target: int, seed: int = 0, resample: bool = False) -> XNN:
        """An XNN of one digit, on a bootstrap sample of the images if wanted."""
        generator = torch.Generator().manual_seed(seed)
        draws = torch.randint(len(self.train), (len(self.train),), generator=generator)
        rows = self.train[draws] if resample else self.train
        xnn = XNN(self.model, "9", class_names=GALLERY["WORDS"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", XNNWarning)
            loader = [(self.images[batch], self.labels[batch]) for batch in rows.split(100)]
            xnn.fit(loader, target, config=TrainConfig(seed=seed))
        return xnn

    def of(self, target: int) -> Tensor:
        """The test images of one digit."""
        return self.images[self.test[self.labels[self.test] == target]]

    def picture(self, image: Tensor) -> Any:
        """An image as bytes (H, W, 3)."""
        return (image.permute(1, 2, 0) * 255).round().byte().numpy()


def main(docs: Path, epochs: int = 8) -> None:
    """Train, fit, draw."""
    torch.set_num_threads(1)
    digits = Digits(*GALLERY["train_network"](epochs))
    four, three = digits.fit(FOUR), digits.fit(THREE)
    figures = {
        "limits_anchored.svg": anchored_figure(four, digits.of(FOUR)),
        "limits_mass.webp": mass_figure(digits, four),
        "limits_found_again.svg": found_again_figure(digits),
        "limits_alike.webp": alike_figure(digits, three),
    }
    for name, figure in figures.items():
        file = docs / "gallery" / name
        if name.endswith(".svg"):
            replace_file(file, figure_bytes(figure, "svg"))
        else:
            GALLERY["save_webp"](figure_bytes(figure, "png", 110), file)


# --- anchoring


def anchored_figure(xnn: XNN, images: Tensor) -> Figure:
    """Shares of the x-features before and after a constant is added to one of them."""
    with torch.no_grad():
        features = xnn(images)
    embedding = xnn.embedding
    assert embedding is not None
    weight, typical = embedding.readout.weight[0].detach(), embedding.typical[0]
    order = (weight * (features - typical)).mean(0).abs().argsort(descending=True)
    constant = torch.zeros(len(weight))
    weakest = int(order[-1])
    constant[weakest] = 2 * (weight * features.mean(0)).abs().sum() / weight[weakest].abs()
    panels = {
        "$v_i E_i$": weight * features.mean(0),
        "the same network and logit,\na constant added to one": weight
        * (features.mean(0) + constant),
        "anchored": weight * (features.mean(0) - typical),
        "anchored, after the constant": weight
        * (features.mean(0) + constant - (typical + constant)),
    }
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, 4), panels.items(), strict=True):
        shares = (values.abs() / values.abs().sum())[order].tolist()
        colours = [OTHER if int(i) == weakest else OURS for i in order]
        axes.barh(range(len(order)), shares, color=colours)
        for place, share in enumerate(shares):
            axes.text(share + 0.02, place, f"{share:.0%}", va="center", fontsize=8, color=INK)
        axes.set_yticks(range(len(order)), [f"x-feature {int(i) + 1}" for i in order], fontsize=8)
        axes.invert_yaxis()
        _plain(axes, title)
        axes.set_xlim(0, 1.15)
        axes.set_xticks([])
    return figure


# --- contrast mass


def mass_figure(digits: Digits, xnn: XNN) -> Figure:
    """A contrastive map on a scale of its own, and as much of it as there is relevance."""
    image = digits.of(FOUR)[:1]
    with torch.no_grad():
        share = xnn.contributions(image)[0, 0]
    feature = int(share.argmax())
    found = {
        "the rule of the paper": xnn.attribute(image, "excitation_backprop")[0, feature],
        "effective weights": xnn.attribute(image, "excitation_backprop_effective")[0, feature],
    }
    looks = [("the image", digits.picture(image[0]))]
    for name, heatmap in found.items():
        positive = heatmap.clamp(min=0)
        mass, own = float(positive.sum()), heatmap_over(digits.picture(image[0]), heatmap.numpy())
        looks.append((f"{name}:\n{mass:.1%} of the relevance,\non a scale of its own", own))
        faint = overlay(digits.picture(image[0]), (positive / positive.max() * mass).numpy())
        looks.append(("the same, as strong as its\nshare of the relevance", faint))
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(1, len(looks)), looks, strict=True):
        axes.imshow(picture, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(title, fontsize=8.5, color=INK)
    return figure


# --- found again


def found_again_figure(digits: Digits) -> Figure:
    """Two fits to two bootstrap samples: which x-features of one are found in the other."""
    first, second = digits.fit(SEVEN, 1, resample=True), digits.fit(SEVEN, 2, resample=True)
    images = digits.of(SEVEN)
    with torch.no_grad():
        logit = digits.model(images)[:, [SEVEN]]
        both = [_without(xnn.contributions(images)[:, 0], logit) for xnn in (first, second)]
    similarity = feature_correlation(*both)
    match = match_features(similarity)
    shuffled = feature_correlation(both[0], both[1][torch.randperm(len(images))])
    luck = match_features(shuffled)
    figure = Figure(figsize=(7.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    _matrix(left, similarity[:, list(match)], "matched x-features of two samples")
    _matrix(right, shuffled[:, list(luck)], "the same, images shuffled")
    return figure


def _without(values: Tensor, logit: Tensor) -> Tensor:
    """What is left of each column when the logit is partialled out."""
    values, logit = values - values.mean(0), logit - logit.mean(0)
    return values - logit * ((logit * values).sum(0) / logit.square().sum())


def _matrix(axes: Axes, values: Tensor, title: str) -> None:
    axes.imshow(values.numpy(), cmap="RdBu", vmin=-1, vmax=1)
    for row, line in enumerate(values.tolist()):
        for column, value in enumerate(line):
            weight = "bold" if row == column else "normal"
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, weight=weight
            )
    mean = float(values.diagonal().mean())
    _plain(axes, f"{title}:\nmean of the diagonal {mean:.2f}")
    axes.set_xlabel("second sample", fontsize=8, color=MUTED)
    axes.set_ylabel("first sample", fontsize=8, color=MUTED)
    axes.set_xticks([])
    axes.set_yticks([])


# --- alike


def alike_figure(digits: Digits, xnn: XNN) -> Figure:
    """Two x-features whose maps by the paper's rule agree, and two whose maps do not."""
    images = digits.of(THREE)
    maps = xnn.attribute(images, "excitation_backprop")
    agrees = [drawn_correlation([one.numpy() for one in of_image]) for of_image in maps]
    pairs = [(i, j) for i in range(maps.shape[1]) for j in range(i)]
    number = max(range(len(images)), key=lambda at: max(agrees[at][pair] for pair in pairs))
    image, agree = digits.picture(images[number]), agrees[number]
    most = max(pairs, key=lambda pair: float(agree[pair]))
    least = min(pairs, key=lambda pair: float(agree[pair]))
    figure = Figure(figsize=(9.6, 2.5), layout="constrained")
    axes = list(figure.subplots(1, 5))
    axes[0].imshow(image, interpolation="nearest")
    axes[0].set_title("the image", fontsize=8.5, color=INK)
    shown = [(pair, feature) for pair in (most, least) for feature in pair]
    for place, (pair, feature) in zip(axes[1:], shown, strict=True):
        place.imshow(heatmap_over(image, maps[number, feature].numpy()))
        title = f"x-feature {feature + 1}\nmaps correlate {float(agree[pair]):.2f}"
        place.set_title(title, fontsize=8.5, color=INK)
    for place in axes:
        place.set_axis_off()
    return figure


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=8.5, color=INK)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(length=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=Path(__file__).parent.parent / "docs")
    main(parser.parse_args().docs)
