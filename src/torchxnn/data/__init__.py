"""Data sets, what a layer gives for them, and who is a positive.

Data sets yield frozen samples and are images with labels to PyTorch, too. `record_activations`
keeps what a layer gives in memory, `cache_activations` on disk.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
