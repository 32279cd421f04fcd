"""Settings of the benchmark on FunnyBirds; the same fields are command line and saved JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.errors import XNNError
from torchxnn.training.config import TrainConfig

RULES = (
    "excitation_backprop",
    "effective_weights",
    "input_x_gradient",
    "integrated_gradients",
    "grad_cam",
    "occlusion",
    "removal",
)
"""Ways to draw a map whose truth is measured; effective weights are for x-features alone."""

SUBSPACE = 64
"""Dimensions of Z that fits are confined to while they are made, as `fit_many` is used."""


TUNED_BETA = 2.0
"""Weight of the reconstruction in SRAE, SRAE-R and SAE, as tuned on birds of CUB-200-2011 before
they were tuned one by one; the tables on record have it."""


def default_config() -> BenchmarkConfig:
    """Settings of the fits: what `xnn fit` does unless told otherwise, in a subspace of Z.

    No altered copies: a mirrored or turned bird would still be a bird, but its part maps are not
    rendered.
    """
    train = TrainConfig(subspace=SUBSPACE)
    betas = dict.fromkeys(("SRAE", "SRAE-R", "SAE"), TUNED_BETA)
    return BenchmarkConfig(copies=0, map_images=5, masking=False, train=train, betas=betas)


@dataclass(frozen=True)
class TruthConfig:
    """What is measured beside the changes themselves.

    Attributes:
        methods: rows that are measured beside `XNN`; all by default.
        maps: whether maps are drawn, which takes most of the time beside SRAE-R's fit.
        refits: fits of today's default with another seed on another bootstrap sample of the
            training images, whose recovery is measured; 0 for none.
        rules: ways to draw the maps of the default's x-features and of the logit, from `RULES`.
        steps: points on the way of integrated gradients.
        official: whether the protocol of the data set's authors is run.
        official_rules: ways to draw maps of the logit that take part in it; all by default that
            need to know nothing but the network, `attribution.methods.OF_ANY_MODULE`.
        official_images: most test images per class for it, spread over the class; None for all.
        peers: whether methods of other packages take part, where these are installed.
        bounds: whether ceilings, fitted with the part labels, and floors take part.
    """

    methods: tuple[str, ...] = ()
    maps: bool = True
    refits: int = 5
    rules: tuple[str, ...] = RULES
    steps: int = 16
    official: bool = True
    official_rules: tuple[str, ...] = ()
    official_images: int | None = None
    peers: bool = True
    bounds: bool = True

    def __post_init__(self) -> None:
        if self.refits < 0 or self.steps < 1:
            raise XNNError(
                f"refits must be at least 0 and steps at least 1, got {self.refits} and "
                f"{self.steps}"
            )
        if self.official_images is not None and self.official_images < 1:
            raise XNNError(f"official_images must be at least 1, got {self.official_images}")
        refuse_unknown_rules(self.rules, RULES)


def refuse_unknown_rules(rules: Sequence[str], known: Sequence[str]) -> None:
    """Refuse ways to draw a map that cannot take part.

    Raises:
        XNNError: one is not known.
    """
    for rule in rules:
        if rule not in known:
            raise XNNError(f"unknown rule {rule!r}; known: {', '.join(known)}")
