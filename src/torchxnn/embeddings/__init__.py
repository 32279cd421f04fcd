"""Embeddings of a layer's activations into x-features, by name."""

from torchxnn.embeddings.apply import anchor
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.components import Components, find_components, read_logits
from torchxnn.embeddings.concepts import ConceptEmbedding, with_readout
from torchxnn.embeddings.conv_srae import ConvSRAE
from torchxnn.embeddings.dimensions import SelectedDimensions, fit_dimensions
from torchxnn.embeddings.directions import DirectionConcepts, as_directions
from torchxnn.embeddings.ica import fit_ica
from torchxnn.embeddings.kinds import EMBEDDINGS
from torchxnn.embeddings.lasso import (
    LassoPath,
    LassoPoint,
    fit_lasso,
    fit_lasso_path,
    lasso_embedding,
)
from torchxnn.embeddings.nmf import NMFConcepts, fit_nmf
from torchxnn.embeddings.pca import PCAConcepts, fit_pca
from torchxnn.embeddings.srae import SRAE
from torchxnn.embeddings.topk_sae import TopKConfig, TopKSAE, fit_topk_sae

__all__ = [
    "EMBEDDINGS",
    "SRAE",
    "Components",
    "ConceptEmbedding",
    "ConvSRAE",
    "DirectionConcepts",
    "Embedding",
    "LassoPath",
    "LassoPoint",
    "NMFConcepts",
    "PCAConcepts",
    "SelectedDimensions",
    "TopKConfig",
    "TopKSAE",
    "anchor",
    "as_directions",
    "find_components",
    "fit_dimensions",
    "fit_ica",
    "fit_lasso",
    "fit_lasso_path",
    "fit_nmf",
    "fit_pca",
    "fit_topk_sae",
    "lasso_embedding",
    "read_logits",
    "with_readout",
]
