"""Starting points of an SRAE that depend on the data, so that every x-feature starts alive."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.embeddings.linear import fit_linear
from torchxnn.embeddings.srae import SRAE


def deviation(activations: Float[Tensor, "samples dims"]) -> Float[Tensor, ""]:
    """Root of the mean variance of Z; 1 if nothing varies."""
    variance = activations.var(0, correction=0).mean()
    return variance.sqrt() if variance > 0 else torch.ones_like(variance)


def set_scale(embedding: SRAE, activations: Float[Tensor, "samples dims"]) -> None:
    """Set `scale` to the deviation of Z, so that scaled Z has unit variance."""
    embedding.scale.copy_(deviation(activations))


def fit_readout(
    embedding: SRAE,
    features: Float[Tensor, "samples features"],
    logits: Float[Tensor, "samples targets"],
    weights: Float[Tensor, " samples"],
) -> None:
    """Set the readout to the weighted least squares solution for the present x-features."""
    weight, bias = fit_linear(features, logits, weights, ridge=1e-6)
    embedding.readout.weight.copy_(weight)
    embedding.readout.bias.copy_(bias)


def pretrain_greedily(
    embedding: SRAE,
    activations: Float[Tensor, "samples dims"],
    generator: torch.Generator,
    epochs: int = 10,
    batch_size: int = 128,
) -> None:
    """Train each hidden layer as an autoencoder of the one below, from the input up.

    The x-layer itself is left alone: `split_logit` starts it.

    Args:
        embedding: its encoder layers but the last and its decoder layers but the first are set.
        activations: Z, (M, S_z).
        generator: draws the batches.
        epochs: passes over the data per layer.
        batch_size: samples per step.
    """
    with torch.no_grad():
        hidden = embedding.inputs(activations)
    depth = len(embedding.hidden)
    for level in range(depth):
        encode: Any = embedding.encoder[level]
        decode: Any = embedding.decoder[depth - level]
        parameters = [*encode.parameters(), *decode.parameters()]
        if level == 0 and embedding.offset is not None:
            parameters.append(embedding.offset)
        optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        for _ in range(epochs):
            order = torch.randperm(len(hidden), generator=generator)
            for index in order.split(batch_size):
                batch = hidden[index]
                code = torch.relu(encode(batch))
                if level:
                    error = torch.relu(decode(code)) - batch
                else:
                    error = embedding.output(code) - activations[index] / embedding.scale
                optimizer.zero_grad()
                error.square().mean().backward()
                optimizer.step()
        with torch.no_grad():
            hidden = torch.relu(encode(hidden))


def split_logit(
    embedding: SRAE,
    hidden: Float[Tensor, "samples units"],
    logits: Float[Tensor, "samples targets"],
    weights: Float[Tensor, " samples"],
    positives: Bool[Tensor, "samples targets"],
    generator: torch.Generator,
    only: list[int] | None = None,
) -> None:
    r"""Start the x-layer as parts of a linear readout of the logit, each alive on the positives.

    A ridge regression reads the logit from the hidden units, :math:`\hat y\approx\sum_j u_jh_j+c`.
    The units are divided into n groups that vary together on the positives (k-means on the units'
    contributions :math:`u_jh_j` there), and x-feature l starts as the part of its group,
    :math:`E_l=\mathrm{ReLU}(\sum_{j\in G_l}u_jh_j-t_l)`, with the threshold :math:`t_l` at the
    tenth percentile over all samples. So all x-features are active on the positives, and their sum
    is close to the logit. With several targets, x-features take turns.

    Args:
        embedding: its last encoder layer is set.
        hidden: outputs of the layer below the x-layer, (M, h).
        logits: (M, k).
        weights: (M,) sample weights.
        positives: (M, k).
        generator: starts the k-means.
        only: x-features to set; None sets all.
    """
    readout, _ = fit_linear(hidden, logits, weights, ridge=0.1)
    layer: Any = embedding.encoder[-1]
    n, k = embedding.n_features, logits.shape[1]
    for target in range(k):
        members = list(range(target, n, k))
        if not members:
            continue
        parts = hidden[positives[:, target]] * readout[target]
        groups = group_units(parts, len(members), generator)
        for position, feature in enumerate(members):
            if only is not None and feature not in only:
                continue
            weight = torch.where(groups == position, readout[target], 0.0)
            response = hidden @ weight
            spread = response.std().clamp(min=1e-6)
            layer.weight[feature] = weight / spread
            layer.bias[feature] = -torch.quantile(response / spread, 0.1)


def group_units(
    parts: Float[Tensor, "samples units"],
    n_groups: int,
    generator: torch.Generator,
    steps: int = 20,
) -> Tensor:
    """Divide units into groups that vary together: k-means on their centred, normalised columns.

    Args:
        parts: (M, h), what each unit contributes on each sample.
        n_groups: number of groups; none is left empty if there are that many units.
        generator: draws the first centres.
        steps: Lloyd iterations.

    Returns:
        (h,) group of each unit.
    """
    columns = (parts - parts.mean(0)).mT
    columns = columns / columns.norm(dim=1, keepdim=True).clamp(min=1e-12)
    centres = columns[torch.randperm(len(columns), generator=generator)[:n_groups]]
    if len(centres) < n_groups:
        return torch.arange(len(columns)) % n_groups
    groups = torch.zeros(len(columns), dtype=torch.long)
    for _ in range(steps):
        groups = (columns @ centres.mT).argmax(1)
        for group in range(n_groups):
            if not bool((groups == group).any()):
                largest = int(groups.bincount(minlength=n_groups).argmax())
                inside = (groups == largest).nonzero().flatten()
                groups[inside[: max(1, len(inside) // 2)]] = group
        centres = torch.stack([columns[groups == group].mean(0) for group in range(n_groups)])
        centres = centres / centres.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return groups


def weak_features(
    features: Float[Tensor, "samples features"],
    contributions: Float[Tensor, "samples targets features"],
    positives: Bool[Tensor, "samples targets"],
    least: float = 0.05,
) -> list[int]:
    r"""X-features that are 0 on every positive, or carry less than a share of every target.

    Args:
        features: E, (M, n).
        contributions: v_i E_i, (M, k, n).
        positives: (M, k).
        least: share of the sum of mean :math:`|v_iE_i|` over the target's positives.
    """
    mask = positives.unsqueeze(2).to(contributions)
    size = (contributions.abs() * mask).sum(0)
    share = size / size.sum(1, keepdim=True).clamp(min=torch.finfo(size.dtype).tiny)
    dead = (features[positives.any(1)] <= 0).all(0)
    return (dead | (share < least).all(0)).nonzero().flatten().tolist()
