"""Labels as a loader gives them, and as the class indices that everything else reads."""

from __future__ import annotations

from jaxtyping import Int64, Shaped
from torch import Tensor

from torchxnn.errors import DataError


def class_indices(labels: Shaped[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
    """Labels (B,) as 0-based class indices, where they lie; whole numbers of any type are such.

    Raises:
        DataError: a label is no whole number; the message names it.
    """
    whole = labels.long()
    if labels.is_complex() or labels.is_floating_point():
        wrong = (labels != whole).nonzero().flatten()
        if len(wrong):
            raise DataError(
                f"label {labels[wrong[0]].item():.4g} is no class index: labels of classes are "
                "whole numbers from 0; leave measured values (a regression) out of the loader"
            )
    return whole
