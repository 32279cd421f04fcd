"""Jobs in processes and on Ray, one thread each.

An `Engine` runs the same jobs with the same results on this machine (`LocalEngine`) or on a cluster
(`RayEngine`, with the extra `ray`); `EngineConfig` is what the command line knows of them.
"""

from torchxnn.parallel.engine import Engine, LocalEngine
from torchxnn.parallel.ray_engine import EngineConfig, RayEngine

__all__ = ["Engine", "EngineConfig", "LocalEngine", "RayEngine"]
