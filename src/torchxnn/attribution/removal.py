"""Removal: what the output loses when something in the image is not there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from torchxnn.attribution.base import Images, MapMethod, Maps, Targets
from torchxnn.attribution.segments import fill_from_around, segment
from torchxnn.embeddings.exact import back, exact, exact_device
from torchxnn.errors import XNNError


@dataclass(eq=False, repr=False, kw_only=True)
class Removal(MapMethod):
    r"""How far the output falls when a segment is replaced by what surrounds it, signed.

    The image x is cut into segments of like colour. Each in turn is hidden, with a margin, and
    filled from around: :math:`x^k`. The fall is shared out among the pixels by how much they
    changed,

    .. math:: S(p)=\sum_k \big(f(x)-f(x^k)\big)
        \frac{\lVert x_p-x^k_p\rVert^2}{\sum_q\lVert x_q-x^k_q\rVert^2},

    so the map sums to the sum of the falls, a small thing on which much depends counts as much as a
    large one, and a pixel that looks the same without the segment counts nothing. Occlusion instead
    hides squares, which cut through things, under a colour that may itself be news to the network.
    Source of replacing what is hidden by what may lie behind it: Agarwal, Nguyen, Explaining image
    classifiers by removing input features using generative models, 2020; here nothing is learned.
    Of segments: Ribeiro, Singh, Guestrin, Why should I trust you, 2016. Sharing the fall out by the
    change is ours.

    Args:
        scale: coarseness of the segments, see `segment`.
        smallest: share of the pixels that a segment must have, else it belongs to its neighbour.
        largest: share above which a segment is not removed, such as the sky: nothing in the image
            says what may lie behind it. Its pixels still count at the margins of others.
        margin: pixels around a segment that are hidden with it, so that its blurred outline does
            not give it away; None takes a hundredth of the longer side.
    """

    name = "removal"
    needs_gradient = False
    scale: float = 1e-4
    smallest: float = 6e-4
    largest: float = 0.25
    margin: int | None = None

    def __post_init__(self) -> None:
        """Check the parameters."""
        if not self.scale > 0:
            raise XNNError(f"scale must be above 0, got {self.scale}")
        if not 0 <= self.smallest <= self.largest <= 1 or self.largest == 0:
            raise XNNError(
                "shares must be in order, 0 <= smallest <= largest <= 1, and largest above 0, got "
                f"{self.smallest} and {self.largest}"
            )
        if self.margin is not None and self.margin < 0:
            raise XNNError(f"margin must be at least 0, got {self.margin}")
        super().__post_init__()

    @torch.no_grad()
    def _maps(self, images: Images, targets: Targets) -> Maps:
        rows = zip(images, targets, strict=True)
        return torch.stack([self._map(image, wanted) for image, wanted in rows])

    def _map(self, image: Tensor, wanted: Int64[Tensor, " targets"]) -> Tensor:
        before = self._outputs(image.unsqueeze(0))[:, wanted]
        result = torch.zeros(
            len(wanted), *image.shape[1:], dtype=torch.float64, device=exact_device(image.device)
        )
        for hidden in self.hide(image).split(self.chunk_size):
            if len(hidden) == 0:
                break
            without = fill_from_around(image, hidden)
            falls = exact(before - self._outputs(without)[:, wanted])
            change = exact(image - without).square().sum(1)
            total = change.sum((1, 2), keepdim=True)
            shares = change / total.clamp(min=torch.finfo(torch.float64).tiny)
            result += torch.einsum("kn,khw->nhw", falls, shares)
        return back(result, image)

    def hide(
        self, image: Float[Tensor, "channels height width"]
    ) -> Bool[Tensor, "segments height width"]:
        """What is hidden of an image, a mask for each segment that is removed, with its margin."""
        numbers = segment(image, self.scale, self.smallest).to(image.device)
        height, width = numbers.shape
        sizes = numbers.flatten().bincount()
        removed = (sizes <= self.largest * height * width).nonzero().flatten()
        masks = numbers == removed[:, None, None]
        margin = round(max(height, width) / 100) if self.margin is None else self.margin
        if margin > 0 and len(masks) > 0:
            reach = functional.max_pool2d(masks.unsqueeze(1).float(), 2 * margin + 1, 1, margin)
            masks = reach.squeeze(1) > 0
        return masks[~masks.flatten(1).all(1)]
