"""The HTML report of one fit: figures of merit, explained images, a sheet per x-feature."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
