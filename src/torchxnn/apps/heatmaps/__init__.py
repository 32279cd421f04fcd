"""Heatmaps of a whole data set, drawn once and kept in chunk files (`xnn attribute`)."""

from torchxnn.apps.heatmaps.attribute import attribute_many
from torchxnn.apps.heatmaps.drawing import HeatmapConfig
from torchxnn.apps.heatmaps.store import Heatmaps, ImageHeatmaps

__all__ = ["HeatmapConfig", "Heatmaps", "ImageHeatmaps", "attribute_many"]
