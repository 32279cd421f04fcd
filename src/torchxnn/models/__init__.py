"""Other people's networks: by name, their weights and layers, and what goes in and comes out.

`load_model` finds a network by name, `list_layers` says where an XNN can be attached, and
`replace_output` puts other values in place of what a layer gives.
"""

from torchxnn.models.examination import Examination, examine_model
from torchxnn.models.hooks import replace_output
from torchxnn.models.layer_list import LayerInfo, list_layers
from torchxnn.models.load import LoadedModel, load_model
from torchxnn.models.planted import PlantedNetwork, planted_network
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.weights import fingerprint

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
