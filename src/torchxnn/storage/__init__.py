"""Files that appear whole or not at all, here and in object storage.

`ChunkStore` keeps rows of tensors in checksummed chunk files, which are written in any order and
read in any part; activation caches and stored heatmaps are such stores.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
