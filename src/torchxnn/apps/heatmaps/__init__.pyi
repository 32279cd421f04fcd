from .attribute import attribute_many
from .config import HeatmapConfig
from .store import Heatmaps, ImageHeatmaps

__all__ = ["HeatmapConfig", "Heatmaps", "ImageHeatmaps", "attribute_many"]
