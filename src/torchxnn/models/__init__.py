"""Other people's networks: by name, their weights and layers, and what goes in and comes out.

`load_model` finds a network by name, `list_layers` says where an XNN can be attached, and
`replace_output` puts other values in place of what a layer gives.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
