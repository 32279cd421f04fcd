"""Embeddings of a layer's activations into x-features, by name."""

from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.srae import SRAE

EMBEDDINGS: dict[str, type[Embedding]] = {"srae": SRAE}

__all__ = ["EMBEDDINGS", "SRAE", "Embedding"]
