"""What fits of every kind have in common: early stopping, step decay, running means, the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchxnn.embeddings.autoencoder import Autoencoder
from torchxnn.errors import NonFiniteError
from torchxnn.training.config import Losses, TrainConfig

SEED_STEP = 7919
"""What trials' seeds differ by."""


@dataclass(frozen=True, eq=False)
class Trial:
    """The result of one fit with one seed.

    Attributes:
        embedding: as it was at its lowest held-out loss.
        losses: held-out losses then.
        epochs: epochs that were run.
        revived: x-features that were restarted.
    """

    embedding: Autoencoder
    losses: Losses
    epochs: int
    revived: int


def trial_generator(seed: int, number: int) -> torch.Generator:
    """The source of everything random in one trial of a fit of that seed; each has its own."""
    return torch.Generator().manual_seed(seed + SEED_STEP * number)


@dataclass(eq=False)
class Schedule:
    """How far a fit has come, and when it ends.

    Attributes:
        config: settings.
        best: lowest held-out losses so far.
        epoch: epochs that were run.
        best_epoch: the one after which the losses were `best`.
    """

    config: TrainConfig
    best: Losses
    epoch: int = 0
    best_epoch: int = 0

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next epoch; see `TrainConfig.decay_every`."""
        config = self.config
        if config.decay_every == "cosine":
            return config.learning_rate * (1 + math.cos(math.pi * self.epoch / config.epochs)) / 2
        drops = self.epoch // config.decay_every if config.decay_every else 0
        return config.learning_rate * 0.1**drops

    def revives_after(self, epoch: int) -> bool:
        """Whether weak x-features are restarted after an epoch: in the first half alone."""
        every = self.config.revive
        return bool(every) and epoch % (every or 1) == 0 and epoch <= self.config.epochs // 2

    def advance(self, current: Losses) -> bool:
        """Note the held-out losses after one more epoch; whether they are the lowest so far.

        Raises:
            NonFiniteError: the loss became NaN or infinite.
        """
        self.epoch += 1
        if not math.isfinite(current.total):
            raise NonFiniteError(
                f"the loss became {current.total} in epoch {self.epoch}; lower learning_rate "
                f"(now {self.config.learning_rate}) or q"
            )
        lowest = current.total < self.best.total
        if lowest:
            self.best, self.best_epoch = current, self.epoch
        return lowest

    @property
    def ended(self) -> bool:
        """Whether the loss has not fallen for long enough, or the epochs are used up."""
        waited = self.epoch - self.best_epoch >= self.config.patience
        return waited or self.epoch >= self.config.epochs


class RunningMeans:
    """Running means of batch means, with the gradients of the batches, for several fits at once.

    The penalties of eq. 5 are concave functions or quotients of training set means. Evaluated at
    the running mean, their slope there multiplies the unbiased gradient of the batch mean, so that
    in the limit of small steps the gradient is that of the exact loss, whatever the batch size. The
    mean of the penalties of batches would be another, lower function.
    """

    def __init__(self) -> None:
        self._values: dict[str, Tensor] = {}
        self._known: dict[str, Tensor] = {}

    def update(self, name: str, batch: Tensor, step: float, valid: Tensor | None = None) -> Tensor:
        """Take a batch into the mean and return it.

        Args:
            name: of the mean.
            batch: means over the batch, (G, ...), one entry per fit.
            step: weight of the batch, one over the batches of an epoch.
            valid: (G,) fits that have anything in the batch; None for all.

        Returns:
            (G, ...), the running mean with the gradient of `batch`; that of a fit without anything
            stays as it was.
        """
        now = batch.detach()
        known = self._known.get(name)
        if known is None:
            known = torch.zeros(len(batch), dtype=torch.bool, device=batch.device)
            before = torch.zeros_like(now)
        else:
            before = self._values[name]
        now = torch.where(_like(known, now), torch.lerp(before, now, step), now)
        if valid is not None:
            now = torch.where(_like(valid, now), now, before)
        self._values[name] = now
        self._known[name] = torch.ones_like(known) if valid is None else known | valid
        return now + (batch - batch.detach())

    def forget(self, fit: int) -> None:
        """Begin a fit's means anew."""
        for known in self._known.values():
            known[fit] = False

    def keep(self, fits: Sequence[int], fresh: int = 0) -> None:
        """Forget all fits but some, and make room for new ones behind them."""
        for table in (self._values, self._known):
            for name, value in table.items():
                kept = value[torch.tensor(fits, dtype=torch.long, device=value.device)]
                table[name] = torch.cat([kept, kept.new_zeros(fresh, *kept.shape[1:])])


def _like(flags: Tensor, values: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (values.ndim - 1))
