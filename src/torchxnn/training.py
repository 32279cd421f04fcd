"""Fit an embedding to recorded activations (paper eq. 5), and say honestly how it went."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.activations import Activations
from torchxnn.conv_trial import conv_losses, run_conv_trial
from torchxnn.course import Trial
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.conv import ConvConfig, ConvSRAE
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import DataError, DegenerateFitWarning, XNNError
from torchxnn.metrics.faithfulness import Faithfulness, measure_faithfulness
from torchxnn.objective import full_set_losses
from torchxnn.train_config import ComputeConfig, Losses, Side, TrainConfig
from torchxnn.trial import Wanted, run_trials

__all__ = ["FitReport", "Losses", "TrainConfig", "find_positives", "fit_embedding"]


@dataclass(frozen=True)
class FitReport:
    """How a fit went; `degenerate` is empty when it is an explanation by several concepts.

    Attributes:
        targets: explained classes.
        positives_by: what made an image a positive, its label or the model's prediction.
        held_out: where the validation figures come from: "given" data or a "split" of the training
            data.
        train: faithfulness on the training images.
        validation: faithfulness on the held-out images. They also stopped the fit and chose among
            trials, so measure on further images (`XNN.evaluate`) for an unbiased figure.
        train_losses: the terms of eq. 5 over the training images.
        validation_losses: the terms of eq. 5 over the held-out images.
        degenerate: reasons why the fit explains little (from the held-out figures).
        trials: fits that were run; the best one is reported.
        epochs: epochs of the best trial.
        revived: x-features restarted in the best trial.
        seconds: wall time of all trials.
        config: the settings.
    """

    targets: tuple[int, ...]
    positives_by: Literal["label", "prediction"]
    held_out: Literal["given", "split"]
    train: Faithfulness
    validation: Faithfulness
    train_losses: Losses
    validation_losses: Losses
    degenerate: tuple[str, ...]
    trials: int
    epochs: int
    revived: int
    seconds: float
    config: TrainConfig

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> FitReport:
        """Bring back what `to_json` gave, also after a trip through a JSON file."""
        return cls(
            **{
                **values,
                "targets": tuple(values["targets"]),
                "degenerate": tuple(values["degenerate"]),
                "train": Faithfulness.from_json(values["train"]),
                "validation": Faithfulness.from_json(values["validation"]),
                "train_losses": Losses(**values["train_losses"]),
                "validation_losses": Losses(**values["validation_losses"]),
                "config": TrainConfig(
                    **{
                        **values["config"],
                        "hidden": tuple(values["config"]["hidden"]),
                        "conv": ConvConfig.from_json(values["config"].get("conv")),
                    }
                ),
            }
        )


def find_positives(
    data: Activations, targets: Sequence[int]
) -> tuple[Bool[Tensor, "samples targets"], Literal["label", "prediction"]]:
    """Which images are positives of which target, by label if there are labels, else by arg max.

    With a single output and no labels, images with a positive logit are positives.

    Raises:
        DataError: a target out of the range of the model's outputs.
    """
    outputs = data.logits.shape[1]
    for target in targets:
        if not 0 <= target < outputs:
            raise DataError(
                f"target {target} is out of range: the model has {outputs} output(s), "
                f"so 0 to {outputs - 1}"
            )
    if data.labels is not None:
        single = outputs == 1
        return torch.stack([data.labels == (1 if single else t) for t in targets], 1), "label"
    if outputs == 1:
        return data.logits > 0, "prediction"
    predicted = data.logits.argmax(1)
    return torch.stack([predicted == t for t in targets], 1), "prediction"


def split_validation(
    positives: Bool[Tensor, "samples targets"], share: float, seed: int
) -> Bool[Tensor, " samples"]:
    """Mask of a random held-out part, with the same share of each kind of positive."""
    generator = torch.Generator().manual_seed(seed)
    _, kind = positives.unique(dim=0, return_inverse=True)
    held_out = torch.zeros(len(positives), dtype=torch.bool)
    for value in kind.unique().tolist():
        members = (kind == value).nonzero().flatten()
        count = max(1, round(share * len(members))) if len(members) > 1 else 0
        held_out[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held_out


def fit_embedding(
    train: Activations,
    validation: Activations | None,
    targets: Sequence[int],
    n_features: int,
    config: TrainConfig | None = None,
    on_epoch: Callable[[int, int, Losses], None] | None = None,
    compute: ComputeConfig | None = None,
) -> tuple[SRAE | ConvSRAE, FitReport]:
    """Fit an SRAE to recorded activations, or a `ConvSRAE` if they are maps.

    Trials with new seeds are run while the fit is degenerate or has fewer active x-features than
    `config.enough_active`; the best one is returned, by: not degenerate, more active x-features (up
    to `enough_active`), lower held-out loss.

    Args:
        train: activations to fit.
        validation: held-out activations for early stopping and the report; None splits `train`.
        targets: columns of the logits to reproduce.
        n_features: n.
        config: settings; None takes the defaults.
        on_epoch: called with (trial, epoch, held-out losses).
        compute: how it is computed; None takes the defaults.

    Returns:
        The embedding and the report. A degenerate fit also warns with `DegenerateFitWarning`.

    Raises:
        DataError: target out of range, too few positives, or a logit that does not vary.
        NonFiniteError: the loss became NaN or infinite.
    """
    found: list[tuple[SRAE | ConvSRAE, FitReport]] = []

    def done(_: int, result: FitResult) -> None:
        if isinstance(result, XNNError):
            raise result
        found.append(result)

    watch = None
    if on_epoch is not None:
        told = on_epoch
        watch = lambda _, trial, epoch, current: told(trial, epoch, current)  # noqa: E731
    fit_group(train, validation, [tuple(targets)], n_features, config, compute, done, watch)
    embedding, report = found[0]
    if report.degenerate:
        warnings.warn(
            f"degenerate fit for target(s) {report.targets}: {'; '.join(report.degenerate)}. "
            "Try more images, another layer, more trials or a smaller eta; do not read the "
            "heatmaps as several concepts",
            DegenerateFitWarning,
            stacklevel=3,
        )
    return embedding, report


FitResult = tuple[SRAE | ConvSRAE, FitReport] | XNNError
"""What became of one fit of a group: an embedding with its report, or why there is none."""


def fit_group(
    train: Activations,
    validation: Activations | None,
    targets: Sequence[tuple[int, ...]],
    n_features: int,
    config: TrainConfig | None,
    compute: ComputeConfig | None,
    on_done: Callable[[int, FitResult], None],
    on_epoch: Callable[[int, int, int, Losses], None] | None = None,
) -> None:
    """Fit an embedding to each of several targets, `compute.slots` of them at once.

    The mathematics is that of fits one by one. What a fit fails with goes to `on_done` and does not
    touch the others.

    Args:
        train: activations to fit; all fits read the same ones.
        validation: held-out activations; None splits `train`, once for all targets.
        targets: columns of the logits, one tuple per fit.
        n_features: n of every fit.
        config: settings.
        compute: how it is computed.
        on_done: called with the position in `targets` and the result, as fits end.
        on_epoch: called with (position, trial, epoch, held-out losses).

    Raises:
        DataError: settings or data that no fit could begin with.
    """
    config, compute = config or TrainConfig(), compute or ComputeConfig()
    # The fit needs gradients, and new tensors lie on the CPU whatever the caller's context is.
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        data = _Data.prepare(train, validation, targets, config, compute)
        if data.train.are_maps:
            for position, target in enumerate(targets):
                on_done(position, _fit_maps(data, position, target, n_features, config, on_epoch))
            return
        searches = _Searches(data, targets, n_features, config, on_done)
        watch = None
        if on_epoch is not None:
            told = on_epoch
            watch = lambda w, epoch, current: told(w.position, w.number, epoch, current)  # noqa: E731
        run_trials(searches.next, n_features, config, compute, searches.take, watch)


@dataclass(frozen=True, eq=False)
class _Data:
    """The two sides of the data, on the CPU to be measured and on the device to be fitted."""

    train: Activations
    validation: Activations
    fitted: tuple[Activations, Activations]
    held_out: Literal["given", "split"]

    @classmethod
    def prepare(
        cls,
        train: Activations,
        validation: Activations | None,
        targets: Sequence[tuple[int, ...]],
        config: TrainConfig,
        compute: ComputeConfig,
    ) -> _Data:
        _check_config(config)
        if len({len(target) for target in targets}) > 1:
            raise DataError("fits of one group must have the same number of targets each")
        train = _plain(train)
        held_out: Literal["given", "split"] = "given"
        if validation is None:
            held_out = "split"
            known = [t for target in targets for t in target if 0 <= t < train.logits.shape[1]]
            positives = find_positives(train, list(dict.fromkeys(known)))[0] if known else None
            if positives is None:
                positives = torch.zeros(len(train), 1, dtype=torch.bool)
            mask = split_validation(positives, config.validation_share, config.seed)
            train, validation = train.select(~mask), train.select(mask)
        elif (train.labels is None) != (validation.labels is None):
            raise DataError(
                "labels are given for only one of training and validation data; give both or "
                "neither, since they decide what is a positive"
            )
        validation = _plain(validation)
        device = torch.device(compute.device)
        return cls(train, validation, (train.to(device), validation.to(device)), held_out)


class _Search:
    """Trials for one target until a fit is good enough; the best one is the result."""

    def __init__(
        self, data: _Data, targets: tuple[int, ...], n_features: int, config: TrainConfig
    ) -> None:
        _check_targets(targets, n_features)
        self.start = time.perf_counter()
        self.data, self.targets, self.n_features, self.config = data, targets, n_features, config
        positives, self.positives_by = find_positives(data.train, targets)
        counts, images = positives.sum(0), len(positives)
        if data.held_out == "split":  # as many as the caller gave
            held_out = find_positives(data.validation, targets)[0]
            counts, images = counts + held_out.sum(0), images + len(held_out)
        _check_positives(counts, images, targets, self.positives_by, config)
        self.sides = (
            _prepare(data.train, targets, config),
            _prepare(data.validation, targets, config),
        )
        self.spread = self.sides[0].logits.std(0, correction=0)
        if not bool((self.spread > 0).all()):
            raise DataError(f"the logit of target {targets} is the same on every training image")
        self.trials = 0
        self.best: tuple[Trial[SRAE] | Trial[ConvSRAE], Faithfulness] | None = None

    def wanted(self, position: int) -> Wanted:
        """The next trial, its data on the device of the fit."""
        fitted = [
            side.beside(data) for side, data in zip(self.sides, self.data.fitted, strict=True)
        ]
        return Wanted(
            (fitted[0], fitted[1]), self.spread.to(fitted[0].logits), self.trials, position
        )

    def take(self, trial: Trial[SRAE] | Trial[ConvSRAE]) -> None:
        """Note a trial's result."""
        self.trials += 1
        trial.embedding.cpu().eval()
        figures = _measure(trial.embedding, self.sides[1], self.targets)
        if self.best is None or _rank(trial, figures, self.config) > _rank(*self.best, self.config):
            self.best = (trial, figures)

    @property
    def ended(self) -> bool:
        """Whether the best fit is good enough, or the trials are used up."""
        if self.trials >= self.config.trials or self.best is None:
            return True
        enough = min(self.config.enough_active, self.n_features)
        return not self.best[1].degenerate and self.best[1].active >= enough

    def result(self) -> tuple[SRAE | ConvSRAE, FitReport]:
        """The best fit, without a subspace, and its report."""
        if self.best is None:
            raise XNNError("config.trials must be at least 1")
        trial, figures = self.best
        embedding, config = trial.embedding, self.config
        if isinstance(embedding, SRAE):
            embedding = embedding.expanded().eval()
        report = FitReport(
            targets=self.targets,
            positives_by=self.positives_by,
            held_out=self.data.held_out,
            train=_measure(embedding, self.sides[0], self.targets),
            validation=figures,
            train_losses=_losses(embedding, self.sides[0], self.spread, config),
            validation_losses=_losses(embedding, self.sides[1], self.spread, config),
            degenerate=figures.degenerate,
            trials=self.trials,
            epochs=trial.epochs,
            revived=trial.revived,
            seconds=time.perf_counter() - self.start,
            config=config,
        )
        return embedding, report


