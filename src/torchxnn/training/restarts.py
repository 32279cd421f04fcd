"""Trials of one target after another, until a fit is good enough."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from torchxnn.data.activations import Activations
from torchxnn.data.positives import find_positives, sample_weights, split_validation
from torchxnn.embeddings.apply import anchor
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DataError, XNNError
from torchxnn.metrics.among_positives import measure_among_positives
from torchxnn.metrics.evaluation import measure_activations
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.training.components import hold_near_components
from torchxnn.training.config import ComputeConfig, TrainConfig
from torchxnn.training.device import fit_device
from torchxnn.training.initialise import SharedStarts
from torchxnn.training.objective import full_set_losses
from torchxnn.training.report import FitReport
from torchxnn.training.schedule import Trial
from torchxnn.training.split import Split
from torchxnn.training.trial import Wanted

FitResult = tuple[Embedding, FitReport] | XNNError
"""What became of one fit of a group: an embedding with its report, or why there is none."""


@dataclass(frozen=True, eq=False)
class GroupData:
    """The two splits of the data, on the CPU to be measured and on the device to be fitted.

    `starts` is what the fits begin with, and may be shared with other fits.
    """

    train: Activations
    validation: Activations
    fitted: tuple[Activations, Activations]
    held_out: Literal["given", "split"]
    starts: SharedStarts

    @classmethod
    def prepare(
        cls,
        train: Activations,
        validation: Activations | None,
        targets: Sequence[tuple[int, ...]],
        config: TrainConfig,
        compute: ComputeConfig,
        held_out: Literal["given", "split"],
        starts: SharedStarts | None,
    ) -> GroupData:
        """Check settings and data, split the data if wanted, and move them to the device."""
        config.check()
        if len({len(target) for target in targets}) > 1:
            raise DataError("fits of one group must have the same number of targets each")
        if train.are_maps and config.relevance:
            raise XNNError("relevance on Z is not defined where Z are maps; set it to 0")
        train = _ordinary(train)
        if validation is None:
            held_out = "split"
            known = [t for target in targets for t in target if 0 <= t < train.logits.shape[1]]
            positives = torch.zeros(len(train), 1, dtype=torch.bool)
            if known:
                positives = find_positives(train, list(dict.fromkeys(known)))[0]
            mask = split_validation(positives, config.validation_share, config.seed)
            train, validation = train.select(~mask), train.select(mask)
        elif (train.labels is None) != (validation.labels is None):
            raise DataError(
                "labels are given for only one of training and validation data; give both or "
                "neither, since they decide what is a positive"
            )
        validation = _ordinary(validation)
        device = fit_device(compute)
        fitted = (train.to(device), validation.to(device))
        return cls(train, validation, fitted, held_out, starts or SharedStarts())


class Restarts:
    """Trials for one target until a fit is good enough; the best one is the result."""

    def __init__(
        self, data: GroupData, targets: tuple[int, ...], n_features: int, config: TrainConfig
    ) -> None:
        _check_targets(targets, n_features)
        self.start = time.perf_counter()
        self.data, self.targets, self.n_features, self.config = data, targets, n_features, config
        positives, self.positives_by = find_positives(data.train, targets)
        counts, images = positives.sum(0), len(positives)
        if data.held_out == "split":  # as many as the caller gave
            held_out = find_positives(data.validation, targets)[0]
            counts, images = counts + held_out.sum(0), images + len(held_out)
        for target, count in zip(targets, counts.tolist(), strict=True):
            if count < config.minimum_positives:
                raise DataError(
                    f"target {target} has {count} positive image(s) by {self.positives_by} among "
                    f"{images}; at least {config.minimum_positives} are needed: add images of "
                    "the class"
                )
        held = hold_near_components(
            _prepare(data.train, targets, config),
            _prepare(data.validation, targets, config),
            targets,
            n_features,
            config,
            data.starts,
        )
        self.splits, self.held = held.splits, held
        there = data.fitted
        self.fitted = self.splits[0].beside(there[0]), self.splits[1].beside(there[1])
        self.spread = self.splits[0].logits.std(0, correction=0)
        if not bool((self.spread > 0).all()):
            raise DataError(f"the logit of target {targets} is the same on every training image")
        self.trials = 0
        self.best: tuple[Trial, Faithfulness] | None = None

    def wanted(self, position: int) -> Wanted:
        """The next trial, its data on the device of the fit."""
        spread, starts = self.spread.to(self.fitted[0].logits), self.data.starts
        return Wanted(self.fitted, spread, starts, self.trials, self.config.seed, position)

    def take(self, trial: Trial) -> None:
        """Note a trial's result."""
        self.trials += 1
        trial.embedding.eval()
        anchor(trial.embedding, self.fitted[0].data.z, self.splits[0].positives)
        data = self.data.validation
        figures = measure_activations(trial.embedding, data, self.targets).faithfulness
        if self.best is None or _rank(trial, figures, self.config) > _rank(*self.best, self.config):
            self.best = (trial, figures)

    @property
    def ended(self) -> bool:
        """Whether the best fit is good enough, or the trials are used up."""
        if self.trials >= self.config.trials or self.best is None:
            return True
        enough = min(self.config.enough_active, self.n_features)
        return not self.best[1].degenerate and self.best[1].active >= enough

    def result(self) -> tuple[Embedding, FitReport]:
        """The best fit, without a subspace, and its report."""
        if self.best is None:
            raise XNNError("config.trials must be at least 1")
        trial, figures = self.best
        embedding, config = trial.embedding.expanded().eval(), self.config
        spread = self.spread.to(self.fitted[0].logits)
        losses = [full_set_losses(embedding, split, spread, config) for split in self.fitted]
        train = measure_activations(embedding, self.data.train, self.targets)
        report = FitReport(
            targets=self.targets,
            positives_by=self.positives_by,
            held_out=self.data.held_out,
            train=train.faithfulness,
            validation=figures,
            train_losses=losses[0],
            validation_losses=losses[1],
            degenerate=figures.degenerate,
            trials=self.trials,
            epochs=trial.epochs,
            revived=trial.revived,
            seconds=time.perf_counter() - self.start,
            config=config,
            found_again=self.held.found_again,
            not_resampled=self.held.without,
            among_positives=measure_among_positives(
                train.embedded, self.splits[0].logits, self.splits[0].positives
            ),
        )
        return embedding.cpu(), report


