"""The methods that the benchmark compares (paper section 4.2), by name.

Those that see the logit are fitted per class. The others are fitted once and get a linear readout
per class. All of them see the same activations and the same sample weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.apps.benchmark.variants import SEEN, cae_config
from torchxnn.data.activations import Activations
from torchxnn.data.positives import find_positives, sample_weights
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.concepts import ConceptEmbedding, with_readout
from torchxnn.embeddings.directions import as_directions
from torchxnn.embeddings.lasso import fit_lasso_path, lasso_embedding
from torchxnn.embeddings.linear import fit_linear
from torchxnn.embeddings.nmf import fit_nmf
from torchxnn.embeddings.pca import fit_pca
from torchxnn.embeddings.topk_sae import TopKConfig, fit_topk_sae
from torchxnn.errors import DegenerateFitWarning, XNNWarning
from torchxnn.training.config import TrainConfig
from torchxnn.training.fit import fit_embedding
from torchxnn.training.initialise import SharedStarts
from torchxnn.training.report import FitReport

LASSO_SIZES = (5, 8, 21, 68, 232)
"""Numbers of selected dimensions in the paper's tables .4 and .6."""

MORE_CONCEPTS = 25
"""Concepts that unsupervised methods get in the comparison that favours them."""


@dataclass(frozen=True, eq=False)
class FitData:
    """Recorded activations that every method is fitted to.

    Attributes:
        train: images and their altered copies.
        validation: other training images, for early stopping.
        starts: what the fits to them begin with.
    """

    train: Activations
    validation: Activations
    starts: SharedStarts = field(default_factory=SharedStarts)


def fit_variant(
    name: str, data: FitData, targets: tuple[int, ...], n_features: int, base: TrainConfig
) -> tuple[Embedding, FitReport]:
    """Fit one of `SEEN` to one class; its figures tell whether it is degenerate."""
    return fit_to(data, targets, n_features, SEEN[name](base))


def fit_to(
    data: FitData, targets: tuple[int, ...], n_features: int, config: TrainConfig
) -> tuple[Embedding, FitReport]:
    """Fit with just these settings."""
    with warnings.catch_warnings(action="ignore", category=DegenerateFitWarning):
        return fit_embedding(
            data.train, data.validation, targets, n_features, config, starts=data.starts
        )


def fit_cae(data: FitData, n_concepts: int, base: TrainConfig) -> Embedding:
    """An autoencoder on Z; what its readout was fitted to is replaced for every class."""
    return fit_to(data, (0,), n_concepts, cae_config(base))[0]


def _quiet(fit: Callable[[], ConceptEmbedding]) -> ConceptEmbedding:
    # dead concepts are in the tables
    with warnings.catch_warnings(action="ignore", category=XNNWarning):
        return fit()


BLIND: dict[str, Callable[[FitData, int, TrainConfig], Embedding]] = {
    "CAE": fit_cae,
    "NMF": lambda data, n, base: _quiet(lambda: fit_nmf(data.train.z, n, seed=base.seed)),
    "PCA": lambda data, n, base: fit_pca(data.train.z, n),
    "TopK-SAE": lambda data, n, base: _quiet(
        lambda: fit_topk_sae(data.train.z, n, TopKConfig(seed=base.seed))
    ),
}
"""Methods that do not see the target: name -> fit."""


def read_class(embedding: Embedding, data: FitData, target: int, base: TrainConfig) -> Embedding:
    """Give an embedding that was fitted without a target its readout for one class.

    Positives are weighted as in `base`.
    """
    weights = sample_weights(data.train, (target,), base.positive_share)
    logits = data.train.logits[:, [target]]
    with torch.no_grad():
        features = embedding.encode(data.train.z)
    return with_readout(
        embedding, features, logits, weights, find_positives(data.train, [target])[0]
    )


RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""Penalties of the ridge regression of the logit on Z that are tried on held-out images."""


def fit_ridge(data: FitData, target: int, base: TrainConfig) -> Embedding:
    """One x-feature, the logit itself: weighted ridge regression on Z, no concepts at all.

    The penalty is the one of `RIDGES` with the highest R^2 on the held-out images. What reproducing
    a logit takes, and what every other figure of faithfulness is to be read against.
    """
    train, held_out = data.train, data.validation
    weights = sample_weights(train, (target,), base.positive_share)
    fits = [fit_linear(train.z, train.logits[:, [target]], weights, ridge) for ridge in RIDGES]
    errors = [
        float((held_out.z @ weight[0] + bias - held_out.logits[:, target]).square().mean())
        for weight, bias in fits
    ]
    weight, bias = fits[errors.index(min(errors))]
    return read_class(as_directions(weight, bias, train.z), data, target, base)


def fit_lasso_sizes(
    data: FitData, target: int, base: TrainConfig, sizes: tuple[int, ...] = LASSO_SIZES
) -> dict[int, ConceptEmbedding]:
    """Points of the Lasso path with about the given numbers of dimensions."""
    weights = sample_weights(data.train, (target,), base.positive_share)
    path = fit_lasso_path(data.train.z, data.train.logits[:, target], weights, most=max(sizes))
    positives = find_positives(data.train, [target])[0][:, 0]
    return {size: lasso_embedding(path.nearest(size), data.train.z, positives) for size in sizes}


class UnitsOfMany(nn.Module):
    """The units of several embeddings side by side, on top of one layer of a model.

    One forward pass of the model and one positive pass serve the maps of all of them.
    `layer_output` makes Z (B, S_z) of images; the embeddings are in the order of the columns.
    """

    def __init__(
        self, layer_output: Callable[[Tensor], Tensor], embeddings: list[Embedding]
    ) -> None:
        super().__init__()
        self._layer_output = layer_output
        self.sizes = [embedding.n_features for embedding in embeddings]
        self.units = nn.ModuleList(embedding.units() for embedding in embeddings)

    def forward(self, images: Tensor) -> Float[Tensor, "batch units"]:
        """All units, (B, sum of the numbers of concepts)."""
        z = self._layer_output(images)
        parts: list[Any] = [unit(z) for unit in self.units]
        return torch.cat(parts, 1)
