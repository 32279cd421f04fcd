"""Open a saved XNN together with the model that it explains."""

from __future__ import annotations

import warnings
from pathlib import Path

from torchxnn.errors import ModelError, XNNWarning
from torchxnn.explanations.sentences import NOT_ANCHORED
from torchxnn.models.load import load_model
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.storage.artifact import structure
from torchxnn.storage.saved_folder import read_about
from torchxnn.xnn import XNN


def open_run(run: Path, model: str | None = None, weights: str | Path | None = None) -> XNN:
    """The XNN that `xnn fit` saved, attached to its model.

    Args:
        run: folder written by `xnn fit`.
        model: name of the model, if it has another one now.
        weights: state dict of the model, if it has moved since.

    Raises:
        ModelError: no saved XNN there, its model is not known, or is another one now (by
            fingerprint).
    """
    about = read_about(run)
    source = about.get("source") or {}
    name, file = model or source.get("model"), weights or source.get("weights")
    if name is None:
        raise ModelError(f"{run} does not say which model it explains; give --model")
    saved = about.get("preprocessing")
    known = structure(saved, Preprocessing, f"the preprocessing in {run}") if saved else None
    loaded = load_model(
        name, file, preprocessing=known, allow_random=bool(source.get("random_weights"))
    )
    if known is None:
        warnings.warn(
            f"{run} does not say how images were preprocessed; taking what is usual for {name}",
            XNNWarning,
            stacklevel=2,
        )
    xnn = XNN.from_pretrained(run, loaded.model, loaded.preprocessing)
    if not xnn.fitted().anchored:
        warnings.warn(f"{run}: {NOT_ANCHORED}", XNNWarning, stacklevel=2)
    return xnn