class _Searches:
    """The searches of a group: which trial comes next, and what became of the last."""

    def __init__(
        self,
        data: _Data,
        targets: Sequence[tuple[int, ...]],
        n_features: int,
        config: TrainConfig,
        on_done: Callable[[int, FitResult], None],
    ) -> None:
        self.data, self.targets, self.n_features = data, targets, n_features
        self.config, self.on_done = config, on_done
        self.fresh = deque(range(len(targets)))
        self.again: deque[int] = deque()
        self.open: dict[int, _Search] = {}

    def next(self) -> Wanted | None:
        """The trial to run next: another one of a target that needs it, or the next target's."""
        if self.again:
            position = self.again.popleft()
            return self.open[position].wanted(position)
        while self.fresh:
            position = self.fresh.popleft()
            try:
                search = _Search(self.data, self.targets[position], self.n_features, self.config)
            except XNNError as error:
                self.on_done(position, error)
                continue
            self.open[position] = search
            return search.wanted(position)
        return None

    def take(self, wanted: Wanted, trial: Trial[SRAE] | XNNError) -> None:
        """Note a trial's end; a target whose search has ended is done."""
        position = wanted.position
        search = self.open[position]
        if not isinstance(trial, XNNError):
            search.take(trial)
            if not search.ended:
                self.again.append(position)
                return
        del self.open[position]
        self.on_done(position, trial if isinstance(trial, XNNError) else search.result())