class TrialQueue:
    """The trials of a group: which one comes next, and what became of the last."""

    def __init__(
        self,
        data: GroupData,
        targets: Sequence[tuple[int, ...]],
        n_features: int,
        config: TrainConfig,
        on_done: Callable[[int, FitResult], None],
        seeds: Sequence[int] | None = None,
    ) -> None:
        self.data, self.targets, self.n_features = data, targets, n_features
        seeds = [config.seed] * len(targets) if seeds is None else seeds
        self.configs = [replace(config, seed=seed) for seed in seeds]
        self.on_done = on_done
        self.fresh = deque(range(len(targets)))
        self.again: deque[int] = deque()
        self.open: dict[int, Restarts] = {}

    def next(self) -> Wanted | None:
        """The trial to run next: another one of a target that needs it, or the next target's."""
        if self.again:
            position = self.again.popleft()
            return self.open[position].wanted(position)
        while self.fresh:
            position = self.fresh.popleft()
            try:
                wanted = self.targets[position], self.n_features, self.configs[position]
                restarts = Restarts(self.data, *wanted)
            except XNNError as error:
                self.on_done(position, error)
                continue
            self.open[position] = restarts
            return restarts.wanted(position)
        return None

    def take(self, wanted: Wanted, trial: Trial | XNNError) -> None:
        """Note a trial's end; a target that needs no more is done."""
        position = wanted.position
        restarts = self.open[position]
        if not isinstance(trial, XNNError):
            restarts.take(trial)
            if not restarts.ended:
                self.again.append(position)
                return
        del self.open[position]
        self.on_done(position, trial if isinstance(trial, XNNError) else restarts.result())


def _ordinary(data: Activations) -> Activations:
    """Ordinary tensors: inference tensors cannot take part in a fit."""
    if not data.z.is_inference():
        return data
    labels = None if data.labels is None else data.labels.clone()
    return replace(data, z=data.z.clone(), logits=data.logits.clone(), labels=labels)


def _check_targets(targets: tuple[int, ...], n_features: int) -> None:
    if not targets or len(set(targets)) != len(targets):
        raise DataError(f"targets must be different class indices, got {list(targets)}")
    if n_features < len(targets):
        raise XNNError(
            f"n_features must be at least 1 and at least the number of targets, got {n_features} "
            f"for {len(targets)} target(s)"
        )


def _prepare(data: Activations, targets: tuple[int, ...], config: TrainConfig) -> Split:
    positives, _ = find_positives(data, targets)
    if not bool(positives.any(0).all()):
        raise DataError(
            f"the held-out data have no positives of every target in {targets}; give more"
        )
    weights = sample_weights(data, targets, config.positive_share)
    return Split(data, data.logits[:, list(targets)], positives, weights)


def _rank(trial: Trial, figures: Faithfulness, config: TrainConfig) -> tuple[bool, int, float]:
    active = min(figures.active, config.enough_active)
    return (not figures.degenerate, active, -trial.losses.total)
