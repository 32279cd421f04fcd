"""Fit an embedding to recorded activations (paper eq. 5), and say honestly how it went."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.activations import Activations
from torchxnn.conv_trial import conv_losses, run_conv_trial
from torchxnn.embeddings.apply import apply_embedding
from torchxnn.embeddings.conv import ConvConfig, ConvSRAE
from torchxnn.embeddings.srae import SRAE
from torchxnn.errors import DataError, DegenerateFitWarning, XNNError
from torchxnn.metrics.faithfulness import Faithfulness, measure_faithfulness
from torchxnn.train_config import Losses, Side, TrainConfig
from torchxnn.trial import Trial, full_set_losses, run_trial

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

    Returns:
        The embedding and the report. A degenerate fit also warns with `DegenerateFitWarning`.

    Raises:
        DataError: target out of range, too few positives, or a logit that does not vary.
        NonFiniteError: the loss became NaN or infinite.
    """
    # The fit needs gradients and lives on the CPU, whatever the caller's context is.
    with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
        return _fit(train, validation, tuple(targets), n_features, config, on_epoch)


def _fit(
    train: Activations,
    validation: Activations | None,
    targets: tuple[int, ...],
    n_features: int,
    config: TrainConfig | None,
    on_epoch: Callable[[int, int, Losses], None] | None,
) -> tuple[SRAE | ConvSRAE, FitReport]:
    config = config or TrainConfig()
    train, validation = _plain(train), None if validation is None else _plain(validation)
    if validation is not None and (train.labels is None) != (validation.labels is None):
        raise DataError(
            "labels are given for only one of training and validation data; give both or neither, "
            "since they decide what is a positive"
        )
    _check_settings(config, targets, n_features)
    start = time.perf_counter()
    positives, positives_by = find_positives(train, targets)
    _check_positives(positives, targets, positives_by, config)
    held_out: Literal["given", "split"] = "given"
    if validation is None:
        held_out = "split"
        mask = split_validation(positives, config.validation_share, config.seed)
        train, validation = train.select(~mask), train.select(mask)
    sides = (_prepare(train, targets, config), _prepare(validation, targets, config))
    spread = sides[0].logits.std(0, correction=0)
    if not bool((spread > 0).all()):
        raise DataError(f"the logit of target {targets} is the same on every training image")
    best: tuple[Trial[SRAE] | Trial[ConvSRAE], Faithfulness] | None = None
    run = run_conv_trial if train.are_maps else run_trial
    trials = 0
    for number in range(config.trials):
        trials += 1
        trial = run(sides, spread, n_features, config, number, on_epoch)
        figures = _measure(trial.embedding, sides[1], targets)
        if best is None or _rank(trial, figures, config) > _rank(*best, config):
            best = (trial, figures)
        if not best[1].degenerate and best[1].active >= min(config.enough_active, n_features):
            break
    if best is None:
        raise XNNError("config.trials must be at least 1")
    trial, figures = best
    trial.embedding.eval()
    report = FitReport(
        targets=targets,
        positives_by=positives_by,
        held_out=held_out,
        train=_measure(trial.embedding, sides[0], targets),
        validation=figures,
        train_losses=_losses(trial.embedding, sides[0], spread, config),
        validation_losses=_losses(trial.embedding, sides[1], spread, config),
        degenerate=figures.degenerate,
        trials=trials,
        epochs=trial.epochs,
        revived=trial.revived,
        seconds=time.perf_counter() - start,
        config=config,
    )
    if report.degenerate:
        warnings.warn(
            f"degenerate fit for target(s) {targets}: {'; '.join(report.degenerate)}. "
            "Try more images, another layer, more trials or a smaller eta; do not read the "
            "heatmaps as several concepts",
            DegenerateFitWarning,
            stacklevel=4,
        )
    return trial.embedding, report


def _plain(data: Activations) -> Activations:
    """Ordinary tensors: inference tensors cannot take part in a fit."""
    if not data.z.is_inference():
        return data
    labels = None if data.labels is None else data.labels.clone()
    return Activations(data.z.clone(), data.logits.clone(), labels, data.map_memory)


def _check_settings(config: TrainConfig, targets: tuple[int, ...], n_features: int) -> None:
    if not targets or len(set(targets)) != len(targets):
        raise DataError(f"targets must be different class indices, got {list(targets)}")
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
    if n_features < len(targets):
        raise XNNError(
            f"n_features must be at least 1 and at least the number of targets, got {n_features} "
            f"for {len(targets)} target(s)"
        )


def _check_positives(
    positives: Bool[Tensor, "samples targets"],
    targets: tuple[int, ...],
    positives_by: str,
    config: TrainConfig,
) -> None:
    for target, count in zip(targets, positives.sum(0).tolist(), strict=True):
        if count < config.minimum_positives:
            raise DataError(
                f"target {target} has {count} positive image(s) by {positives_by} among "
                f"{len(positives)}; at least {config.minimum_positives} are needed: add images of "
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
    weights = torch.ones(len(data))
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
    total = trial.losses.total if trial.losses else math.inf
    return (not figures.degenerate, min(figures.active, config.enough_active), -total)
