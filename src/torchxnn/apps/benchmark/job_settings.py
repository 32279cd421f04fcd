"""Settings of the benchmarks beside the paper's evaluation; nothing here loads PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal

from torchxnn.apps.benchmark.settings import FIT
from torchxnn.apps.benchmark.variants import SEEN, nn_config
from torchxnn.errors import XNNError
from torchxnn.training.config import TrainConfig

RULES = (
    "excitation_backprop",
    "excitation_backprop_effective",
    "removal",
    "input_x_gradient",
    "grad_cam",
)
"""Ways to draw the map of an x-feature, of `attribution.METHODS`, which loads PyTorch; occlusion is
the judge, so it does not take part."""


@dataclass(frozen=True)
class RulesConfig:
    """What is compared.

    Attributes:
        images: most test images per class, spread over the class.
        rules: ways to draw, from `attribution.METHODS`; `NAME:absorb` of the first two ends
            relevance at units that their biases decided.
    """

    images: int = 20
    rules: tuple[str, ...] = RULES

    def __post_init__(self) -> None:
        if self.images < 2:
            raise XNNError(f"images must be at least 2, got {self.images}")


NN = "NN"
"""The method that others are measured by: faithfulness alone."""


@dataclass(frozen=True)
class TuneGrid:
    """Settings to try, and how.

    Attributes:
        methods: methods to tune; NN, the yardstick, has nothing to tune.
        betas: weights of the reconstruction.
        etas: weights of the pull-away term.
        qs: sparsity parameters.
        folds: random splits of the training images that the figures are means over.
    """

    methods: tuple[str, ...] = ("XNN", "SRAE", "SRAE-R", "SAE")
    betas: tuple[float, ...] = (0.03, 0.125, 0.5, 2.0, 8.0)
    etas: tuple[float, ...] = (0.1,)
    qs: tuple[float, ...] = (100.0,)
    folds: int = 1

    def __post_init__(self) -> None:
        if not (self.methods and self.betas and self.etas and self.qs):
            raise XNNError("methods, betas, etas and qs each need at least one value to try")
        for name, least in (("betas", 0.0), ("etas", 0.0), ("qs", 1e-12)):
            if min(getattr(self, name)) < least:
                raise XNNError(f"{name} must not be negative, nor qs 0, got {getattr(self, name)}")
        for method in self.methods:
            if method not in SEEN or method == NN:
                known = ", ".join(name for name in SEEN if name != NN)
                raise XNNError(f"there is nothing to tune of {method!r}; methods are {known}")
        if self.folds < 1:
            raise XNNError(f"folds must be at least 1, got {self.folds}")

    def settings(self, base: TrainConfig) -> dict[str, Setting]:
        """The settings by name, NN first; values that a method does not use make no new ones."""
        found = {NN: Setting(NN, nn_config(base))}
        for method in dict.fromkeys(self.methods):
            for beta, eta, q in product(self.betas, self.etas, self.qs):
                config = SEEN[method](replace(base, beta=beta, eta=eta, q=q))
                name = f"{method}, beta {beta:g}"
                if config.eta:
                    name += f", eta {eta:g}"
                if config.reconstruction == "sparse":
                    name += f", q {q:g}"
                found[name] = Setting(method, config)
        return found


@dataclass(frozen=True)
class Setting:
    """A method with values of beta, eta and q."""

    method: str
    config: TrainConfig


Refits = Literal["seeds", "splits", "bootstraps"]

REFITS: dict[Refits, str] = {
    "seeds": "the same images with another seed",
    "splits": "other images held out, with the same seed",
    "bootstraps": "a bootstrap sample of the training images, with another seed",
}
"""What differs from fit to fit."""

COMPONENTS = "components"
"""Independent components of the class alone, which `XNN` begins at, without a fit."""


@dataclass(frozen=True)
class StabilityConfig:
    """What is refitted.

    Attributes:
        fits: of each kind, method and class; those of other seeds and of other splits have the
            first in common.
        methods: what is fitted: `XNN`, which is what the settings say, and the variants of eq. 5
            (`SRAE`, `SRAE-R`, `NN`, `SAE`), or `components` for the independent components alone.
            The first is tested against the others.
    """

    fits: int = 3
    methods: tuple[str, ...] = ("XNN", "SRAE")

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            XNNError: fewer than 2 fits, or no such method.
        """
        if self.fits < 2:
            raise XNNError(f"stability needs at least 2 fits, got {self.fits}")
        known = (*SEEN, COMPONENTS)
        unknown = [name for name in self.methods if name not in known]
        if unknown or not self.methods:
            raise XNNError(f"there is no method {(*unknown, '')[0]!r}; known: {', '.join(known)}")


PLANTED = "planted"
RANDOM = "random"
PLANTED_METHODS = (*SEEN, "CAE", "NMF", "PCA", "TopK-SAE", "Lasso", "ICA", RANDOM, PLANTED)
"""Rows of the table: what `xnn fit` does by default, the methods of the benchmark, and, to read
them by, random directions of Z and the detectors themselves. `planted_methods` fits them."""


@dataclass(frozen=True)
class PlantedConfig:
    """What `xnn benchmark planted` measures, and how thoroughly.

    Attributes:
        images: that are fitted to, a third of each class; as many again divided by `test_part` are
            measured on.
        test_part: see `images`.
        removal_images: most images per class from which things are removed.
        map_images: most images per class whose maps are measured.
        seeds: how many times everything is made anew.
        n_features: number of concepts of every method.
        classes: whose logits are explained.
        methods: rows of the table, of `PLANTED_METHODS`.
        train: settings of all learned methods but XNN, which has the defaults of `xnn fit`: those
            of the other benchmarks, with more epochs for want of altered copies.
    """

    images: int = 2000
    test_part: int = 4
    removal_images: int = 60
    map_images: int = 10
    seeds: int = 3
    n_features: int = 5
    classes: tuple[int, ...] = (0, 1, 2)
    methods: tuple[str, ...] = PLANTED_METHODS
    train: TrainConfig = field(
        default_factory=lambda: replace(
            FIT, epochs=5 * FIT.epochs, patience=5 * FIT.patience, decay_every=40, revive=10
        )
    )

    def __post_init__(self) -> None:
        least = {"test_part": 1, "removal_images": 1, "map_images": 1, "seeds": 1, "n_features": 2}
        for name, low in {"images": 60, **least}.items():
            if getattr(self, name) < low:
                raise XNNError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not self.methods or not self.classes:
            raise XNNError("give at least one method and one class, or leave them out for all")
        for method in self.methods:
            if method not in PLANTED_METHODS:
                known = ", ".join(PLANTED_METHODS)
                raise XNNError(f"there is no method {method!r}; known: {known}")
