"""Whether the highlighted pixels suffice to classify the picture (paper appendix II, table .5)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor, nn

from torchxnn.errors import DataError, check_finite
from torchxnn.metrics.config import Inpainting
from torchxnn.models.layers import check_images, run_model
from torchxnn.models.outputs import count_classes, predicted_classes
from torchxnn.models.preprocessing import Preprocessing

KEPT = (300, 500, 1000)
"""How many of 224 x 224 pixels are kept in table .5 of the paper."""


DEFAULT_INPAINTING = Inpainting()


@dataclass(frozen=True)
class Masking:
    """Accuracy on pictures of which only the highlighted pixels are real (paper table .5).

    Attributes:
        kept: numbers of pixels kept.
        accuracy: of the explained model at each of them, a fraction; higher is better.
        original: accuracy on the unchanged pictures.
        images: number of pictures.
        short: at each number, pictures whose map has fewer positive pixels; they keep only those.
    """

    kept: tuple[int, ...]
    accuracy: tuple[float, ...]
    original: float
    images: int
    short: tuple[int, ...]


def combine_maps(
    heatmaps: Float[Tensor, "batch features height width"],
    contributions: Float[Tensor, "batch features"],
) -> Float[Tensor, "batch height width"]:
    r"""One map of all x-features: the mixture of their maps by their share of the logit.

    :math:`S_{ij}=\sum_l\frac{|c_l|}{\sum_k|c_k|}\,P(\mathrm{pixel}\,ij\mid l)` with P the
    positive part of map l, normalised to sum 1: the probability of a pixel when an x-feature is
    drawn by its contribution and then a pixel by its map. The paper does not say how it ranks the
    pixels of several maps. An empty map adds nothing; if no x-feature contributes, all do alike.
    Maps are signed or not; contributions c (B, n) are those of one target.

    Returns:
        (B, H, W), >= 0, with sum 1 if no map is empty.

    Raises:
        NonFiniteError: a map or a contribution is NaN or infinite.
    """
    check_finite(
        "a heatmap or a contribution to combine is NaN or infinite", heatmaps, contributions
    )
    positive = heatmaps.detach().clamp(min=0)
    total = positive.sum((2, 3))
    size = contributions.detach().abs().to(positive)
    everything = size.sum(1, keepdim=True)
    share = torch.where(everything > 0, size / everything, 1 / max(1, size.shape[1]))
    scale = torch.where(total > 0, share / total, 0.0)
    return torch.einsum("bnhw,bn->bhw", positive, scale)


def top_pixels(
    scores: Float[Tensor, "batch height width"], kept: int
) -> Bool[Tensor, "batch height width"]:
    """The pixels with the highest positive scores; equal scores in reading order.

    Pixels that are not positive are never kept, for nothing but their place would choose among
    them; so a map with fewer positive pixels keeps fewer than `kept`, 1 to H W. Scores (B, H, W)
    are such as from `combine_maps`, or the signed map of the logit.

    Raises:
        DataError: `kept` is out of range.
        NonFiniteError: a score is NaN or infinite.
    """
    flat = scores.detach().flatten(1)
    if not 1 <= kept <= flat.shape[1]:
        raise DataError(f"pixels kept must be 1 to {flat.shape[1]}, got {kept}")
    check_finite("a heatmap to mask with holds NaN or infinity", flat)
    order = flat.sort(dim=1, descending=True, stable=True).indices[:, :kept]
    chosen = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True)
    return (chosen & (flat > 0)).reshape(scores.shape)


def inpaint_picture(
    picture: UInt8[np.ndarray, "height width 3"],
    keep: Bool[np.ndarray, "rows columns"],
    inpainting: Inpainting = DEFAULT_INPAINTING,
) -> UInt8[np.ndarray, "height width 3"]:
    """Paint everything but the kept pixels black and fill it in from them.

    Source: paper appendix II. If no pixel is kept, the picture is black. `picture` is red, green,
    blue in 0 to 255.

    Raises:
        DataError: the sizes differ.
    """
    if picture.shape[:2] != keep.shape:
        raise DataError(
            f"the picture has {picture.shape[0]} x {picture.shape[1]} pixels and the mask "
            f"{keep.shape[0]} x {keep.shape[1]}"
        )
    return _inpaint(np.ascontiguousarray(picture * keep[:, :, np.newaxis]), keep, inpainting)


def _inpaint(black: np.ndarray, keep: np.ndarray, inpainting: Inpainting) -> np.ndarray:
    """Fill in what is not kept: of 8-bit colours, or of one plane (height, width) of floats."""
    # opencv is slow to import and nothing else in the package needs it
    import cv2

    if not keep.any() or keep.all():
        return black
    telea = inpainting.algorithm == "telea"
    flag = cv2.INPAINT_TELEA if telea else cv2.INPAINT_NS
    return np.asarray(cv2.inpaint(black, (~keep).astype(np.uint8), inpainting.radius, flag))


def inpaint_images(
    images: Float[Tensor, "batch channels height width"],
    keep: Bool[Tensor, "batch height width"],
    preprocessing: Preprocessing,
    inpainting: Inpainting = DEFAULT_INPAINTING,
) -> Float[Tensor, "batch channels height width"]:
    """`inpaint_picture` of images (B, C, H, W) as the network expects them, normalised again.

    Of three channels as a picture of 256 levels; of any other number every channel by itself,
    without levels.

    Raises:
        DataError: as `inpaint_picture`, or not as many channels as the preprocessing has.
    """
    if images.shape[1] != preprocessing.channels:
        raise DataError(
            f"masking needs images with {preprocessing.channels} channels, got {images.shape[1]}"
        )
    masks = keep.cpu().numpy()
    if preprocessing.takes_arrays or images.shape[1] != 3:
        return _inpaint_planes(images, masks, preprocessing, inpainting)
    pictures = [
        inpaint_picture(preprocessing.picture(image), mask, inpainting)
        for image, mask in zip(images, masks, strict=True)
    ]
    pixels = torch.from_numpy(np.stack(pictures)).float() / 255
    return preprocessing.normalise(pixels.permute(0, 3, 1, 2)).contiguous().to(images)


def _inpaint_planes(
    images: Float[Tensor, "batch channels height width"],
    masks: Bool[np.ndarray, "batch height width"],
    preprocessing: Preprocessing,
    inpainting: Inpainting,
) -> Float[Tensor, "batch channels height width"]:
    black = preprocessing.normalise(torch.zeros(preprocessing.channels, 1, 1))
    shown = torch.from_numpy(masks)[:, None].to(images.device)
    painted = torch.where(shown, images, black.to(images)).cpu().float().numpy()
    for image, mask in zip(painted, masks, strict=True):
        for channel, plane in enumerate(image):
            image[channel] = _inpaint(plane, mask, inpainting)
    return torch.from_numpy(painted).to(images)


def masked_accuracy(
    model: nn.Module,
    preprocessing: Preprocessing,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    kept: tuple[int, ...] = KEPT,
    inpainting: Inpainting = DEFAULT_INPAINTING,
) -> Masking:
    """Accuracy of the explained model when only the highest pixels of a map are real.

    The other pixels are painted black and inpainted (paper appendix II, table .5). The model is
    left as it was.

    Args:
        model: the explained model.
        preprocessing: how the images were normalised.
        batches: of images (B, C, H, W), 0-based labels (B,), and maps (B, H, W): `combine_maps` for
            x-features, the map of the logit for a single heatmap, and random numbers in (0, 1] for
            the chance level.
        kept: numbers of pixels to keep.
        inpainting: algorithm and radius.

    Raises:
        DataError: no images, a label the model has no class for, or as `top_pixels`.
        NonFiniteError: an image or a map holds NaN or infinity.

    Example:
        >>> maps = combine_maps(xnn.attribute(images), xnn.contributions(images)[:, 0])
        >>> masked_accuracy(model, preprocessing, [(images, labels, maps)]).accuracy
    """
    if not kept:
        raise DataError("masking needs at least one number of pixels to keep")
    right = torch.zeros(1 + len(kept), dtype=torch.long)
    short = torch.zeros(len(kept), dtype=torch.long)
    total = 0
    for images, labels, scores in batches:
        if not len(images) == len(labels) == len(scores):
            raise DataError(
                f"a batch has {len(images)} images, {len(labels)} labels and {len(scores)} maps"
            )
        check_images(model, images)
        keeps = [top_pixels(scores, k) for k in kept]
        versions = [images, *(inpaint_images(images, k, preprocessing, inpainting) for k in keeps)]
        right += torch.tensor([_count_right(model, some, labels) for some in versions])
        sizes = torch.stack([keep.flatten(1).sum(1) for keep in keeps], 1).cpu()
        short += (sizes < torch.tensor(kept)).sum(0)
        total += len(images)
    if total == 0:
        raise DataError("there are no images to mask")
    original, *accuracy = (right.double() / total).tolist()
    return Masking(kept, tuple(accuracy), original, total, tuple(short.tolist()))


def _count_right(
    model: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    labels: Int64[Tensor, " batch"],
) -> int:
    logits = run_model(model, images)
    classes = count_classes(logits.shape[1])
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise DataError(
            f"labels must be class indices 0 to {classes - 1} of the model, got "
            f"{int(labels.min())} to {int(labels.max())}"
        )
    return int((predicted_classes(logits) == labels.to(logits.device)).sum())
