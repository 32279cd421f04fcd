"""One fit of a ConvSRAE with one seed: start, epochs, revival, early stopping (paper 4.4, eq. 5).

The three terms are those of a fully connected layer with the positions as further samples: Q has
one value per channel of Z, a mean over images and positions, and the vectors E_l of the pull-away
term have one entry per image and position, so x-features that are active on the same image at
different places count as different. Only the faithfulness is per image. With 1x1 maps all three
are those of `trial`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchxnn.embeddings.apply import MAPS_AT_ONCE, apply_embedding
from torchxnn.embeddings.conv_srae import ConvSRAE
from torchxnn.embeddings.linear import second_moments
from torchxnn.training import losses
from torchxnn.training.config import Losses, Side, TrainConfig
from torchxnn.training.conv_start import split_features, start_conv_embedding
from torchxnn.training.initialise import weak_features
from torchxnn.training.schedule import Course, RunningMeans, Trial, trial_generator


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
    fit = _Fit(train, spread, config, trial_generator(config, number), n_features)
    embedding, optimizer = fit.embedding, fit.optimizer
    course = Course(config, conv_losses(embedding, validation, spread, config))
    best = copy.deepcopy(embedding.state_dict())
    while not course.ended:
        for group in optimizer.param_groups:
            group["lr"] = course.learning_rate
        fit.train_epoch()
        if course.revives_after(course.epoch + 1):
            fit.revive()
        current = conv_losses(embedding, validation, spread, config)
        if course.advance(current):
            best = copy.deepcopy(embedding.state_dict())
        if on_epoch is not None:
            on_epoch(number, course.epoch, current)
    embedding.load_state_dict(best)
    return Trial(embedding, course.best, course.epoch, fit.revived)


class _Fit:
    """A fit that is under way."""

    def __init__(
        self,
        train: Side,
        spread: Float[Tensor, " targets"],
        config: TrainConfig,
        generator: torch.Generator,
        n_features: int,
    ) -> None:
        self.train, self.spread, self.config, self.generator = train, spread, config, generator
        self.embedding = start_conv_embedding(train, n_features, config, generator)
        self.optimizer = torch.optim.Adam(
            self.embedding.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.groups = train.groups(config.pull_away)
        self.shares = None if self.groups is None else train.weights @ self.groups
        self.means = RunningMeans()
        self.revived = 0

    def train_epoch(self) -> None:
        """One pass over as many images as there are."""
        train, size = self.train, self.config.conv.map_batch_size
        steps = max(1, len(train.data) // size)
        draws = torch.multinomial(
            train.weights, steps * size, replacement=True, generator=self.generator
        )
        for index in draws.split(size):
            terms = self._batch_terms(index, 1 / steps)
            loss = terms[0] + self.config.beta * terms[1] + self.config.eta * terms[2]
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def _batch_terms(
        self, index: Int64[Tensor, " batch"], step: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The three terms, at the running estimate of the training set's means."""
        embedding, count = self.embedding, self.config.conv.map_positions
        z, logits = self.train.data.z[index].float(), self.train.logits[index] / self.spread
        features = embedding.encode(z)
        seen, wanted = features, z
        if count is not None and count < z.shape[2] * z.shape[3]:
            place = torch.randperm(z.shape[2] * z.shape[3], generator=self.generator)[:count]
            seen, wanted = (t.flatten(2)[:, :, place].unsqueeze(3) for t in (features, z))
        scale = embedding.scale
        errors = losses.reconstruction_errors(
            _by_position(embedding.decode(seen) / scale), _by_position(wanted / scale)
        )
        means = None
        if self.groups is not None:
            first = losses.group_moments(embedding.summarise(features), self.groups[index])
            means = self._mean("means", first, step)
        moments = self._mean("moments", second_moments(_by_position(features)), step)
        return (
            losses.faithfulness(embedding.reproduce(features) / self.spread, logits),
            losses.sparse_reconstruction(self._mean("errors", errors, step), self.config.q),
            losses.pull_away(moments, means, self.shares),
        )

    def _mean(self, name: str, batch: Tensor, step: float) -> Tensor:
        return self.means.update(name, batch.unsqueeze(0), step)[0]

    def revive(self) -> None:
        """Restart weak x-features."""
        with torch.no_grad():
            found = apply_embedding(self.embedding, self.train.data.z)
            weak = weak_features(found.features, found.contributions, self.train.positives)
        if not weak:
            return
        split_features(self.embedding, self.train, weak, self.generator)
        self.revived += len(weak)
        self.means.forget(0)
        parameters = (
            *self.embedding.encoder[-1].parameters(),
            *self.embedding.readout.parameters(),
        )
        for parameter in parameters:
            self.optimizer.state.pop(parameter, None)


def _by_position(maps: Float[Tensor, "batch dims height width"]) -> Float[Tensor, "points dims"]:
    """Every position as a sample of its own."""
    return maps.flatten(2).transpose(1, 2).flatten(0, 1)


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
            "moments": second_moments(_by_position(features), every),
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
