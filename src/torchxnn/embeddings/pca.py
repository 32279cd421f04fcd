"""Principal components of Z as concepts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.embeddings.concepts import ConceptEmbedding, blank_linear, check_activations
from torchxnn.embeddings.exact import exact


class PCAConcepts(ConceptEmbedding):
    r"""Scores of principal components, :math:`E=W(z-\mu)`; signed.

    For its arguments see `ConceptEmbedding`.
    """

    kind = "pca"
    mean: Float[Tensor, " dims"]

    def __init__(self, dims: int, n_features: int, n_targets: int = 1) -> None:
        super().__init__(dims, n_features, n_targets)
        self.encoder = blank_linear(dims, n_features)
        self.register_buffer("mean", torch.full((dims,), torch.nan))

    def encode(self, activations: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch features"]:
        """Scores of activations Z, (B, S_z) -> (B, n)."""
        return self.encoder(activations)

    def decode(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch dims"]:
        r"""Reconstruction :math:`W^\top E+\mu`, (B, n) -> (B, S_z)."""
        return features @ self.encoder.weight + self.mean

    def units(self) -> nn.Module:
        r"""The linear map itself, with the bias :math:`-W\mu`."""
        return self.encoder


@torch.no_grad()
def fit_pca(activations: Float[Tensor, "samples *dims"], n_concepts: int) -> PCAConcepts:
    r"""The n directions of largest variance, from the covariance of Z in float64; no readout yet.

    .. math:: \frac1M\sum_m(z^{(m)}-\mu)(z^{(m)}-\mu)^\top=\sum_l\lambda_lw_lw_l^\top

    The sign of a component is arbitrary, but a heatmap shows what raises its score: here the
    loading of largest size is positive. Nothing is random. Components beyond the rank of Z are some
    orthogonal directions, with score 0 on the training set. n is at most min(M, S_z).

    Returns:
        Components in the order of decreasing variance, of norm 1 and orthogonal.

    Raises:
        DataError: more concepts than samples or dimensions.
        NonFiniteError: NaN or infinity.

    Example:
        >>> fit_pca(train.z, n_concepts=5).encode(test.z)      # (M, 5)
    """
    check_activations(activations, n_concepts)
    z = exact(activations)
    mean = z.mean(0)
    centred = z - mean
    _, vectors = torch.linalg.eigh(centred.mT @ centred / len(z))
    components = vectors.mT.flip(0)[:n_concepts]
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    components = components * torch.where(largest < 0, -1.0, 1.0)
    embedding = PCAConcepts(activations.shape[1], n_concepts).to(activations.device)
    embedding.encoder.weight.copy_(components)
    embedding.encoder.bias.copy_(-components @ mean)
    embedding.mean.copy_(mean)
    return embedding
