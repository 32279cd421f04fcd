"""All embeddings by name: what saved files, the benchmark and the command line read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.conv_srae import ConvSRAE
from torchxnn.embeddings.dimensions import SelectedDimensions
from torchxnn.embeddings.directions import DirectionConcepts
from torchxnn.embeddings.nmf import NMFConcepts
from torchxnn.embeddings.pca import PCAConcepts
from torchxnn.embeddings.srae import SRAE
from torchxnn.embeddings.topk_sae import TopKSAE

EMBEDDINGS: dict[str, type[Embedding]] = {
    each.kind: each
    for each in (
        SRAE,
        ConvSRAE,
        SelectedDimensions,
        DirectionConcepts,
        NMFConcepts,
        PCAConcepts,
        TopKSAE,
    )
}
"""Name -> class; the Lasso gives `SelectedDimensions` too."""

ANCHOR = ("typical", "anchored")
"""What states of earlier versions lack."""


def build_embedding(
    kind: str, settings: Mapping[str, Any], state: Mapping[str, Tensor]
) -> Embedding:
    """An embedding as it was saved, in evaluation mode; no number is drawn for it.

    `settings` is what `Embedding.settings` gave, `state` its state dict; one of an earlier version,
    which does not know what a typical other image gets, is not anchored.

    Raises:
        KeyError: there is no such kind.
        TypeError: the settings are another kind's.
        RuntimeError: the state is another embedding's.
    """
    with torch.random.fork_rng(devices=[]):
        embedding = EMBEDDINGS[kind](**settings)
    not_anchored = {name: getattr(embedding, name) for name in ANCHOR}
    embedding.load_state_dict({**not_anchored, **state})
    return embedding.eval()


def saved_state(embedding: Embedding) -> dict[str, Tensor]:
    """The state dict as it is saved: without an anchor if there is none.

    So an XNN of an earlier version keeps the checksum by which the names that people gave know it.
    """
    state = embedding.state_dict()
    return {name: v for name, v in state.items() if embedding.anchored or name not in ANCHOR}
