"""Metrics of an explanation, pure functions; each states which direction is better."""

from torchxnn.metrics.faithfulness import Faithfulness, measure_faithfulness
from torchxnn.metrics.orthogonality import MapCovariance, Orthogonality

__all__ = ["Faithfulness", "MapCovariance", "Orthogonality", "measure_faithfulness"]
