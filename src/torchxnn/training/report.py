"""How a fit went, and what is saved of an XNN beside its weights, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.kinds import build_embedding
from torchxnn.metrics.among_positives import AmongPositives
from torchxnn.metrics.faithfulness import Faithfulness
from torchxnn.models.examination import Examination
from torchxnn.models.hidden_state import note_changing
from torchxnn.models.layers import unwrap
from torchxnn.models.meaning import Meaning
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.weights import fingerprint
from torchxnn.storage.artifact import plain, structure
from torchxnn.training.config import Losses, TrainConfig


@dataclass(frozen=True)
class FitReport:
    """How a fit went; `degenerate` is empty when it is an explanation by several concepts.

    Attributes:
        targets: explained classes.
        positives_by: what made an image a positive: "label", "prediction" (the model's own), or of
            values from where on they are high.
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
        found_again: for each independent component that the x-features were held near, the share
            of bootstrap samples of the positives on which it is found again; empty without
            components.
        not_resampled: why `found_again` is empty; empty if it is not, and in records of earlier
            versions.
        among_positives: the x-features on the training positives of each target; empty in records
            of earlier versions.
    """

    targets: tuple[int, ...]
    positives_by: str
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
    found_again: tuple[float, ...] = ()
    not_resampled: str = ""
    among_positives: tuple[AmongPositives, ...] = ()


def describe_xnn(
    embedding: Embedding,
    report: FitReport | None,
    *,
    fingerprint: str,
    layer: str,
    targets: Sequence[int],
    outputs: int | None,
    class_names: Sequence[str] | None,
    preprocessing: Preprocessing | None,
    source: Mapping[str, Any] | None,
    examination: Examination | None,
    meaning: Meaning,
) -> dict[str, Any]:
    """Everything about an XNN as plain values; `write_saved` takes it with the state dict.

    The arguments are what `XNN` has under these names; `fingerprint` is that of its model.
    """
    return {
        "model_fingerprint": fingerprint,
        "layer": layer,
        "targets": list(targets),
        "outputs": outputs,
        "class_names": None if class_names is None else list(class_names),
        "preprocessing": plain(preprocessing),
        "source": None if source is None else dict(source),
        "meaning": plain(meaning),
        "embedding_kind": embedding.kind,
        "embedding": embedding.settings(),
        "report": plain(report),
        "examination": plain(examination),
    }


def rebuild_embedding(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> Embedding:
    """The embedding that `describe_xnn` described, in evaluation mode."""
    return build_embedding(about.get("embedding_kind", "srae"), about["embedding"], state)


def examination_and_fingerprint(
    about: Mapping[str, Any], model: nn.Module
) -> tuple[Examination | None, str]:
    """What an XNN knows about its model, and the fingerprint of a model in the way of its version.

    The first is None if the model was not examined; earlier versions did not do so, and their
    fingerprints are of parameters and buffers alone.

    Raises:
        ModelError: a model whose weights cannot be read.
        DataError: an examination that is damaged.
    """
    saved = about.get("examination")
    examination = saved and structure(saved, Examination, "its examination")
    if examination is not None:
        note_changing(unwrap(model), examination.changing)
    return examination, fingerprint(model, hidden="examination" in about)
