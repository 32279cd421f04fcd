"""Concept embeddings to compare an XNN with: what they share, and their linear readout.

Each comes from a function `fit_*` of recorded activations. Those that do not see a target (PCA,
NMF, top-k sparse autoencoder) are fitted once and get one readout per class by `with_readout`.
"""

from __future__ import annotations

import copy
from abc import ABC
from importlib import import_module
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from torchxnn.embeddings.apply import anchor_readout
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.linear import check_weights, least_squares
from torchxnn.errors import DataError, XNNError, check_finite


class ConceptEmbedding(Embedding, ABC):
    """An embedding whose concepts each have a linear direction in Z.

    Nothing starts random: what is not fitted is NaN. In particular the readout is NaN until
    `with_readout` (or a method that sees the target) sets it, so that nothing can be reproduced
    with weights that nobody fitted.

    Args:
        dims: S_z, dimensions of Z.
        n_features: n, number of concepts.
        n_targets: k, number of logits to reproduce.

    Attributes:
        n_features: n.
        readout: `nn.Linear(n, k)`.
    """

    def __init__(self, dims: int, n_features: int, n_targets: int = 1) -> None:
        super().__init__()
        if min(dims, n_features, n_targets) < 1:
            raise XNNError(
                "all sizes must be positive, got "
                f"{dims} dimensions, {n_features} concepts and {n_targets} target(s)"
            )
        self.dims, self.n_features, self.n_targets = dims, n_features, n_targets
        self.readout = blank_linear(n_features, n_targets)
        self.forget_typical()


def blank_linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear map filled with NaN, made without a draw from the global random state."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    for parameter in layer.parameters():
        nn.init.constant_(parameter, torch.nan)
    return layer


Fitted = TypeVar("Fitted", bound=Embedding)


@torch.no_grad()
def with_readout(
    embedding: Fitted,
    features: Float[Tensor, "samples features"],
    logits: Float[Tensor, "rows targets"],
    weights: Float[Tensor, " entries"] | None = None,
    positives: Bool[Tensor, "rows targets"] | None = None,
) -> Fitted:
    r"""A copy of the embedding that reads the given logits by weighted least squares.

    .. math:: \min_{v,b}\sum_m w_m\|v^\top E^{(m)}+b-\hat y^{(m)}\|^2

    Concepts that do not vary get weight 0; among several solutions, one of small norm is taken.

    Args:
        embedding: fitted, with x-features that are numbers; left as it is.
        features: E of the training set, `embedding.encode(Z)`, computed once for all classes.
        logits: (M, k), those to reproduce.
        weights: (M,) sample weights, any scale; None weighs all samples alike.
        positives: (M, k), which samples are positives of which target, so that contributions are
            counted from what the others get (`Embedding.typical`); None leaves them not anchored.

    Raises:
        DataError: numbers of samples or concepts that do not match, or weights without a sum.
        NonFiniteError: NaN or infinity in the features or logits.

    Example:
        >>> concepts, logit = fit_pca(train.z, n_concepts=5), train.logits[:, [47]]
        >>> own = (train.labels == 47).unsqueeze(1)
        >>> goldfinch = with_readout(concepts, concepts.encode(train.z), logit, positives=own)
    """
    if features.shape[1] != embedding.n_features:
        raise DataError(
            f"{features.shape[1]} features for an embedding with {embedding.n_features} concepts"
        )
    weight, bias = least_squares(features, logits, check_weights(weights, features))
    fitted = copy.deepcopy(embedding)
    fitted.n_targets = logits.shape[1]
    fitted.readout = blank_linear(fitted.n_features, fitted.n_targets)
    fitted.readout.to(embedding.readout.weight)
    fitted.readout.weight.copy_(weight)
    fitted.readout.bias.copy_(bias)
    fitted.forget_typical()
    if positives is not None:
        anchor_readout(fitted, [(features, positives)])
    return fitted


def check_activations(activations: Float[Tensor, "samples *dims"], n_concepts: int) -> None:
    """Refuse activations that no concepts can be fitted to.

    Raises:
        DataError: maps instead of vectors, or more concepts than samples or dimensions.
        NonFiniteError: NaN or infinity.
    """
    if activations.ndim != 2:
        raise DataError(
            f"concepts are fitted to vectors (M, S_z), got shape {tuple(activations.shape)}; "
            "average maps over their positions, or attach to a fully connected layer"
        )
    if not 1 <= n_concepts <= min(activations.shape):
        raise DataError(
            f"n_concepts is {n_concepts}; {activations.shape[0]} samples of "
            f"{activations.shape[1]} dimensions allow 1 to {min(activations.shape)}"
        )
    check_finite("the activations contain NaN or infinite values", activations)


def import_sklearn(module: str) -> Any:
    """A module of scikit-learn, which is slow to import, where it is needed.

    Raises:
        XNNError: it is not installed.
    """
    try:
        return import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise XNNError(
            f"this needs scikit-learn, of which sklearn.{module} cannot be imported: "
            "pip install scikit-learn"
        ) from error
