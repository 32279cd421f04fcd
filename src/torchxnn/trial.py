"""One fit of an SRAE with one seed: start, epochs, revival, early stopping (paper eq. 5)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from torchxnn import losses
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.initialise import (
    below_x_layer,
    fit_readout,
    split_logit,
    weak_features,
)
from torchxnn.embeddings.relevance import relevance_on_activations
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import NonFiniteError
from torchxnn.start import refit_readout, start_embedding
from torchxnn.train_config import Losses, Side, TrainConfig

Fitted = TypeVar("Fitted", bound=Embedding)


@dataclass(eq=False)
class Trial(Generic[Fitted]):
    """State of one fit with one seed.

    Attributes:
        embedding: what is fitted.
        losses: lowest held-out losses, once the trial has ended.
        epochs: epochs that were run.
        revived: x-features that were restarted.
        means: running means of Q, of E's second moments and of its first moments by group.
    """

    embedding: Fitted
    losses: Losses | None = None
    epochs: int = 0
    revived: int = 0
    means: dict[str, Tensor] = field(default_factory=dict)


def run_trial(
    sides: tuple[Side, Side],
    spread: Float[Tensor, " targets"],
    n_features: int,
    config: TrainConfig,
    number: int,
    on_epoch: Callable[[int, int, Losses], None] | None,
) -> Trial[SRAE]:
    """Fit one SRAE and return it as it was at its lowest held-out loss.

    Args:
        sides: training and held-out data.
        spread: (k,) standard deviation of the logits over the training data.
        n_features: n.
        config: settings.
        number: of the trial; gives each its own seed.
        on_epoch: called with (trial, epoch, held-out losses).

    Raises:
        NonFiniteError: the loss became NaN or infinite.
    """
    train, validation = sides
    generator = torch.Generator().manual_seed(config.seed + 7919 * number)
    trial = Trial(start_embedding(train, n_features, config, generator))
    best, trial.epochs = run_epochs(
        trial.embedding,
        lambda optimizer: _train_epoch(trial, optimizer, train, spread, config, generator),
        lambda optimizer: _revive(trial, optimizer, train, generator),
        lambda: full_set_losses(trial.embedding, validation, spread, config),
        config,
        None if on_epoch is None else partial(on_epoch, number),
    )
    if not config.faithful:
        refit_readout(trial.embedding, train)
        best = full_set_losses(trial.embedding, validation, spread, config)
    trial.losses = best
    return trial


def run_epochs(
    embedding: Module,
    train: Callable[[Optimizer], None],
    revive: Callable[[Optimizer], None],
    measure: Callable[[], Losses],
    config: TrainConfig,
    on_epoch: Callable[[int, Losses], None] | None,
) -> tuple[Losses, int]:
    """Adam with step decay, revival and early stopping, for embeddings of any kind.

    Args:
        embedding: is fitted, and left as it was at its lowest held-out loss.
        train: one pass over the data.
        revive: restarts weak x-features.
        measure: the held-out losses.
        config: settings.
        on_epoch: called with (epoch, held-out losses).

    Returns:
        The lowest held-out losses, and the number of epochs that were run.

    Raises:
        NonFiniteError: the loss became NaN or infinite.
    """
    optimizer = torch.optim.Adam(
        embedding.parameters(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True,
    )
    best_state, best, best_epoch = copy.deepcopy(embedding.state_dict()), measure(), 0
    for epoch in range(1, config.epochs + 1):
        if config.decay_every:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * 0.1 ** ((epoch - 1) // config.decay_every)
        train(optimizer)
        if config.revive and epoch % config.revive == 0 and epoch <= config.epochs // 2:
            revive(optimizer)
        current = measure()
        if not math.isfinite(current.total):
            raise NonFiniteError(
                f"the loss became {current.total} in epoch {epoch}; lower learning_rate "
                f"(now {config.learning_rate}) or q"
            )
        if current.total < best.total:
            best, best_epoch = current, epoch
            best_state = copy.deepcopy(embedding.state_dict())
        if on_epoch is not None:
            on_epoch(epoch, current)
        if epoch - best_epoch >= config.patience:
            break
    embedding.load_state_dict(best_state)
    return best, epoch


def _train_epoch(
    trial: Trial[SRAE],
    optimizer: Optimizer,
    train: Side,
    spread: Float[Tensor, " targets"],
    config: TrainConfig,
    generator: torch.Generator,
) -> None:
    steps = max(1, len(train.data) // config.batch_size)
    draws = torch.multinomial(
        train.weights, steps * config.batch_size, replacement=True, generator=generator
    )
    groups = train.groups(config.pull_away)
    shares = None if groups is None else train.weights @ groups
    for index in draws.split(config.batch_size):
        z, logits = train.data.z[index], train.logits[index] / spread
        part = None if groups is None else groups[index]
        terms = _batch_terms(trial, z, logits, part, shares, spread, config, 1 / steps)
        loss = total_loss(terms, config)
        if config.relevance:
            positives = z[train.positives[index].any(1)]
            loss = loss + config.relevance * _relevance_term(trial, positives, 1 / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batch_terms(
    trial: Trial[SRAE],
    z: Float[Tensor, "batch dims"],
    logits: Float[Tensor, "batch targets"],
    groups: Float[Tensor, "batch groups"] | None,
    shares: Float[Tensor, " groups"] | None,
    spread: Float[Tensor, " targets"],
    config: TrainConfig,
    step: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The three terms, at the running estimate of the training set's means."""
    embedding = trial.embedding
    features = embedding.encode(z)
    errors = None
    if config.reconstruction != "none":
        scale = embedding.scale
        batch = losses.reconstruction_errors(embedding.decode(features) / scale, z / scale)
        errors = running_mean(trial.means, "errors", batch, step)
    moments = running_mean(trial.means, "moments", losses.second_moments(features), step)
    means = None
    if groups is not None:
        means = running_mean(trial.means, "means", losses.group_moments(features, groups), step)
    return (
        losses.faithfulness(embedding.readout(features) / spread, logits),
        reconstruction_loss(errors, config),
        losses.pull_away(moments, means, shares),
    )


