"""What XNNs see in images, for one target: what the figures are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from torchxnn.attribution.methods import PAPER
from torchxnn.data.datasets.base import Sample
from torchxnn.data.positives import target_position
from torchxnn.errors import DataError
from torchxnn.explanations.functions import draw_input
from torchxnn.xnn import XNN

IMAGES_AT_ONCE = 8
OFF, EMPTY = "off", "no relevance"


@dataclass(frozen=True, eq=False)
class Look:
    """What an XNN sees in one image, for one target.

    Attributes:
        picture: (H, W, 3), the image as the network saw it, without the normalisation.
        features: (n,), the x-features E.
        contributions: (n,), in logits; see `Embedding.contributions`.
        heatmaps: (n, H, W), signed relevance of each x-feature.
        logit_heatmap: (H, W), signed relevance of the network's own logit (1-Heatmap).
        logit: of the target, the network's own.
        verdict: what the network takes the image for, for people.
        right: whether that is the image's label; None without a label.
    """

    picture: UInt8[np.ndarray, "height width 3"]
    features: Float[np.ndarray, " features"]
    contributions: Float[np.ndarray, " features"]
    heatmaps: Float[np.ndarray, "features height width"]
    logit_heatmap: Float[np.ndarray, "height width"]
    logit: float
    verdict: str
    right: bool | None

    def note(self, feature: int) -> str:
        """Why an x-feature has nothing to show here, else empty."""
        if self.features[feature] == 0 or self.contributions[feature] == 0:
            return OFF
        return "" if (self.heatmaps[feature] > 0).any() else EMPTY


def target_of(xnn: XNN, target: int | None) -> int:
    """The class to draw: the given one, or the first that the XNN explains.

    Raises:
        XNNError: the XNN is not fitted.
        DataError: it does not explain this class.
    """
    xnn.fitted()
    return xnn.targets[target_position(xnn.targets, target)]


@torch.no_grad()
def contributions_of(
    xnn: XNN, samples: Sequence[Sample], target: int
) -> Float[torch.Tensor, "samples features"]:
    """Contributions of many images, (M, n), on the CPU, without any heatmap."""
    position = xnn.targets.index(target)
    parts = [xnn.contributions(images)[:, position].cpu() for images in _batches(xnn, samples)]
    return torch.cat(parts)


@torch.no_grad()
def look_at(xnn: XNN, samples: Sequence[Sample], target: int) -> list[Look]:
    """Contributions and heatmaps of images by the paper's rule, a few at a time.

    Raises:
        DataError: no images, or images of different sizes.
    """
    position, looks = target_position(xnn.targets, target), list[Look]()
    for images in _batches(xnn, samples):
        drawn = xnn.run_with_maps(images, PAPER, logits=[target])
        found, maps = drawn.output.cpu(), drawn.heatmaps.cpu().numpy()
        logit_maps = drawn.logit_heatmaps[:, 0].cpu().numpy()
        for row, predicted in enumerate(found.predicted.tolist()):
            sample = samples[len(looks)]
            looks.append(
                Look(
                    picture=draw_input(sample.image, xnn.preprocessing),
                    features=found.features[row].numpy(),
                    contributions=found.contributions[row, position].numpy(),
                    heatmaps=maps[row],
                    logit_heatmap=logit_maps[row],
                    logit=float(found.logits[row, target]),
                    verdict=xnn.class_name(predicted),
                    right=None if sample.label is None else predicted == sample.label,
                )
            )
    return looks


def _batches(xnn: XNN, samples: Sequence[Sample]) -> list[torch.Tensor]:
    if not samples:
        raise DataError("there are no images to draw a figure of")
    for sample in samples:
        if sample.image.shape != samples[0].image.shape:
            raise DataError(
                f"{sample.path} is {tuple(sample.image.shape)} and {samples[0].path} "
                f"{tuple(samples[0].image.shape)}; images of one figure must be of one size"
            )
    return [
        torch.stack([s.image for s in samples[start : start + IMAGES_AT_ONCE]]).to(xnn.device)
        for start in range(0, len(samples), IMAGES_AT_ONCE)
    ]
