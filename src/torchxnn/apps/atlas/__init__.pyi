from .build import Atlas, build_atlas
from .config import AtlasConfig

__all__ = ["Atlas", "AtlasConfig", "build_atlas"]
