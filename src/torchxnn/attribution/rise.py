"""RISE: which pixels, when visible through random masks, go with a high output."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from torchxnn.attribution.base import CHUNK_SIZE, BaselineMethod
from torchxnn.errors import XNNError


class RISE(BaselineMethod):
    r"""Randomized input sampling: the mean output over random masks that show the pixel, signed.

    .. math:: S(p)=\frac{\sum_i M_i(p)\,(f(x\odot M_i)-\bar f)}{\sum_i M_i(p)}

    with :math:`\bar f` the mean over the masks. Source: Petsiuk, Das, Saenko, RISE, 2018, section
    3. They divide by N E[M] and keep :math:`\bar f`; since outputs here are no probabilities but
    may lie anywhere, that noise is removed. In the limit of many masks the maps differ by a
    constant. All targets and images share the masks, so a batch equals its single images.

    Args:
        module: any module with (B, k) outputs; needs no gradients.
        baseline: what hidden pixels show: a number or a tensor (C, 1, 1) or (C, H, W).
        masks: number of masks N; the source takes 4000 to 8000. The noise falls with its root.
        cells: cells of the mask's grid along each side.
        visible: probability that a cell is visible.
        seed: of the masks.
        chunk_size: most images in one pass.
    """

    name = "rise"
    needs_gradient = False

    def __init__(
        self,
        module: nn.Module,
        *,
        baseline: float | Tensor = 0.0,
        masks: int = 1000,
        cells: int = 7,
        visible: float = 0.5,
        seed: int = 0,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        if masks < 1 or cells < 1:
            raise XNNError(f"masks and cells must be at least 1, got {masks} and {cells}")
        if not 0 < visible < 1:
            raise XNNError(f"visible must lie between 0 and 1, got {visible}")
        super().__init__(module, baseline=baseline, chunk_size=chunk_size)
        self._masks, self._cells = masks, cells
        self._visible, self._seed = visible, seed

    @torch.no_grad()
    def _maps(
        self,
        images: Float[Tensor, "batch channels height width"],
        targets: Int[Tensor, "batch targets"],
    ) -> Float[Tensor, "batch targets height width"]:
        size = (images.shape[2], images.shape[3])
        baseline = self._baseline(images)
        seen = torch.zeros(size, dtype=torch.float64, device=images.device)
        weighted = seen.new_zeros(*targets.shape, *size)
        total = seen.new_zeros(targets.shape)
        for masks in self.draw_masks(size):
            masks = masks.to(images)
            seen += masks.double().sum(0)
            for row, (image, hidden, wanted) in enumerate(
                zip(images, baseline, targets, strict=True)
            ):
                shown = hidden + masks.unsqueeze(1) * (image - hidden)
                outputs = self._outputs(shown)[:, wanted].double()
                weighted[row] += torch.einsum("mt,mhw->thw", outputs, masks.double())
                total[row] += outputs.sum(0)
        mean = (total / self._masks)[:, :, None, None]
        maps = weighted / seen.clamp(min=torch.finfo(torch.float64).tiny) - mean
        return torch.where(seen > 0, maps, 0.0).to(images.dtype)

    def draw_masks(self, size: tuple[int, int]) -> Iterator[Float[Tensor, "masks height width"]]:
        """The masks in chunks, on the CPU; they depend on the seed alone.

        A grid of cells, each visible with probability `visible`, enlarged bilinearly to one cell
        more than the image and cut out at a random place. Every pixel has that mean.

        Args:
            size: height and width of the image.
        """
        generator = torch.Generator().manual_seed(self._seed)
        cell = [-(-side // self._cells) for side in size]
        shape = (self._masks, 1, self._cells, self._cells)
        grids = (torch.rand(shape, generator=generator) < self._visible).float()
        shifts = torch.stack(
            [torch.randint(side, (self._masks,), generator=generator) for side in cell], 1
        )
        large = [(self._cells + 1) * side for side in cell]
        for part in torch.arange(self._masks).split(self._chunk_size):
            enlarged = functional.interpolate(
                grids[part], large, mode="bilinear", align_corners=False
            )[:, 0]
            yield torch.stack(
                [
                    mask[top : top + size[0], left : left + size[1]]
                    for mask, (top, left) in zip(enlarged, shifts[part].tolist(), strict=True)
                ]
            )
