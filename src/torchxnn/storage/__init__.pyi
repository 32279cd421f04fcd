from .chunk_store import ChunkStore

__all__ = ["ChunkStore"]
