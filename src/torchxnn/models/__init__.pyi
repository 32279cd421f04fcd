from .examination import Examination, examine_model
from .hooks import replace_output
from .layer_list import LayerInfo, list_layers
from .load import LoadedModel, load_model
from .planted import PlantedNetwork, planted_network
from .preprocessing import Preprocessing
from .weights import fingerprint

__all__ = [
    "Examination",
    "LayerInfo",
    "LoadedModel",
    "PlantedNetwork",
    "Preprocessing",
    "examine_model",
    "fingerprint",
    "list_layers",
    "load_model",
    "planted_network",
    "replace_output",
]
