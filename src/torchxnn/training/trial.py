"""Fits with one seed each, several at once: start, epochs, revival, early stopping (eq. 5).

All fits of a group read the same Z and differ in their targets, or in their seeds. Their layers are
computed together (`Stack`); everything else is as if each were alone: its own batches,
running means, optimiser, learning rate, restarts and end. A fit that ends leaves its slot to the
next one. A group of one is an ordinary fit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchxnn.embeddings.autoencoder import Autoencoder
from torchxnn.errors import XNNError
from torchxnn.training import losses
from torchxnn.training.cells import MapStarter
from torchxnn.training.config import ComputeConfig, Losses, TrainConfig
from torchxnn.training.initialise import SharedStarts, VectorStarter
from torchxnn.training.objective import (
    Terms,
    batch_statistics,
    exact_losses,
    full_set_losses,
    loss_of_terms,
    overlap_terms,
    precision,
)
from torchxnn.training.schedule import RunningMeans, Schedule, Trial, trial_generator
from torchxnn.training.split import Split
from torchxnn.training.stacked import Stack


@dataclass(frozen=True, eq=False)
class Wanted:
    """A fit to be run.

    Attributes:
        splits: training and held-out data; all fits of a group share their `data`.
        spread: (k,) standard deviation of the logits over the training data.
        starts: what all fits to the same activations begin with.
        number: of the trial; gives each its own seed, counted from `seed`.
        seed: of the fit.
        position: of the targets in the caller's list.
    """

    splits: tuple[Split, Split]
    spread: Float[Tensor, " targets"]
    starts: SharedStarts
    number: int
    seed: int
    position: int = 0


ROWS_AT_ONCE = 4096
"""Samples that are projected at once."""

Queue = Callable[[], Wanted | None]
OnEpoch = Callable[[Wanted, int, Losses], None]
OnTrial = Callable[[Wanted, Trial | XNNError], None]
OnStart = Callable[[Wanted, Autoencoder], None]


def run_trials(
    queue: Queue,
    n_features: int,
    config: TrainConfig,
    compute: ComputeConfig,
    on_trial: OnTrial,
    on_epoch: OnEpoch | None = None,
    on_start: OnStart | None = None,
) -> None:
    """Run all fits that are wanted, at most `compute.slots` at once.

    Args:
        queue: gives the next fit, or None if there is none now; `on_trial` may bring new ones.
        n_features: n.
        config: settings.
        compute: slots, device and precision.
        on_trial: called with each fit as it ends: its result, or the error that it ended with,
            which does not touch the others.
        on_epoch: called with (fit, epoch, held-out losses).
        on_start: called with (fit, the embedding at its starting point).
    """
    group = _Group(n_features, config, compute, on_start)
    while True:
        group.fill(queue, on_trial)
        if not group.fits:
            return
        group.train_epoch()
        group.measure(on_trial, on_epoch)


class _Fit:
    """One fit in its slot."""

    def __init__(self, wanted: Wanted, n_features: int, config: TrainConfig) -> None:
        self.wanted, self.config = wanted, config
        self.train, self.validation = wanted.splits
        self.generator = trial_generator(wanted.seed, wanted.number)
        kind = MapStarter if self.train.data.are_maps else VectorStarter
        self.starter = kind(self.train, n_features, config, self.generator, wanted.starts)
        self.embedding = self.starter.embedding
        self.schedule = Schedule(config, self.held_out_losses())
        self.best = copy.deepcopy(self.embedding.state_dict())
        self.revived = 0
        self.ended = False
        self.groups = self.train.groups(config.pull_away)
        self.shares = None if self.groups is None else self.train.weights @ self.groups
        self.optimizer = self._optimizer(list(self.embedding.parameters()))

    def seat(self, stack: Stack, place: int) -> None:
        """Let the optimiser work on a place of the stack; it keeps what it knows."""
        own = [value.detach()[place] for value in stack.values.values()]
        before, self.optimizer = self.optimizer, self._optimizer(own)
        for old, new in zip(before.param_groups[0]["params"], own, strict=True):
            if old in before.state:
                self.optimizer.state[new] = before.state[old]

    def _optimizer(self, parameters: Sequence[Tensor]) -> torch.optim.Adam:
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay, fused=True)

    def step(self, gradients: Sequence[Tensor | None], place: int) -> None:
        """One step of the optimiser with this fit's part of the gradients."""
        parameters = self.optimizer.param_groups[0]["params"]
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = None if gradient is None else gradient[place].contiguous()
        self.optimizer.step()

    def forget_moments(self, names: Iterable[str]) -> None:
        """The x-layer and the readout were set anew, so their optimiser begins anew."""
        last = f"encoder.{len(self.embedding.encoder) - 1}."
        for name, parameter in zip(names, self.optimizer.param_groups[0]["params"], strict=True):
            if name.startswith((last, "readout.")):
                self.optimizer.state.pop(parameter, None)

    def held_out_losses(self) -> Losses:
        """Eq. 5 of the embedding as it is."""
        return full_set_losses(self.embedding, self.validation, self.wanted.spread, self.config)

    def draw(self, steps: int, size: int) -> Int64[Tensor, "steps batch"]:
        """Samples of an epoch's batches, with probability proportional to their weight."""
        drawn = torch.multinomial(
            self.train.weights.cpu(), steps * size, replacement=True, generator=self.generator
        )
        return drawn.view(steps, size)

    def result(self) -> Trial:
        """The fit as it was at its lowest held-out loss."""
        self.embedding.load_state_dict(self.best)
        lowest = self.schedule.best
        if not self.config.faithful:
            self.starter.fit_readout()
            lowest = self.held_out_losses()
        return Trial(self.embedding, lowest, self.schedule.epoch, self.revived)