def _relevance_term(trial: Trial[SRAE], z: Float[Tensor, "positives dims"], step: float) -> Tensor:
    """Squared correlation of the x-features' relevance on Z, at the running means."""
    if len(z) == 0:
        return torch.zeros(())
    moments, means = relevance_moments(trial.embedding, z)
    return losses.pull_away(
        running_mean(trial.means, "relevance", moments, step),
        running_mean(trial.means, "relevance means", means, step),
    )


def relevance_moments(
    embedding: SRAE, z: Float[Tensor, "positives dims"]
) -> tuple[Float[Tensor, "features features"], Float[Tensor, "1 features"]]:
    """Second and first moments of the relevance on Z, over all samples and dimensions.

    Times the number of dimensions, so that a map that looks everywhere alike is 1 everywhere.
    """
    relevance = relevance_on_activations(embedding, z) * z.shape[1]
    flat = relevance.transpose(1, 2).flatten(0, 1)
    return losses.second_moments(flat), flat.mean(0, keepdim=True)


def running_mean(means: dict[str, Tensor], name: str, batch: Tensor, step: float) -> Tensor:
    """Running mean of a batch's mean, with the gradient of the batch's own mean.

    The penalties of eq. 5 are concave functions or quotients of training set means. Evaluated at
    the running mean, their slope there multiplies the unbiased gradient of the batch mean, so that
    in the limit of small steps the gradient is that of the exact loss, whatever the batch size. The
    mean of the penalties of batches would be another, lower function.

    Args:
        means: the running means by name; updated.
        name: which one.
        batch: mean over the batch, any shape.
        step: weight of the batch, one over the batches of an epoch.
    """
    before = means.get(name)
    now = batch.detach() if before is None else torch.lerp(before, batch.detach(), step)
    means[name] = now
    return now + (batch - batch.detach())


def _revive(
    trial: Trial[SRAE], optimizer: Optimizer, train: Side, generator: torch.Generator
) -> None:
    embedding, z = trial.embedding, train.data.z
    with torch.no_grad():
        features = embedding.encode(z)
        weak = weak_features(features, embedding.contributions(features), train.positives)
        if not weak:
            return
        hidden = below_x_layer(embedding, z)
        split_logit(
            embedding, hidden, train.logits, train.weights, train.positives, generator, only=weak
        )
        fit_readout(embedding, embedding.encode(z), train.logits, train.weights)
    trial.revived += len(weak)
    trial.means.clear()
    for parameter in (*embedding.encoder[-1].parameters(), *embedding.readout.parameters()):
        optimizer.state.pop(parameter, None)


@torch.no_grad()
def full_set_losses(
    embedding: SRAE, split: Side, spread: Float[Tensor, " targets"], config: TrainConfig
) -> Losses:
    """The terms of eq. 5, exact over a whole set."""
    z, scale = split.data.z, embedding.scale
    features = embedding.encode(z)
    errors = None
    if config.reconstruction != "none":
        errors = losses.reconstruction_errors(
            embedding.decode(features) / scale, z / scale, split.weights
        )
    groups = split.groups(config.pull_away)
    means = None if groups is None else losses.group_moments(features, groups, split.weights)
    shares = None if groups is None else split.weights @ groups
    terms = (
        losses.faithfulness(
            embedding.readout(features) / spread, split.logits / spread, split.weights
        ),
        reconstruction_loss(errors, config),
        losses.pull_away(losses.second_moments(features, split.weights), means, shares),
    )
    faithful, reconstruction, orthogonal = (float(term) for term in terms)
    total, overlap = float(total_loss(terms, config)), 0.0
    if config.relevance:
        overlap = float(losses.pull_away(*relevance_moments(embedding, z[split.positives.any(1)])))
        total += config.relevance * overlap
    return Losses(faithful, reconstruction, orthogonal, total, overlap)


def reconstruction_loss(errors: Float[Tensor, " dims"] | None, config: TrainConfig) -> Tensor:
    """The second term of the loss, from the mean squared error of each dimension of Z."""
    if errors is None:
        return torch.zeros(())
    if config.reconstruction == "squared":
        return errors.mean()
    return losses.sparse_reconstruction(errors, config.q)


def total_loss(terms: tuple[Tensor, Tensor, Tensor], config: TrainConfig) -> Tensor:
    """Eq. 5 from its terms: faithfulness + beta * reconstruction + eta * pull-away."""
    faithful, reconstruction, orthogonal = terms
    own = faithful if config.faithful else 0.0 * faithful
    return own + config.beta * reconstruction + config.eta * orthogonal
