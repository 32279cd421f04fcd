"""The atlas: a static site about the XNNs of many classes of one model, without a server."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
