"""Files that appear whole or not at all, here and in object storage.

`ChunkStore` keeps rows of tensors in checksummed chunk files, which are written in any order and
read in any part; activation caches and stored heatmaps are such stores.
"""

from torchxnn.storage.chunk_store import ChunkStore

__all__ = ["ChunkStore"]
