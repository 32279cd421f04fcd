"""RISE: which pixels, when visible through random masks, go with a high output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from torchxnn.attribution.base import BaselineMethod, Images, Maps, Targets
from torchxnn.embeddings.exact import back, exact, exact_device
from torchxnn.errors import XNNError


@dataclass(eq=False, repr=False, kw_only=True)
class RISE(BaselineMethod):
    r"""Randomized input sampling: the mean output over random masks that show the pixel, signed.

    .. math:: S(p)=\frac{\sum_i M_i(p)\,(f(x\odot M_i)-\bar f)}{\sum_i M_i(p)}

    with :math:`\bar f` the mean over the masks. Source: Petsiuk, Das, Saenko, RISE, 2018, section
    3. They divide by N E[M] and keep :math:`\bar f`; since outputs here are no probabilities but
    may lie anywhere, that noise is removed. In the limit of many masks the maps differ by a
    constant. All targets and images share the masks, so a batch equals its single images.

    Args:
        baseline: what hidden pixels show; see `BaselineMethod`.
        masks: number of masks N; the source takes 4000 to 8000. The noise falls with its root.
        cells: cells of the mask's grid along each side.
        visible: probability that a cell is visible.
        seed: of the masks.
    """

    name = "rise"
    needs_gradient = False
    masks: int = 1000
    cells: int = 7
    visible: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the parameters."""
        if self.masks < 1 or self.cells < 1:
            raise XNNError(f"masks and cells must be at least 1, got {self.masks} and {self.cells}")
        if not 0 < self.visible < 1:
            raise XNNError(f"visible must lie between 0 and 1, got {self.visible}")
        super().__post_init__()

    @torch.no_grad()
    def _maps(self, images: Images, targets: Targets) -> Maps:
        size = (images.shape[2], images.shape[3])
        baseline = self._baseline(images)
        seen = torch.zeros(size, dtype=torch.float64, device=exact_device(images.device))
        weighted = seen.new_zeros(*targets.shape, *size)
        total = seen.new_zeros(targets.shape)
        for masks in self.draw_masks(size):
            masks = masks.to(images)
            weights = exact(masks)
            seen += weights.sum(0)
            for row, (image, hidden, wanted) in enumerate(
                zip(images, baseline, targets, strict=True)
            ):
                shown = hidden + masks.unsqueeze(1) * (image - hidden)
                outputs = exact(self._outputs(shown)[:, wanted])
                weighted[row] += torch.einsum("mt,mhw->thw", outputs, weights)
                total[row] += outputs.sum(0)
        mean = (total / self.masks)[:, :, None, None]
        maps = weighted / seen.clamp(min=torch.finfo(torch.float64).tiny) - mean
        return back(torch.where(seen > 0, maps, 0.0), images)

    def draw_masks(self, size: tuple[int, int]) -> Iterator[Float[Tensor, "masks height width"]]:
        """The masks in chunks, on the CPU; they depend on the seed alone.

        A grid of cells, each visible with probability `visible`, enlarged bilinearly to one cell
        more than the image and cut out at a random place. Every pixel has that mean.

        Args:
            size: height and width of the image.
        """
        generator = torch.Generator().manual_seed(self.seed)
        cell = [-(-side // self.cells) for side in size]
        shape = (self.masks, 1, self.cells, self.cells)
        grids = (torch.rand(shape, generator=generator) < self.visible).float()
        shifts = torch.stack(
            [torch.randint(side, (self.masks,), generator=generator) for side in cell], 1
        )
        large = [(self.cells + 1) * side for side in cell]
        for part in torch.arange(self.masks).split(self.chunk_size):
            enlarged = functional.interpolate(
                grids[part], large, mode="bilinear", align_corners=False
            )[:, 0]
            yield torch.stack(
                [
                    mask[top : top + size[0], left : left + size[1]]
                    for mask, (top, left) in zip(enlarged, shifts[part].tolist(), strict=True)
                ]
            )
