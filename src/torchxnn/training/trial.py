"""Fits with one seed each, several at once: start, epochs, revival, early stopping (eq. 5).

All fits of a group read the same Z and differ in their targets, or in their seeds. Their layers are
computed together (`Stack`); everything else is as if each were alone: its own batches,
running means, optimiser, learning rate, restarts and end. A fit that ends leaves its slot to the
next one. A group of one is an ordinary fit.

On a GPU nothing waits within an epoch: batches are drawn and put together there, one fused
operation is the optimiser's step for all fits, and the host asks for one table of losses at the
end. (Relevance is the exception: it takes the positives of each batch, of which the host must know
the number.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    apply_stack,
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
from torchxnn.training.stacked_adam import StackedAdam
from torchxnn.training.stacked_split import Draws, StackedSplit


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
    slots: int,
    on_trial: OnTrial,
    on_epoch: OnEpoch | None = None,
    on_start: OnStart | None = None,
) -> None:
    """Run all fits that are wanted, at most `slots` at once.

    Args:
        queue: gives the next fit, or None if there is none now; `on_trial` may bring new ones.
        n_features: n.
        config: settings.
        compute: device and precision.
        slots: fits at once; see `count_slots`.
        on_trial: called with each fit as it ends: its result, or the error that it ended with,
            which does not touch the others.
        on_epoch: called with (fit, epoch, held-out losses).
        on_start: called with (fit, the embedding at its starting point).
    """
    group = Group(n_features, config, compute, slots, on_start)
    while True:
        group.fill(queue, on_trial)
        if not group.fits:
            return
        group.train_epoch()
        group.measure(on_trial, on_epoch)


class _Fit:
    """One fit in its slot."""

    schedule: Schedule

    def __init__(self, wanted: Wanted, n_features: int, config: TrainConfig) -> None:
        self.wanted, self.config = wanted, config
        self.train, self.validation = wanted.splits
        self.generator = trial_generator(wanted.seed, wanted.number)
        kind = MapStarter if self.train.data.are_maps else VectorStarter
        self.starter = kind(self.train, n_features, config, self.generator, wanted.starts)
        self.embedding = self.starter.embedding
        self.revived = 0
        self.ended = False

    @property
    def parts_set_anew(self) -> tuple[str, ...]:
        """What the names begin with of the parameters that a revival sets."""
        return f"encoder.{len(self.embedding.encoder) - 1}.", "readout."

    def result(self) -> Trial:
        """The fit as its embedding is: at its lowest held-out loss."""
        lowest = self.schedule.best
        if not self.config.faithful:
            self.starter.fit_readout()
            own = self.embedding, self.validation, self.wanted.spread
            lowest = full_set_losses(*own, self.config)
        return Trial(self.embedding, lowest, self.schedule.epoch, self.revived)


class Group:
    """The fits that are under way, and their common tensors."""

    stack: Stack
    adam: StackedAdam
    rows: tuple[StackedSplit, StackedSplit]
    draws: Draws
    best: dict[str, Tensor]

    def __init__(
        self,
        n_features: int,
        config: TrainConfig,
        compute: ComputeConfig,
        slots: int,
        on_start: OnStart | None = None,
    ) -> None:
        self.n_features, self.config, self.compute = n_features, config, compute
        self.slots, self.on_start = slots, on_start
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
        while len(going) + len(fresh) < self.slots:
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
            self._seat_all(going)

    def _seat_all(self, going: Sequence[int]) -> None:
        """Stack the fits, the first of which go on from these places; project Z once for all."""
        fits, config = self.fits, self.config
        first, z = fits[0].embedding, fits[0].train.data.z
        before = (self.adam, self.best) if going else None
        self.stack = Stack([fit.embedding for fit in fits], z.device)
        self.adam = StackedAdam(self.stack.values, config.weight_decay)
        self.best = {name: value.detach().clone() for name, value in self.stack.values.items()}
        if before is not None:
            self.adam.take_over(before[0], going)
            for name, value in self.best.items():
                value[: len(going)] = before[1][name][list(going)]
        spread = torch.stack([fit.wanted.spread for fit in fits])
        train, held_out = ([getattr(f, name) for f in fits] for name in ("train", "validation"))
        self.rows = (
            StackedSplit.of(train, spread, config.pull_away),
            StackedSplit.of(held_out, spread, config.pull_away),
        )
        self.draws = Draws(train, [fit.generator for fit in fits], z.device)
        if len(fits) > len(going):
            found = self._held_out_losses()[len(going) :]
            for fit, losses_ in zip(fits[len(going) :], found, strict=True):
                fit.schedule = Schedule(config, losses_)
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
        config, data = self.config, self.fits[0].train.data
        size = config.conv.map_batch_size if data.are_maps else config.batch_size
        steps = max(1, len(data) // size)
        draws, places = self.draws.draw(steps, size), self._draw_places(steps)
        rates = [fit.schedule.learning_rate for fit in self.fits]
        names, values = list(self.stack.values), list(self.stack.values.values())
        for index, at in zip(draws, places, strict=True):
            loss = self._loss(index, at, 1 / steps)
            gradients = torch.autograd.grad(loss.sum(), values, allow_unused=True)
            self.adam.step(dict(zip(names, gradients, strict=True)), rates)

    def _draw_places(self, steps: int) -> Sequence[Int64[Tensor, "fits places"] | None]:
        """Positions of maps at which every step reconstructs Z; None for all."""
        count, positions = self.config.conv.map_positions, self.stack.positions
        if count is None or count >= positions:
            return [None] * steps
        drawn = [
            torch.stack([torch.randperm(positions, generator=fit.generator) for fit in self.fits])
            for _ in range(steps)
        ]
        return list(torch.stack(drawn)[:, :, :count].to(self.draws.device))

    def _loss(
        self,
        index: Int64[Tensor, "fits batch"],
        places: Int64[Tensor, "fits places"] | None,
        share: float,
    ) -> Float[Tensor, " fits"]:
        """Eq. 5 of every fit, at the running estimate of the training set's means."""
        stack, config = self.stack, self.config
        all_z, shape, flat = self.fits[0].train.data.z, (len(index), -1), index.flatten()
        rows = self.rows[0].at(index)
        # rows are copied whole, four times as fast as by `all_z[flat]`
        z = stack.samples(all_z.index_select(0, flat)).div_(stack.scale).unflatten(0, shape)
        inputs = z
        if self.inputs is not None:
            inputs = self.inputs.index_select(0, flat).unflatten(0, shape)
        with precision(all_z.device, self.compute.autocast):
            terms = self.statistics(stack, inputs, z, rows, config.reconstruction, places)
        found = {name: getattr(terms, name) for name in ("errors", "moments", "means")}
        means = {k: self.means.update(k, v, share) for k, v in found.items() if v is not None}
        loss = loss_of_terms(replace(terms, **means), rows.shares, config)
        if config.relevance:
            moments, first = overlap_terms(stack, z, rows.positives)
            valid = rows.positives.any(1)
            overlap = losses.pull_away(
                self.means.update("relevance", moments, share, valid),
                self.means.update("relevance means", first, share, valid),
            )
            loss = loss + config.relevance * torch.where(valid, overlap, 0.0)
        return loss

    def measure(self, on_trial: OnTrial, on_epoch: OnEpoch | None) -> None:
        """Restart weak x-features, measure the held-out losses, and end what has ended."""
        epoch = [fit.schedule.epoch + 1 for fit in self.fits]
        self._revive([p for p, f in enumerate(self.fits) if f.schedule.revives_after(epoch[p])])
        lowest: list[int] = []
        failures: dict[int, XNNError] = {}
        found = self._held_out_losses()
        for place, fit in enumerate(self.fits):
            try:
                if fit.schedule.advance(found[place]):
                    lowest.append(place)
            except XNNError as error:
                failures[place] = error
        self._keep(lowest)
        for place, fit in enumerate(self.fits):
            fit.ended = place in failures or fit.schedule.ended
            if place in failures:
                on_trial(fit.wanted, failures[place])
                continue
            if on_epoch is not None:
                on_epoch(fit.wanted, fit.schedule.epoch, found[place])
            if fit.ended:
                self.stack.take(place, fit.embedding, self.best)
                on_trial(fit.wanted, fit.result())

    def _held_out_losses(self) -> list[Losses]:
        return exact_losses(
            self.stack, [fit.validation for fit in self.fits], self.rows[1], self.config
        )

    def _keep(self, places: Sequence[int]) -> None:
        """Note that some fits have never been better."""
        if not places:
            return
        chosen = list(places)
        for name, value in self.stack.values.items():
            if len(chosen) == len(self.fits):
                self.best[name].copy_(value.detach())
            else:
                self.best[name][chosen] = value.detach()[chosen]

    def _revive(self, due: Sequence[int]) -> None:
        """Restart weak x-features of some fits."""
        if not due:
            return
        fits, stack = self.fits, self.stack
        applied = None if fits[0].train.data.are_maps else apply_stack(stack, fits[0].train.data.z)
        for place in due:
            fit = fits[place]
            if applied is None:
                stack.take(place, fit.embedding)
            weak = fit.starter.find_weak(None if applied is None else applied[place])
            if not weak:
                continue
            if applied is not None:
                stack.take(place, fit.embedding)
            fit.starter.start_features(weak)
            fit.revived += len(weak)
            stack.put(place, fit.embedding)
            self.means.forget(place)
            self.adam.forget(place, fit.parts_set_anew)
