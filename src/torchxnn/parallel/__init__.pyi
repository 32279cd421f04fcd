from .config import EngineConfig
from .engine import Engine, LocalEngine
from .ray_engine import RayEngine

__all__ = ["Engine", "EngineConfig", "LocalEngine", "RayEngine"]
