"""The SRAE's objective (paper eq. 5), for several fits at once: on a batch, and over a set."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.embeddings.apply import Embedded
from torchxnn.embeddings.autoencoder import Autoencoder
from torchxnn.embeddings.linear import group_moments, products, second_moments
from torchxnn.errors import XNNError
from torchxnn.training import losses
from torchxnn.training.config import Losses, Reconstruction, TrainConfig
from torchxnn.training.relevance import relevance_moments, relevance_through
from torchxnn.training.slots import CPU_SLOTS
from torchxnn.training.split import Split
from torchxnn.training.stacked import Stack
from torchxnn.training.stacked_split import StackedSplit

VALUES_AT_ONCE = 2**24
"""Reconstructed numbers that are held at once while a whole set is measured."""


@dataclass(frozen=True, eq=False)
class Terms:
    """Means that eq. 5 is a function of, one entry per fit.

    Of maps, Q and the second moments are means over images and positions, so x-features that are
    active on the same image at different places count as different; the others are per image.

    Attributes:
        faithful: (G,), squared error of the logits over their spread.
        errors: Q, (G, S_z); None without reconstruction.
        moments: second moments of E, (G, n, n).
        means: first moments of E by group, (G, c, n); None if E is not centred.
        apart: (G,), squared distance of contributions from the components over the logit's
            variance; None without components.
    """

    faithful: Float[Tensor, " fits"]
    errors: Float[Tensor, "fits dims"] | None
    moments: Float[Tensor, "fits features features"]
    means: Float[Tensor, "fits groups features"] | None
    apart: Float[Tensor, " fits"] | None = None


def batch_statistics(
    stack: Stack,
    inputs: Float[Tensor, "fits samples inputs"],
    z: Float[Tensor, "fits samples dims"],
    rows: StackedSplit,
    reconstruction: Reconstruction,
    places: Int64[Tensor, "fits places"] | None = None,
) -> Terms:
    """The means over one batch of every fit.

    Inputs are what the first layers see of Z, which is scaled; `rows` is what the fits have beside
    it of the same samples. The reconstruction "none" leaves the decoder out; `places` are positions
    of the maps at which Z is reconstructed, None for all.
    """
    features = stack.encode(inputs)
    reproduced = stack.readout(features)
    reconstructed = None
    if reconstruction != "none":
        if places is not None:
            z = stack.at(z, places)
        reconstructed = stack.decode_scaled(
            features if places is None else stack.at(features, places)
        )
    with precision(z.device, reduced=False):  # means need the full one
        e = features.to(z.dtype)
        errors = None
        if reconstructed is not None:
            errors = losses.reconstruction_errors(reconstructed.to(z.dtype), z)
        return Terms(
            losses.faithfulness(reproduced.to(z.dtype) / rows.spread, rows.logits / rows.spread),
            errors,
            second_moments(e),
            None if rows.groups is None else group_moments(stack.summarise(e), rows.groups),
            None if rows.components is None else distance(stack, e, rows).mean(1),
        )


def distance(
    stack: Stack, features: Float[Tensor, "fits batch features"], rows: StackedSplit
) -> Float[Tensor, "fits batch"]:
    """Squared distance of the contributions to one target from components, over its variance.

    0 for a fit without components.
    """
    contributions = features * stack.values["readout.weight"].mT
    if rows.components is None or rows.held is None:
        return torch.zeros_like(features[..., 0])
    apart = ((contributions - rows.components) / rows.spread).square().sum(2)
    return apart * rows.held.unsqueeze(1)


def precision(device: torch.device, reduced: bool) -> AbstractContextManager[object]:
    """Compute matrix products in bfloat16, or not, in a `with`, where the device can."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=reduced)


def loss_of_terms(
    terms: Terms, shares: Float[Tensor, "fits groups"] | None, config: TrainConfig
) -> Float[Tensor, " fits"]:
    """Eq. 5 from its means: faithfulness + beta * reconstruction + eta * pull-away."""
    own = terms.faithful if config.faithful else 0.0 * terms.faithful
    sparse = reconstruction_loss(terms.errors, config)
    orthogonal = losses.pull_away(terms.moments, terms.means, shares)
    apart = 0.0 if terms.apart is None else config.components * terms.apart
    return own + config.beta * sparse + config.eta * orthogonal + apart


def reconstruction_loss(
    errors: Float[Tensor, "*fits dims"] | None, config: TrainConfig
) -> Float[Tensor, "*fits"]:
    """The second term of the loss, from the mean squared error of each dimension of Z."""
    if errors is None:
        return torch.zeros(())
    if config.reconstruction == "squared":
        return errors.mean(-1)
    return losses.sparse_reconstruction(errors, config.q)


def overlap_terms(
    stack: Stack, z: Float[Tensor, "fits batch dims"], positives: Bool[Tensor, "fits batch"]
) -> tuple[Float[Tensor, "fits features features"], Float[Tensor, "fits 1 features"]]:
    """`relevance_moments` of every fit; zero where a fit has no positives in the batch."""
    if not stack.nonnegative:
        raise XNNError("relevance on Z needs activations >= 0: attach to a layer after its ReLU")
    found = [
        relevance_moments(relevance_through(*stack.encoder_of(fit), z[fit][chosen]))
        for fit, chosen in enumerate(positives)
    ]
    return torch.stack([moments for moments, _ in found]), torch.stack([m for _, m in found])


