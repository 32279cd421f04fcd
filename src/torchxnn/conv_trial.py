"""One fit of a ConvSRAE with one seed: start, epochs, revival, early stopping (paper 4.4, eq. 5).

The three terms are those of a fully connected layer with the positions as further samples: Q has
one value per channel of Z, a mean over images and positions, and the vectors E_l of the pull-away
term have one entry per image and position, so x-features that are active on the same image at
different places count as different. Only the faithfulness is per image. With 1x1 maps all three
are those of `trial`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from torchxnn import losses
from torchxnn.conv_start import split_features, start_conv_embedding
from torchxnn.embeddings.apply import MAPS_AT_ONCE, apply_embedding
from torchxnn.embeddings.conv import ConvSRAE
from torchxnn.embeddings.initialise import weak_features
from torchxnn.train_config import Losses, Side, TrainConfig
from torchxnn.trial import Trial, run_epochs, running_mean


def run_conv_trial(
    sides: tuple[Side, Side],
    spread: Float[Tensor, " targets"],
    n_features: int,
    config: TrainConfig,
    number: int,
    on_epoch: Callable[[int, int, Losses], None] | None,
) -> Trial[ConvSRAE]:
    """Fit one ConvSRAE and return it as it was at its lowest held-out loss.

    Takes and raises what `trial.run_trial` does, for data whose Z are maps.
    """
    train, validation = sides
    generator = torch.Generator().manual_seed(config.seed + 7919 * number)
    trial = Trial(start_conv_embedding(train, n_features, config, generator))
    trial.losses, trial.epochs = run_epochs(
        trial.embedding,
        lambda optimizer: _train_epoch(trial, optimizer, train, spread, config, generator),
        lambda optimizer: _revive(trial, optimizer, train, generator),
        lambda: conv_losses(trial.embedding, validation, spread, config),
        config,
        None if on_epoch is None else partial(on_epoch, number),
    )
    return trial


def _train_epoch(
    trial: Trial[ConvSRAE],
    optimizer: Optimizer,
    train: Side,
    spread: Float[Tensor, " targets"],
    config: TrainConfig,
    generator: torch.Generator,
) -> None:
    size = config.conv.map_batch_size
    steps = max(1, len(train.data) // size)
    draws = torch.multinomial(train.weights, steps * size, replacement=True, generator=generator)
    groups = train.groups(config.pull_away)
    shares = None if groups is None else train.weights @ groups
    for index in draws.split(size):
        z, logits = train.data.z[index].float(), train.logits[index] / spread
        part = None if groups is None else groups[index]
        terms = _batch_terms(trial, z, logits, part, shares, spread, config, 1 / steps, generator)
        loss = terms[0] + config.beta * terms[1] + config.eta * terms[2]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batch_terms(
    trial: Trial[ConvSRAE],
    z: Float[Tensor, "batch dims height width"],
    logits: Float[Tensor, "batch targets"],
    groups: Float[Tensor, "batch groups"] | None,
    shares: Float[Tensor, " groups"] | None,
    spread: Float[Tensor, " targets"],
    config: TrainConfig,
    step: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """The three terms, at the running estimate of the training set's means."""
    embedding, count = trial.embedding, config.conv.map_positions
    features = embedding.encode(z)
    seen, wanted = features, z
    if count is not None and count < z.shape[2] * z.shape[3]:
        place = torch.randperm(z.shape[2] * z.shape[3], generator=generator)[:count]
        seen, wanted = (t.flatten(2)[:, :, place].unsqueeze(3) for t in (features, z))
    scale = embedding.scale
    errors = losses.reconstruction_errors(
        _by_position(embedding.decode(seen) / scale), _by_position(wanted / scale)
    )
    moments = running_mean(
        trial.means, "moments", losses.second_moments(_by_position(features)), step
    )
    means = None
    if groups is not None:
        first = losses.group_moments(embedding.summarise(features), groups)
        means = running_mean(trial.means, "means", first, step)
    return (
        losses.faithfulness(embedding.reproduce(features) / spread, logits),
        losses.sparse_reconstruction(running_mean(trial.means, "errors", errors, step), config.q),
        losses.pull_away(moments, means, shares),
    )


def _by_position(maps: Float[Tensor, "batch dims height width"]) -> Float[Tensor, "points dims"]:
    """Every position as a sample of its own."""
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)


def _revive(
    trial: Trial[ConvSRAE], optimizer: Optimizer, train: Side, generator: torch.Generator
) -> None:
    embedding = trial.embedding
    with torch.no_grad():
        found = apply_embedding(embedding, train.data.z)
        weak = weak_features(found.features, found.contributions, train.positives)
        if not weak:
            return
    split_features(embedding, train, weak, generator)
    trial.revived += len(weak)
    trial.means.clear()
    for parameter in (*embedding.encoder[-1].parameters(), *embedding.readout.parameters()):
        optimizer.state.pop(parameter, None)


@torch.no_grad()
def conv_losses(
    embedding: ConvSRAE, split: Side, spread: Float[Tensor, " targets"], config: TrainConfig
) -> Losses:
    """The terms of eq. 5, exact over a whole set, all images and all positions."""
    groups = split.groups(config.pull_away)
    weights = split.weights / split.weights.sum()
    found: dict[str, Tensor | float] = {
        "faithful": 0.0,
        "errors": 0.0,
        "moments": 0.0,
        "means": 0.0,
    }
    for index in _batches(len(split.data)):
        z, part = split.data.z[index].float(), weights[index]
        share = part.sum()
        if not share > 0:
            continue
        features = embedding.encode(z)
        every = part.repeat_interleave(z.shape[2] * z.shape[3])
        reproduced, scale = embedding.reproduce(features) / spread, embedding.scale
        terms = {
            "faithful": losses.faithfulness(reproduced, split.logits[index] / spread, part),
            "errors": losses.reconstruction_errors(
                _by_position(embedding.decode(features) / scale), _by_position(z / scale), every
            ),
            "moments": losses.second_moments(_by_position(features), every),
        }
        if groups is not None:
            means = embedding.summarise(features)
            terms["means"] = losses.group_moments(means, groups[index], part)
        for name, value in terms.items():
            found[name] = found[name] + share * value
    return _total(found, groups, weights, config)


def _batches(count: int) -> Iterator[slice]:
    return (slice(i, i + MAPS_AT_ONCE) for i in range(0, count, MAPS_AT_ONCE))


def _total(
    found: dict[str, Tensor | float],
    groups: Float[Tensor, "samples groups"] | None,
    weights: Float[Tensor, " samples"],
    config: TrainConfig,
) -> Losses:
    errors, moments = torch.as_tensor(found["errors"]), torch.as_tensor(found["moments"])
    means = None if groups is None else torch.as_tensor(found["means"])
    shares = None if groups is None else weights @ groups
    faithful = float(found["faithful"])
    sparse = float(losses.sparse_reconstruction(errors, config.q))
    orthogonal = float(losses.pull_away(moments, means, shares))
    total = faithful + config.beta * sparse + config.eta * orthogonal
    return Losses(faithful, sparse, orthogonal, total)
