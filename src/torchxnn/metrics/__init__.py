"""Metrics of an explanation, pure functions; each states which direction is better."""

from torchxnn.metrics.agreement import Agreement, krippendorff_alpha
from torchxnn.metrics.faithfulness import Faithfulness, measure_faithfulness
from torchxnn.metrics.insertion_deletion import (
    FeatureUse,
    StepCurve,
    deletion_masks,
    feature_regions,
    feature_use,
    insertion_masks,
    shifted_regions,
    step_curve,
)
from torchxnn.metrics.intervals import (
    Interval,
    PairedTest,
    bootstrap_counts,
    bootstrap_interval,
    bootstrap_mean,
    paired_wilcoxon,
)
from torchxnn.metrics.locality import Locality, RelevanceHistograms, entropy
from torchxnn.metrics.masking import (
    Inpainting,
    Masking,
    combine_maps,
    inpaint_images,
    inpaint_picture,
    masked_accuracy,
    top_pixels,
)
from torchxnn.metrics.orthogonality import MapCovariance, Orthogonality
from torchxnn.metrics.part_weights import (
    CONTEXT,
    PixelWeights,
    pixel_weights_masks,
    pixel_weights_points,
    pixel_weights_voronoi,
)
from torchxnn.metrics.pointing import Pointing, pointing_game
from torchxnn.metrics.stability import (
    Stability,
    feature_correlation,
    match_features,
    measure_stability,
    stability_of,
)
from torchxnn.metrics.table import METRICS, Metric

__all__ = [
    "CONTEXT",
    "METRICS",
    "Agreement",
    "Faithfulness",
    "FeatureUse",
    "Inpainting",
    "Interval",
    "Locality",
    "MapCovariance",
    "Masking",
    "Metric",
    "Orthogonality",
    "PairedTest",
    "PixelWeights",
    "Pointing",
    "RelevanceHistograms",
    "Stability",
    "StepCurve",
    "bootstrap_counts",
    "bootstrap_interval",
    "bootstrap_mean",
    "combine_maps",
    "deletion_masks",
    "entropy",
    "feature_correlation",
    "feature_regions",
    "feature_use",
    "inpaint_images",
    "inpaint_picture",
    "insertion_masks",
    "krippendorff_alpha",
    "masked_accuracy",
    "match_features",
    "measure_faithfulness",
    "measure_stability",
    "paired_wilcoxon",
    "pixel_weights_masks",
    "pixel_weights_points",
    "pixel_weights_voronoi",
    "pointing_game",
    "shifted_regions",
    "stability_of",
    "step_curve",
    "top_pixels",
]
