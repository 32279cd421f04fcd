"""The atlas: a static site about the XNNs of many classes of one model, without a server."""

from torchxnn.atlas.build import Atlas, build_atlas
from torchxnn.atlas.config import AtlasConfig

__all__ = ["Atlas", "AtlasConfig", "build_atlas"]
