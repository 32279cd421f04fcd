"""Heatmaps of a whole data set, drawn once and kept in chunk files (`xnn attribute`)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
