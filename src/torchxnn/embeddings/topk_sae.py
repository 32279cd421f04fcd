"""Top-k sparse autoencoder (Gao et al. 2024, Scaling and evaluating sparse autoencoders).

The package `overcomplete` has this model without the offset of the decoder. It is a reference in
the tests and no dependency: version 0.3 cannot be imported beside matplotlib 3.9 or later, and
brings a second OpenCV that overwrites ours.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.embeddings.concepts import ConceptEmbedding, blank_linear, check_activations
from torchxnn.embeddings.exact import exact
from torchxnn.embeddings.linear import deviation
from torchxnn.errors import XNNError, XNNWarning


@dataclass(frozen=True)
class TopKConfig:
    """Settings of the training of a top-k sparse autoencoder.

    Attributes:
        top_k: concepts that may be active on one sample; None takes half of them, rounded up.
        epochs: passes over the data.
        batch_size: samples per step.
        learning_rate: of Adam, at the start; it falls to 0 along half a cosine.
        revive: epochs after which concepts that fired on no sample are restarted, during the first
            half of the training; None never restarts.
        seed: of everything random.
    """

    top_k: int | None = None
    epochs: int = 100
    batch_size: int = 128
    learning_rate: float = 1e-2
    revive: int | None = 5
    seed: int = 0


class TopKSAE(ConceptEmbedding):
    r"""Codes :math:`E=\mathrm{TopK}(\mathrm{ReLU}(Wz+b))`, reconstruction :math:`EH+c`.

    The rows of H have norm 1, so a code is in the units of Z. `units` leave the top-k out: a
    concept has a map whether or not k others are stronger on the same image.

    Args:
        dims: S_z; see `ConceptEmbedding` for it, for `n_features` and for `n_targets`.
        top_k: concepts that may be active on one sample.
    """

    kind = "topk_sae"

    def __init__(
        self, dims: int, n_features: int, n_targets: int = 1, top_k: int | None = None
    ) -> None:
        super().__init__(dims, n_features, n_targets)
        self.top_k = math.ceil(n_features / 2) if top_k is None else top_k
        if not 1 <= self.top_k <= n_features:
            raise XNNError(f"top_k is {top_k}; with {n_features} concepts it must be 1 to that")
        self.encoder = blank_linear(dims, n_features)
        self.decoder = blank_linear(n_features, dims)

    def encode(self, activations: Float[Tensor, "batch dims"]) -> Float[Tensor, "batch features"]:
        """Codes E >= 0 of activations Z, at most `top_k` of them positive per sample."""
        codes = torch.relu(self.encoder(activations))
        largest = codes.topk(self.top_k, dim=1)
        return torch.zeros_like(codes).scatter(1, largest.indices, largest.values)

    def decode(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch dims"]:
        """Reconstruction of Z, (B, n) -> (B, S_z)."""
        return self.decoder(features)

    def units(self) -> nn.Module:
        """Linear encoder and ReLU, without the top-k."""
        return nn.Sequential(self.encoder, nn.ReLU())


def fit_topk_sae(
    activations: Float[Tensor, "samples *dims"], n_concepts: int, config: TopKConfig | None = None
) -> TopKSAE:
    r"""Train a top-k sparse autoencoder on Z; no readout yet.

    .. math:: \min\frac1M\sum_m\|z^{(m)}-E^{(m)}H-c\|^2,\qquad\|H_l\|=1

    Concepts start as directions of random samples from the mean, and a concept that fires on no
    sample restarts in the direction of a sample that is reconstructed badly. Z is divided by one
    number while training, so that the learning rate means the same for every layer.

    Args:
        activations: Z, (M, S_z), of any sign.
        n_concepts: n.
        config: settings.

    Returns:
        In evaluation mode. Concepts that are still dead give a warning; they do no harm.

    Raises:
        DataError: more concepts than samples or dimensions.
        NonFiniteError: NaN or infinity.
        XNNError: top_k out of range.

    Example:
        >>> concepts = fit_topk_sae(train.z, n_concepts=25, config=TopKConfig(top_k=5))
    """
    config = config or TopKConfig()
    check_activations(activations, n_concepts)
    activations = activations.float()
    embedding = TopKSAE(activations.shape[1], n_concepts, top_k=config.top_k)
    generator = torch.Generator().manual_seed(config.seed)
    scale = float(deviation(exact(activations)))
    z = activations / scale
    _start(embedding.to(z.device), z, generator)
    with torch.enable_grad():
        _train(embedding, z, config, generator)
    with torch.no_grad():
        embedding.encoder.bias.mul_(scale)
        embedding.decoder.bias.mul_(scale)
        dead = int((embedding.encode(activations) == 0).all(0).sum())
    if dead:
        warnings.warn(
            f"{dead} of {n_concepts} concepts of the top-k sparse autoencoder fire on no sample; "
            "raise top_k or take fewer concepts",
            XNNWarning,
            stacklevel=2,
        )
    return embedding.eval()


def _train(
    embedding: TopKSAE,
    z: Float[Tensor, "samples dims"],
    config: TopKConfig,
    generator: torch.Generator,
) -> None:
    weight = embedding.decoder.weight
    parameters = [*embedding.encoder.parameters(), *embedding.decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
    steps = config.epochs * math.ceil(len(z) / config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    for epoch in range(config.epochs):
        order = torch.randperm(len(z), generator=generator).to(z.device)
        for index in order.split(config.batch_size):
            batch = z[index]
            loss = (embedding.decode(embedding.encode(batch)) - batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():  # the rows of H, columns of the decoder, are of norm 1 again
                weight.copy_(nn.functional.normalize(weight, dim=0))
        due = config.revive is not None and (epoch + 1) % config.revive == 0
        if due and epoch + 1 <= config.epochs // 2:
            _revive(embedding, z)


@torch.no_grad()
def _start(
    embedding: TopKSAE, z: Float[Tensor, "samples dims"], generator: torch.Generator
) -> None:
    mean = z.mean(0)
    embedding.decoder.bias.copy_(mean)
    chosen = torch.randperm(len(z), generator=generator)[: embedding.n_features].to(z.device)
    _point(embedding, torch.arange(embedding.n_features), z[chosen] - mean)


@torch.no_grad()
def _revive(embedding: TopKSAE, z: Float[Tensor, "samples dims"]) -> None:
    codes = embedding.encode(z)
    dead = (codes == 0).all(0).nonzero().flatten()
    residual = z - embedding.decode(codes)
    worst = residual.square().sum(1).argsort(descending=True, stable=True)[: len(dead)]
    _point(embedding, dead, residual[worst])


@torch.no_grad()
def _point(
    embedding: TopKSAE, concepts: Tensor, directions: Float[Tensor, "concepts dims"]
) -> None:
    """Let concepts measure how far Z goes from the decoder's offset in the given directions."""
    rows = nn.functional.normalize(directions, dim=1)
    embedding.encoder.weight[concepts] = rows
    embedding.encoder.bias[concepts] = -rows @ embedding.decoder.bias
    embedding.decoder.weight[:, concepts] = rows.mT
