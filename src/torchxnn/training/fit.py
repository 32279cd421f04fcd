"""Fit embeddings to recorded activations (paper eq. 5), and say honestly how it went."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from torchxnn.data.activations import Activations
from torchxnn.embeddings.autoencoder import Autoencoder
from torchxnn.embeddings.base import Embedding
from torchxnn.errors import DegenerateFitWarning, XNNError
from torchxnn.training.config import ComputeConfig, Losses, TrainConfig
from torchxnn.training.initialise import SharedStarts
from torchxnn.training.report import FitReport
from torchxnn.training.restarts import FitResult, GroupData, TrialQueue
from torchxnn.training.slots import count_slots
from torchxnn.training.trial import run_trials


def fit_embedding(
    train: Activations,
    validation: Activations | None,
    targets: Sequence[int],
    n_features: int,
    config: TrainConfig | None = None,
    on_epoch: Callable[[int, int, Losses], None] | None = None,
    compute: ComputeConfig | None = None,
    starts: SharedStarts | None = None,
) -> tuple[Embedding, FitReport]:
    """Fit an SRAE to recorded activations, or a `ConvSRAE` if they are maps.

    Trials with new seeds are run while the fit is degenerate or has fewer active x-features than
    `config.enough_active`; the best one is returned, by: not degenerate, more active x-features (up
    to `enough_active`), lower held-out loss.

    Args:
        train: activations to fit; samples whose label for a target is not known take no part.
        validation: held-out activations for early stopping and the report; None splits `train`.
        targets: columns of the logits to reproduce.
        n_features: n.
        config: settings; None takes the defaults.
        on_epoch: called with (trial, epoch, held-out losses).
        compute: how it is computed; None takes the defaults.
        starts: given to all fits to the same activations, spares them what they have in common; it
            changes no result.

    Returns:
        The embedding and the report. A degenerate fit also warns with `DegenerateFitWarning`.

    Raises:
        DataError: target out of range, too few positives, or a logit that does not vary.
        NonFiniteError: the loss became NaN or infinite.
    """
    train = train.known(targets)
    validation = None if validation is None else validation.known(targets)
    found: list[tuple[Embedding, FitReport]] = []

    def done(_: int, result: FitResult) -> None:
        if isinstance(result, XNNError):
            raise result
        found.append(result)

    watch = None if on_epoch is None else lambda _, *told: on_epoch(*told)
    wanted = [tuple(targets)]
    fit_group(train, validation, wanted, n_features, config, compute, done, watch, starts=starts)
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


def fit_group(
    train: Activations,
    validation: Activations | None,
    targets: Sequence[tuple[int, ...]],
    n_features: int,
    config: TrainConfig | None,
    compute: ComputeConfig | None,
    on_done: Callable[[int, FitResult], None],
    on_epoch: Callable[[int, int, int, Losses], None] | None = None,
    held_out: Literal["given", "split"] = "given",
    starts: SharedStarts | None = None,
    seeds: Sequence[int] | None = None,
    on_start: Callable[[int, int, Autoencoder], None] | None = None,
) -> None:
    """Fit an embedding to each of several targets, `compute.slots` of them at once.

    The mathematics is that of fits one by one. What a fit fails with goes to `on_done` and does not
    touch the others. The same targets may come several times, with a seed each.

    Args:
        train: activations to fit; all fits read the same ones.
        validation: held-out activations; None splits `train`, once for all targets.
        targets: columns of the logits, one tuple per fit.
        n_features: n of every fit.
        config: settings.
        compute: how it is computed.
        on_done: called with the position in `targets` and the result, as fits end.
        on_epoch: called with (position, trial, epoch, held-out losses).
        held_out: "split" says that `validation` was split off the images that the user gave.
        starts: shared with other groups that are fitted to the same activations.
        seeds: of the fits, one per entry of `targets`; None takes `config.seed` for all. The split
            and the principal subspace, which the fits have in common, are by `config.seed`.
        on_start: called with (position, trial, the embedding at its starting point), which the fit
            goes on to change.

    Raises:
        DataError: settings or data that no fit could begin with.
    """
    config, compute = config or TrainConfig(), compute or ComputeConfig()
    with torch.inference_mode(False), torch.enable_grad(), _new_tensors_on_the_cpu():
        data = GroupData.prepare(train, validation, targets, config, compute, held_out, starts)
        slots = count_slots(compute, data.fitted[0], n_features, config)
        queue = TrialQueue(data, targets, n_features, config, on_done, seeds)
        watch = None if on_epoch is None else lambda w, *told: on_epoch(w.position, w.number, *told)
        begun = None if on_start is None else lambda w, at: on_start(w.position, w.number, at)
        run_trials(queue.next, n_features, config, compute, slots, queue.take, watch, begun)


def _new_tensors_on_the_cpu() -> AbstractContextManager[object]:
    """Whatever the caller's default device is; where it is the CPU no operation is slowed down."""
    if torch.get_default_device().type == "cpu":
        return nullcontext()
    return torch.device("cpu")
