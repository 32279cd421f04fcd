from .engine import Engine, LocalEngine
from .ray_engine import EngineConfig, RayEngine

__all__ = ["Engine", "EngineConfig", "LocalEngine", "RayEngine"]
