"""How a fit went, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.training.config import Losses, TrainConfig


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