def _fit_maps(
    data: _Data,
    position: int,
    targets: tuple[int, ...],
    n_features: int,
    config: TrainConfig,
    on_epoch: Callable[[int, int, int, Losses], None] | None,
) -> FitResult:
    """Fit a ConvSRAE to one target, trial by trial."""
    watch = None if on_epoch is None else partial(on_epoch, position)
    try:
        search = _Search(data, targets, n_features, config)
        while True:
            search.take(
                run_conv_trial(
                    search.sides, search.spread, n_features, config, search.trials, watch
                )
            )
            if search.ended:
                return search.result()
    except XNNError as error:
        return error


def _plain(data: Activations) -> Activations:
    """Ordinary tensors: inference tensors cannot take part in a fit."""
    if not data.z.is_inference():
        return data
    labels = None if data.labels is None else data.labels.clone()
    return Activations(data.z.clone(), data.logits.clone(), labels, data.map_memory)


def _check_config(config: TrainConfig) -> None:
    positive = ("q", "learning_rate", "batch_size", "epochs", "patience", "trials")
    for name in positive:
        if getattr(config, name) <= 0:
            raise XNNError(f"{name} must be positive, got {getattr(config, name)}")
    if min(config.beta, config.eta, config.weight_decay, config.pretrain_epochs) < 0:
        raise XNNError("beta, eta, weight_decay and pretrain_epochs must not be negative")
    if config.positive_share is not None and not 0 < config.positive_share < 1:
        raise XNNError(f"positive_share must lie between 0 and 1, got {config.positive_share}")
    if not 0 < config.validation_share < 1:
        raise XNNError(f"validation_share must lie between 0 and 1, got {config.validation_share}")
    if config.subspace is not None and config.subspace < 1:
        raise XNNError(f"subspace must be at least 1 dimension, got {config.subspace}")


