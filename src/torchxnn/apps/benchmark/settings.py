"""Settings of a benchmark run; the same fields are command line and saved JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from torchxnn.errors import XNNError
from torchxnn.training.config import ConvConfig, TrainConfig

BUNDLED = "torchxnn.models.bundled:squeezenet_with_head"
"""The network that is explained unless another one is named."""

ALL_METHODS = (
    "XNN",
    "SRAE",
    "SRAE-R",
    "NN",
    "SAE",
    "CAE",
    "Lasso",
    "Z",
    "1-heatmap",
    "NMF",
    "PCA",
    "TopK-SAE",
)
"""Methods that are compared: columns of the tables, in this order."""

FIT = TrainConfig(
    epochs=12, patience=5, decay_every=8, revive=2, pretrain_epochs=1, trials=2, subspace=64
)
"""Settings of the learned methods. Epochs are fewer than a plain fit's: altered copies make each
one several times as long."""

BETAS = {"SRAE": 0.0625, "SRAE-R": 4.0, "SAE": 4.0}
"""Tuned on five kinds of birds, training images alone, with the same ten values for XNN, SRAE,
SRAE-R and SAE (`xnn benchmark tune`), but for two rows: SAE does best at 0, where it is NN, and
keeps the best of its larger values; XNN keeps the default of `xnn fit`, though smaller ones do a
little better, since its row is what users get."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """What a benchmark measures, and how thoroughly.

    Attributes:
        n_features: number of concepts n of every method but Z and the 1-heatmap.
        copies: altered copies of every training image that are fitted along with it.
        map_images: most images per class whose maps are measured, spread over the class; None
            for all.
        z_dimensions: dimensions of Z whose maps are measured, the most active ones.
        integrated_images: of these images, how many get integrated gradients, too.
        integrated_steps: of these.
        masking: whether the classification of masked images is measured (table .5).
        kept: pixels that masking keeps.
        train: settings of the learned methods, with the seed and the share of the training
            images that is held out for early stopping.
        betas: of the methods that were tuned to another beta than that of `train`.
    """

    n_features: int = 5
    copies: int = 4
    map_images: int | None = 20
    z_dimensions: int = 64
    integrated_images: int = 2
    integrated_steps: int = 8
    masking: bool = True
    kept: tuple[int, ...] = (300, 500, 1000)
    train: TrainConfig = field(default_factory=lambda: FIT)
    betas: dict[str, float] = field(default_factory=lambda: dict(BETAS))

    def of(self, method: str) -> TrainConfig:
        """Settings of one of the learned methods, by its name."""
        return replace(self.train, beta=self.betas.get(method, self.train.beta))

    def __post_init__(self) -> None:
        least = {
            "n_features": 2,
            "copies": 0,
            "z_dimensions": 1,
            "integrated_images": 1,
            "integrated_steps": 1,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise XNNError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if self.map_images is not None and self.map_images < 1:
            raise XNNError(f"map_images must be at least 1, or None, got {self.map_images}")
        for name, beta in self.betas.items():
            if name not in ALL_METHODS or not beta >= 0:
                raise XNNError(
                    f"betas need names of methods and no negative value, got {name} {beta}"
                )


def paper_variant() -> TrainConfig:
    """One encoder, one decoder, max pooling before the readout."""
    conv = ConvConfig(channels=(), pooling="max", map_batch_size=128)
    return TrainConfig(epochs=40, patience=10, decay_every=25, conv=conv)


@dataclass(frozen=True)
class MnistConfig:
    """Handwritten digits: a convolutional XNN on a small network (paper section 4.4).

    Attributes:
        root: folder with the IDX files of MNIST.
        out: folder for the results, figure 10, the network's weights and the XNN.
        digit: whose logit is explained.
        network_epochs: of the network's training.
        examples: positive, and as many negative examples in the figure.
        train: settings of the fit.
    """

    root: Path
    out: Path
    digit: int = 4
    network_epochs: int = 15
    examples: int = 4
    train: TrainConfig = field(default_factory=paper_variant)
