"""Eq. 5 of the paper, one fit, its restarts, and many classes.

`TrainConfig` and `ComputeConfig` are what a fit obeys, `FitReport` says what came out, and
`fit_many` fits an XNN to every class of a cache. The terms of the loss are pure functions.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
