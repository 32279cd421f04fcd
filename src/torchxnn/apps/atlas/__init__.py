"""The atlas: a static site about the XNNs of many classes of one model, without a server."""

from torchxnn.apps.atlas.build import Atlas, build_atlas
from torchxnn.apps.atlas.config import AtlasConfig

__all__ = ["Atlas", "AtlasConfig", "build_atlas"]
