"""Jobs in processes and on Ray, one thread each.

An `Engine` runs the same jobs with the same results on this machine (`LocalEngine`) or on a cluster
(`RayEngine`, with the extra `ray`); `EngineConfig` is what the command line knows of them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