@torch.no_grad()
def exact_losses(
    stack: Stack, splits: Sequence[Split], rows: StackedSplit, config: TrainConfig
) -> list[Losses]:
    """The terms of eq. 5 of every fit, exact over a whole set, a few samples at a time.

    The splits, one per fit, are of the same `data`; `rows` are what they hold beside it, stacked.
    The device is waited for once, but for `config.relevance`.
    """
    z = splits[0].data.z
    found: list[Tensor] | None = None
    count = _samples_at_once(len(splits), z)
    for start in range(0, len(z), count):
        part = slice(start, start + count)
        terms = _sums(stack, z[part], rows.part(part), config)
        found = terms if found is None else [a + b for a, b in zip(found, terms, strict=True)]
    if found is None:
        raise XNNError("there are no samples to measure a fit on")
    faithful, errors, moments, means, apart = found
    nothing = torch.zeros_like(faithful)
    sparse = reconstruction_loss(errors, config) if errors.numel() else nothing
    orthogonal = losses.pull_away(moments, means if means.numel() else None, rows.shares)
    apart = apart if apart.numel() else nothing
    table = torch.stack([faithful, sparse, orthogonal, apart], 1).tolist()
    overlap = [0.0] * len(splits)
    if config.relevance:
        overlap = [_overlap(stack, fit, split) for fit, split in enumerate(splits)]
    return [
        _losses(fit, sparse, orthogonal, apart, more, config)
        for (fit, sparse, orthogonal, apart), more in zip(table, overlap, strict=True)
    ]


def _samples_at_once(fits: int, z: Float[Tensor, "samples dims *map"]) -> int:
    """Samples that are measured at once: one fit takes as many as a CPU's group, and sums alike."""
    return max(1, VALUES_AT_ONCE // (max(fits, CPU_SLOTS) * z[0].numel()))


def _sums(
    stack: Stack, z: Float[Tensor, "batch dims *map"], rows: StackedSplit, config: TrainConfig
) -> list[Tensor]:
    """Weighted sums over some samples: what `Terms` holds the means of; empty if left out."""
    fits, weight = len(stack), rows.weights
    scaled = stack.samples(z) / stack.scale
    features = stack.encode(stack.inputs(scaled).expand(fits, -1, -1))
    error = (stack.readout(features) - rows.logits) / rows.spread
    faithful = (weight * error.square().sum(2)).sum(1)
    each = weight.repeat_interleave(stack.positions, 1) / stack.positions
    errors = means = features.new_zeros(0)
    if config.reconstruction != "none":
        missing = (stack.decode_scaled(features) - scaled).square()
        errors = products(each.unsqueeze(1), missing).squeeze(1)
    if rows.groups is not None:
        means = products(rows.groups.mT, stack.summarise(features) * weight.unsqueeze(2))
    apart = features.new_zeros(0)
    if rows.components is not None:
        apart = (weight * distance(stack, features, rows)).sum(1)
    moments = products(features.mT, features * each.unsqueeze(2))
    return [faithful, errors, moments, means, apart]


def _overlap(stack: Stack, fit: int, split: Split) -> float:
    z = split.data.z[split.positives.any(1)] / stack.scale
    relevance = relevance_through(*stack.encoder_of(fit), z)
    return float(losses.pull_away(*relevance_moments(relevance)))


def _losses(
    faithful: float,
    sparse: float,
    orthogonal: float,
    apart: float,
    overlap: float,
    config: TrainConfig,
) -> Losses:
    own = faithful if config.faithful else 0.0
    total = own + config.beta * sparse + config.eta * orthogonal + config.relevance * overlap
    total += config.components * apart
    return Losses(faithful, sparse, orthogonal, total, overlap, apart)


def full_set_losses(
    embedding: Autoencoder, split: Split, spread: Float[Tensor, " targets"], config: TrainConfig
) -> Losses:
    """The terms of eq. 5 of one embedding, exact over a whole set."""
    stack = Stack([embedding], split.data.z.device)
    rows = StackedSplit.of([split], spread.unsqueeze(0), config.pull_away)
    return exact_losses(stack, [split], rows, config)[0]


@torch.no_grad()
def apply_stack(stack: Stack, z: Float[Tensor, "samples dims"]) -> list[Embedded]:
    """What every fit makes of vectors Z, on the CPU; see `apply_embedding`."""
    fits, found = len(stack), []
    for part in z.split(_samples_at_once(fits, z)):
        inputs = stack.inputs(stack.samples(part) / stack.scale)
        found.append(stack.encode(inputs.expand(fits, -1, -1)))
    features, weights = torch.cat(found, 1), stack.values["readout.weight"].mT.cpu()
    every = zip(features.cpu(), weights, stack.readout(features).cpu(), strict=True)
    return [Embedded(own, own.unsqueeze(1) * weight, logits) for own, weight, logits in every]