class _Group:
    """The fits that are under way, and their common tensors."""

    stack: Stack

    def __init__(
        self,
        n_features: int,
        config: TrainConfig,
        compute: ComputeConfig,
        on_start: OnStart | None = None,
    ) -> None:
        self.n_features, self.config, self.compute = n_features, config, compute
        self.on_start = on_start
        self.fits: list[_Fit] = []
        self.inputs: Tensor | None = None
        self.means = RunningMeans()
        self.statistics: Callable[..., Terms] = batch_statistics
        if compute.compile:
            self.statistics = torch.compile(batch_statistics)

    def fill(self, queue: Queue, on_trial: OnTrial) -> None:
        """Give the slots of ended fits to the next ones; close those that nobody wants now."""
        going = [place for place, fit in enumerate(self.fits) if not fit.ended]
        fresh: list[_Fit] = []
        while len(going) + len(fresh) < self.compute.slots:
            fit = self._start(queue, on_trial)
            if fit is None:
                break
            fresh.append(fit)
        if not fresh and len(going) == len(self.fits):
            return
        for place in going:
            self.stack.take(place, self.fits[place].embedding)
        self.fits = [*(self.fits[place] for place in going), *fresh]
        self.means.keep(going, len(fresh))
        if self.fits:
            self._seat_all()

    def _seat_all(self) -> None:
        """Stack the fits; at first, project Z once for all."""
        first, z = self.fits[0].embedding, self.fits[0].train.data.z
        self.stack = Stack([fit.embedding for fit in self.fits], z.device)
        for place, fit in enumerate(self.fits):
            fit.seat(self.stack, place)
        if first.subspace is not None and self.inputs is None:
            with torch.no_grad():
                self.inputs = torch.cat([first.inputs(part) for part in z.split(ROWS_AT_ONCE)])

    def _start(self, queue: Queue, on_trial: OnTrial) -> _Fit | None:
        while (wanted := queue()) is not None:
            try:
                fit = _Fit(wanted, self.n_features, self.config)
            except XNNError as error:
                on_trial(wanted, error)
                continue
            if self.on_start is not None:
                self.on_start(wanted, fit.embedding)
            return fit
        return None

    def train_epoch(self) -> None:
        """One pass over as many samples as there are, for every fit."""
        config, maps = self.config, self.fits[0].train.data.are_maps
        size = config.conv.map_batch_size if maps else config.batch_size
        steps = max(1, len(self.fits[0].train.data) // size)
        draws = torch.stack([fit.draw(steps, size) for fit in self.fits])
        for fit in self.fits:
            fit.optimizer.param_groups[0]["lr"] = fit.schedule.learning_rate
        for step in range(steps):
            loss, values = self._loss(draws[:, step], 1 / steps), list(self.stack.values.values())
            gradients = torch.autograd.grad(loss.sum(), values, allow_unused=True)
            for place, fit in enumerate(self.fits):
                fit.step(gradients, place)

    def _loss(self, index: Int64[Tensor, "fits batch"], share: float) -> Float[Tensor, " fits"]:
        """Eq. 5 of every fit, at the running estimate of the training set's means."""
        fits, stack, config = self.fits, self.stack, self.config
        all_z = fits[0].train.data.z
        device, shape = all_z.device, (len(fits), -1)
        index = index.to(device)
        rows, flat = list(zip(fits, index, strict=True)), index.flatten()
        z = stack.samples(all_z[flat]).div_(stack.scale).unflatten(0, shape)
        inputs = z if self.inputs is None else self.inputs[flat].unflatten(0, shape)
        logits = torch.stack([f.train.logits[i] / f.wanted.spread for f, i in rows])
        spread = torch.stack([fit.wanted.spread for fit in fits]).unsqueeze(1)
        groups = shares = None
        if fits[0].groups is not None:
            groups = torch.stack([f.groups[i] for f, i in rows if f.groups is not None])
            shares = torch.stack([fit.shares for fit in fits if fit.shares is not None])
        places, count = None, config.conv.map_positions
        if count is not None and count < stack.positions:
            drawn = [torch.randperm(stack.positions, generator=fit.generator) for fit in fits]
            places = torch.stack(drawn)[:, :count].to(device)
        components = None
        if fits[0].train.components is not None:
            wanted = [f.train.components[i] for f, i in rows if f.train.components is not None]
            components = torch.stack(wanted)
        with precision(device, self.compute.autocast):
            terms = self.statistics(
                stack, inputs, z, logits, spread, groups, config.reconstruction, places, components
            )
        found = {name: getattr(terms, name) for name in ("errors", "moments", "means")}
        means = {k: self.means.update(k, v, share) for k, v in found.items() if v is not None}
        loss = loss_of_terms(replace(terms, **means), shares, config)
        if config.relevance:
            positives = torch.stack([f.train.positives[i].any(1) for f, i in rows])
            moments, first = overlap_terms(stack, z, positives)
            valid = positives.any(1)
            overlap = losses.pull_away(
                self.means.update("relevance", moments, share, valid),
                self.means.update("relevance means", first, share, valid),
            )
            loss = loss + config.relevance * torch.where(valid, overlap, 0.0)
        return loss

    def measure(self, on_trial: OnTrial, on_epoch: OnEpoch | None) -> None:
        """Restart weak x-features, measure the held-out losses, and end what has ended."""
        stack, config = self.stack, self.config
        for place, fit in enumerate(self.fits):
            if fit.schedule.revives_after(fit.schedule.epoch + 1):
                stack.take(place, fit.embedding)
                restarted = fit.starter.restart_weak()
                fit.revived += restarted
                if restarted:
                    stack.put(place, fit.embedding)
                    self.means.forget(place)
                    fit.forget_moments(stack.values)
        splits = [fit.validation for fit in self.fits]
        spread = torch.stack([fit.wanted.spread for fit in self.fits])
        for place, (fit, found) in enumerate(
            zip(self.fits, exact_losses(stack, splits, spread, config), strict=True)
        ):
            try:
                lowest = fit.schedule.advance(found)
            except XNNError as error:
                fit.ended = True
                on_trial(fit.wanted, error)
                continue
            if lowest:
                stack.take(place, fit.embedding)
                fit.best = copy.deepcopy(fit.embedding.state_dict())
            if on_epoch is not None:
                on_epoch(fit.wanted, fit.schedule.epoch, found)
            if fit.schedule.ended:
                fit.ended = True
                on_trial(fit.wanted, fit.result())
