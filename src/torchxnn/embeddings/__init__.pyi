from .apply import anchor
from .base import Embedding
from .components import Components, find_components, read_logits
from .concepts import ConceptEmbedding, with_readout
from .conv_srae import ConvSRAE
from .dimensions import SelectedDimensions, fit_dimensions
from .directions import DirectionConcepts, as_directions
from .ica import fit_ica
from .kinds import EMBEDDINGS
from .lasso import LassoPath, LassoPoint, fit_lasso, fit_lasso_path, lasso_embedding
from .nmf import NMFConcepts, fit_nmf
from .pca import PCAConcepts, fit_pca
from .srae import SRAE
from .topk_sae import TopKConfig, TopKSAE, fit_topk_sae

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
