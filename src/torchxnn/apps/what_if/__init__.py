"""What the network says where an x-feature is taken away, of one image and of many."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
