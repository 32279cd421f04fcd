"""Metrics of an explanation, pure functions; each states which direction is better."""

from torchxnn.metrics.faithfulness import Faithfulness, measure_faithfulness
from torchxnn.metrics.orthogonality import MapCovariance, Orthogonality
from torchxnn.metrics.pointing import Pointing, pointing_game

__all__ = [
    "Faithfulness",
    "MapCovariance",
    "Orthogonality",
    "Pointing",
    "measure_faithfulness",
    "pointing_game",
]
