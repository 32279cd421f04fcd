"""Ground truth: birds whose parts are known, and images in which one of them is missing."""
