"""The starting point of a ConvSRAE: maps read by coarse cells.

Where something is found may matter as much as what it is, or not at all, so the logit is first read
from coarse cells of the maps: 1, 2 x 2 or 4 x 4 of them, whichever reads it best from images that
it was not fitted on. They are few enough to be fitted in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.embeddings.apply import batches
from torchxnn.embeddings.conv_srae import ConvSRAE
from torchxnn.embeddings.linear import fit_linear
from torchxnn.training.initialise import EVIDENCE_RIDGE, Evidence, Starter, split_logit
from torchxnn.training.losses import faithfulness

START_POSITIONS = 16384
"""Random positions of random images that the hidden layers are pretrained on."""

CELLS_A_SIDE = (1, 2, 4)


class MapStarter(Starter):
    """The starting point of a ConvSRAE; positions of Z pretrain it as samples."""

    embedding: ConvSRAE

    @torch.no_grad()
    def start_features(self, features: Sequence[int]) -> None:
        """See `split_logit`; then their readout is fitted to what the others leave."""
        side, evidence = self._read_cells()
        split_logit(self.embedding, evidence, self.generator, features)
        self._fit_readout(list(features), side)

    @torch.no_grad()
    def fit_readout(self) -> None:
        """Set the readout to the least squares solution with one weight per x-feature and cell."""
        self._fit_readout(list(range(self.n_features)), CELLS_A_SIDE[-1])

    def points(self) -> Float[Tensor, "points dims 1 1"]:
        """Z at random positions of random images, as maps of one position."""
        z = self.split.data.z
        images, places = len(z), z.shape[2] * z.shape[3]
        per_image = min(places, max(1, -(-START_POSITIONS // images)))
        count = -(-START_POSITIONS // per_image)
        points = []
        for image in torch.randperm(images, generator=self.generator)[:count].tolist():
            chosen = torch.randperm(places, generator=self.generator)[:per_image]
            points.append(z[image].flatten(1)[:, chosen].mT)
        found = torch.cat(points)[:, :, None, None]
        return found.to(torch.promote_types(z.dtype, torch.float32))

    def new_embedding(self, nonnegative: bool) -> ConvSRAE:
        """A ConvSRAE with random weights."""
        conv, (dims, *size) = self.config.conv, self.split.data.z.shape[1:]
        sizes = (dims, size, self.n_features, self.split.logits.shape[1], conv.channels)
        return ConvSRAE(*sizes, nonnegative, conv.pooling, conv.pool_size)

    def _read_cells(self) -> tuple[int, Evidence]:
        r"""Cells a side from which the logits are best read, and what the hidden units say there.

        A ridge regression :math:`\hat y\approx\sum_{jg}u_{jg}h_{jg}+c` on the means
        :math:`h_{jg}` of unit j over cell g, with the number of cells chosen by the error on a
        third of the images. A unit contributes :math:`\sum_gu_{jg}h_{jg}`, and its weight in an
        x-feature is its mean contribution over its mean activation on the positives.
        """
        embedding, split = self.embedding, self.split
        side, hidden = self._choose_cells()
        readout, _ = fit_linear(hidden.flatten(1), split.logits, split.weights, EVIDENCE_RIDGE)
        contributions, weights = [], []
        for on, weight in zip(split.positives.unbind(1), readout, strict=True):
            units = hidden[on]
            parts = (units * weight.unflatten(0, units.shape[1:])).sum(2)
            size = units.mean((0, 2))
            contributions.append(parts)
            weights.append(parts.mean(0) / size.clamp(min=1e-6 * float(size.max()) + 1e-12))
        points = embedding.below_x_layer(embedding.inputs(self.points())).flatten(1)
        return side, Evidence(contributions, torch.stack(weights), points, off=0.5)

    def _choose_cells(self) -> tuple[int, Float[Tensor, "samples units cells"]]:
        """Cells a side from which the logits are best read, and the hidden units' means there."""
        embedding, split = self.embedding, self.split
        grids = [_cells(embedding.size, side).to(embedding.scale) for side in CELLS_A_SIDE]
        found: list[list[Tensor]] = [[] for _ in grids]
        for z in batches(split.data.z):
            hidden = embedding.below_x_layer(embedding.inputs(z.to(embedding.scale)))
            for means, cells in zip(found, grids, strict=True):
                means.append(_cell_means(hidden, cells))
        order = torch.randperm(len(split.data), generator=self.generator)
        test, train = order[: len(order) // 3], order[len(order) // 3 :]
        errors = []
        for means in found:
            inputs = torch.cat(means).flatten(1)
            weight, bias = fit_linear(
                inputs[train], split.logits[train], split.weights[train], EVIDENCE_RIDGE
            )
            reproduced = inputs[test] @ weight.mT + bias
            errors.append(float(faithfulness(reproduced, split.logits[test], split.weights[test])))
        best = min(range(len(errors)), key=errors.__getitem__)
        return CELLS_A_SIDE[best], torch.cat(found[best])

    def _fit_readout(self, features: list[int], side: int) -> None:
        """Give x-features the weights with which they add to the others best, one a cell."""
        embedding, split = self.embedding, self.split
        cells = _cells(embedding.readout_size, side).to(embedding.scale)
        maps = embedding.readout_maps
        maps[:, features] = 0
        embedding.readout.bias.zero_()
        means, rest = [], []
        for z in batches(split.data.z):
            e = embedding.encode(z.to(embedding.scale))
            # Shares of the map's mean rather than means of the cells, which differ in size.
            means.append(_cell_means(embedding.pool(e)[:, features], cells) * cells.mean(0))
            rest.append(embedding.reproduce(e))
        missing = split.logits - torch.cat(rest)
        inputs = torch.cat(means).flatten(1)
        weight, bias = fit_linear(inputs, missing, split.weights, EVIDENCE_RIDGE)
        by_cell = weight.unflatten(1, (len(features), cells.shape[1]))
        maps[:, features] = (by_cell @ cells.mT).unflatten(2, embedding.readout_size)
        embedding.readout.bias.copy_(bias)


def _cells(size: tuple[int, int], side: int) -> Float[Tensor, "positions cells"]:
    """Which cell of a coarse grid each position lies in, one-hot."""
    rows, columns = (min(side, length) for length in size)
    row = torch.arange(size[0]) * rows // size[0]
    column = torch.arange(size[1]) * columns // size[1]
    cell = row.unsqueeze(1) * columns + column
    return torch.nn.functional.one_hot(cell.flatten(), rows * columns).float()


def _cell_means(
    maps: Float[Tensor, "batch dims height width"], cells: Float[Tensor, "positions cells"]
) -> Float[Tensor, "batch dims cells"]:
    return maps.flatten(2) @ (cells / cells.sum(0))
