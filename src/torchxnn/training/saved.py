"""What is saved of an XNN beside its weights, and how its embedding is built again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.kinds import build_embedding
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.artifact import plain
from torchxnn.training.report import FitReport


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
) -> dict[str, Any]:
    """Everything about an XNN as plain values; `write_saved` takes it with the state dict.

    Args:
        embedding: fitted.
        report: of the fit, if known.
        fingerprint: of the explained model.
        layer: dotted name.
        targets: explained classes.
        outputs: number of the model's outputs.
        class_names: of the outputs.
        preprocessing: how pictures become the model's input.
        source: where model and data came from.
    """
    return {
        "model_fingerprint": fingerprint,
        "layer": layer,
        "targets": list(targets),
        "outputs": outputs,
        "class_names": None if class_names is None else list(class_names),
        "preprocessing": plain(preprocessing),
        "source": None if source is None else dict(source),
        "embedding_kind": embedding.kind,
        "embedding": embedding.settings(),
        "report": plain(report),
    }


def rebuild_embedding(about: Mapping[str, Any], state: Mapping[str, Tensor]) -> Embedding:
    """The embedding that `describe_xnn` described, in evaluation mode."""
    return build_embedding(about.get("embedding_kind", "srae"), about["embedding"], state)
