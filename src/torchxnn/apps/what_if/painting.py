"""The regions of x-features in an image, and the image with them painted over."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.apps.what_if.config import WhatIfConfig
from torchxnn.errors import XNNError
from torchxnn.explanations.drawing.overlay import smooth
from torchxnn.metrics.config import Inpainting
from torchxnn.metrics.insertion_deletion import feature_regions
from torchxnn.metrics.masking import inpaint_images
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.xnn import XNN


def regions_of(
    maps: Float[Tensor, "features height width"],
    active: Bool[Tensor, " features"],
    config: WhatIfConfig,
) -> Bool[Tensor, "features height width"]:
    """The regions that are painted over, (n, H, W); empty for x-features that are inactive."""
    height, width = maps.shape[1:]
    maps = maps.cpu().float()
    if config.blur:
        sigma = config.blur * min(height, width)
        smoothed = [smooth(each.clamp(min=0).numpy(), sigma) for each in maps]
        maps = torch.from_numpy(np.stack(smoothed)).float()
    return feature_regions(maps, config.size(height, width), active.cpu())


def paint_over(
    batch: Float[Tensor, "1 channels height width"],
    keep: Bool[Tensor, "masks height width"],
    preprocessing: Preprocessing,
    inpainting: Inpainting,
) -> Float[Tensor, "masks channels height width"]:
    """One copy of an image per mask, painted over where the mask is false."""
    many = batch.expand(len(keep), -1, -1, -1)
    painted = inpaint_images(many, keep, preprocessing, inpainting)
    whole = keep.flatten(1).all(1)
    painted[whole.to(painted.device)] = batch  # not rounded to 256 levels where nothing is missing
    return painted


def preprocessing_of(xnn: XNN) -> Preprocessing:
    """How image files became the network's input, which painting over needs.

    Raises:
        XNNError: the XNN does not say.
        DataError: it is of a network of volumes, which nothing paints over.
    """
    if xnn.preprocessing is None:
        raise XNNError("painting over needs the preprocessing: XNN(..., preprocessing=...)")
    xnn.preprocessing.check_takes_images("what if paints over regions of images")
    return xnn.preprocessing