def _check_targets(targets: tuple[int, ...], n_features: int) -> None:
    if not targets or len(set(targets)) != len(targets):
        raise DataError(f"targets must be different class indices, got {list(targets)}")
    if n_features < len(targets):
        raise XNNError(
            f"n_features must be at least 1 and at least the number of targets, got {n_features} "
            f"for {len(targets)} target(s)"
        )


def _check_positives(
    counts: Int64[Tensor, " targets"],
    images: int,
    targets: tuple[int, ...],
    positives_by: str,
    config: TrainConfig,
) -> None:
    for target, count in zip(targets, counts.tolist(), strict=True):
        if count < config.minimum_positives:
            raise DataError(
                f"target {target} has {count} positive image(s) by {positives_by} among "
                f"{images}; at least {config.minimum_positives} are needed: add images of "
                "the class"
            )


def _prepare(data: Activations, targets: tuple[int, ...], config: TrainConfig) -> Side:
    positives, _ = find_positives(data, targets)
    if not bool(positives.any(0).all()):
        raise DataError(
            f"the held-out data have no positives of every target in {targets}; give more"
        )
    weights = sample_weights(data, targets, config)
    return Side(data, data.logits[:, list(targets)], positives, weights)


def sample_weights(
    data: Activations, targets: Sequence[int], config: TrainConfig
) -> Float[Tensor, " samples"]:
    """Weights (M,) of sum 1 with which samples enter a fit: see `TrainConfig.positive_share`."""
    positives = find_positives(data, targets)[0].any(1)
    weights = torch.ones(len(data), dtype=data.logits.dtype)
    share, count = config.positive_share, int(positives.sum())
    if share is not None and 0 < count < len(data):
        weights[positives] = share / count
        weights[~positives] = (1 - share) / (len(data) - count)
    return weights / weights.sum()


@torch.no_grad()
def _measure(embedding: SRAE | ConvSRAE, split: Side, targets: tuple[int, ...]) -> Faithfulness:
    found = apply_embedding(embedding, split.data.z)
    return measure_faithfulness(
        found.features,
        found.contributions,
        found.reproduced,
        split.data.logits,
        targets,
        split.positives,
    )


def _losses(embedding: SRAE | ConvSRAE, split: Side, spread: Tensor, config: TrainConfig) -> Losses:
    if isinstance(embedding, ConvSRAE):
        return conv_losses(embedding, split, spread, config)
    return full_set_losses(embedding, split, spread, config)


def _rank(
    trial: Trial[SRAE] | Trial[ConvSRAE], figures: Faithfulness, config: TrainConfig
) -> tuple[bool, int, float]:
    active = min(figures.active, config.enough_active)
    return (not figures.degenerate, active, -trial.losses.total)
