"""Starting points of a ConvSRAE that depend on the data, so that every x-feature starts alive.

Where something is found may matter as much as what it is, or not at all, so the logit is first read
from coarse cells of the maps: 1, 2 x 2 or 4 x 4 of them, whichever reads it best from images that
it was not fitted on. They are few enough to be fitted in closed form.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.embeddings.apply import MAPS_AT_ONCE
from torchxnn.embeddings.conv_srae import ConvSRAE
from torchxnn.embeddings.linear import fit_linear
from torchxnn.embeddings.srae import SRAE
from torchxnn.training.config import Side, TrainConfig
from torchxnn.training.initialise import group_units, pretrain_greedily, set_scale
from torchxnn.training.losses import faithfulness

START_POSITIONS = 16384
"""Random positions of random images that the hidden layers are pretrained on."""

CELLS_A_SIDE = (1, 2, 4)
CELL_RIDGE = 0.1
"""Penalty of the linear readouts from cells, as a share of the mean variance of their inputs."""


def start_conv_embedding(
    split: Side, n_features: int, config: TrainConfig, generator: torch.Generator
) -> ConvSRAE:
    """A new ConvSRAE at its starting point: scaled, pretrained, x-layer and readout set from data.

    Z at random positions pretrains the hidden layers, as samples of an ordinary SRAE.
    """
    z, conv = split.data.z, config.conv
    points = random_points(z, generator)
    nonnegative = all(bool((part >= 0).all()) for part in z.split(MAPS_AT_ONCE))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        targets = split.logits.shape[1]
        dense = SRAE(z.shape[1], n_features, targets, conv.channels, nonnegative).float()
        embedding = ConvSRAE(
            z.shape[1],
            z.shape[2:],
            n_features,
            targets,
            conv.channels,
            nonnegative,
            conv.pooling,
            conv.pool_size,
        ).float()
    with torch.no_grad():
        set_scale(dense, points)
    if config.pretrain_epochs:
        pretrain_greedily(dense, points, generator, config.pretrain_epochs)
    with torch.no_grad():
        _copy_layers(dense, embedding)
    if config.split_logit:
        split_features(embedding, split, list(range(n_features)), generator)
    return embedding


def random_points(
    z: Float[Tensor, "samples dims height width"], generator: torch.Generator
) -> Float[Tensor, "points dims"]:
    """Z at random positions of random images, in float32."""
    images, _, height, width = z.shape
    per_image = min(height * width, max(1, -(-START_POSITIONS // images)))
    chosen = torch.randperm(images, generator=generator)[: -(-START_POSITIONS // per_image)]
    points = []
    for image in chosen.tolist():
        place = torch.randperm(height * width, generator=generator)[:per_image]
        points.append(z[image].flatten(1)[:, place].mT.float())
    return torch.cat(points)


def _copy_layers(dense: SRAE, embedding: ConvSRAE) -> None:
    """The weights of fully connected layers as those of 1x1 convolutions."""
    embedding.scale.copy_(dense.scale)
    pairs = zip(
        (*dense.encoder, *dense.decoder), (*embedding.encoder, *embedding.decoder), strict=True
    )
    for source, goal in pairs:
        for name, parameter in goal.named_parameters():
            parameter.copy_(source.get_parameter(name).reshape(parameter.shape))


@torch.no_grad()
def split_features(
    embedding: ConvSRAE, split: Side, features: list[int], generator: torch.Generator
) -> None:
    r"""Start x-features as parts of a linear readout of the logits, each alive on the positives.

    As `initialise.split_logit`, with a weight per hidden unit and cell: a ridge regression
    :math:`\hat y\approx\sum_{jg}u_{jg}h_{jg}+c` on the means :math:`h_{jg}` of unit j over cell g.
    The number of cells is chosen by the error on a third of the images. The units are divided into
    groups by their contributions :math:`\sum_gu_{jg}h_{jg}` on the positives, and an x-feature is
    the ReLU of its group's units, weighted by mean contribution over mean activation there, with
    the threshold at the median over positions. Then the readout of these x-features is fitted to
    what the others leave, with one weight per cell.

    Args:
        embedding: its last encoder layer and its readout are set.
        split: data to fit.
        features: x-features to set; with several targets they take turns.
        generator: starts the k-means, draws positions.
    """
    side, hidden = _choose_cells(embedding, split, generator)
    readout, _ = fit_linear(hidden.flatten(1), split.logits, split.weights, CELL_RIDGE)
    points = random_points(split.data.z, generator)
    at_points = _below(embedding, points[:, :, None, None]).flatten(1)
    layer = embedding.encoder[-1]
    k = embedding.n_targets
    for target in range(k):
        on = hidden[split.positives[:, target]]
        parts = (on * readout[target].unflatten(0, hidden.shape[1:])).sum(2)
        members = list(range(target, embedding.n_features, k))
        groups = group_units(parts, len(members), generator)
        size = on.mean((0, 2))
        slope = parts.mean(0) / size.clamp(min=1e-6 * float(size.max()) + 1e-12)
        for position, feature in enumerate(members):
            if feature not in features:
                continue
            weight = torch.where(groups == position, slope, 0.0)
            response = at_points @ weight
            spread = response.std().clamp(min=1e-6)
            layer.get_parameter("weight")[feature] = (weight / spread)[:, None, None]
            layer.get_parameter("bias")[feature] = -response.median() / spread
    _fit_cell_readout(embedding, split, features, side)


def _choose_cells(
    embedding: ConvSRAE, split: Side, generator: torch.Generator
) -> tuple[int, Float[Tensor, "samples units cells"]]:
    """Cells a side from which the logits are best read, and the hidden units' means over them."""
    grids = [_cells(embedding.size, side) for side in CELLS_A_SIDE]
    found: list[list[Tensor]] = [[] for _ in grids]
    for z in split.data.z.split(MAPS_AT_ONCE):
        hidden = _below(embedding, z)
        for means, cells in zip(found, grids, strict=True):
            means.append(_cell_means(hidden, cells))
    order = torch.randperm(len(split.data), generator=generator)
    test, train = order[: len(order) // 3], order[len(order) // 3 :]
    errors = []
    for means in found:
        inputs = torch.cat(means).flatten(1)
        weight, bias = fit_linear(
            inputs[train], split.logits[train], split.weights[train], CELL_RIDGE
        )
        reproduced = inputs[test] @ weight.mT + bias
        errors.append(float(faithfulness(reproduced, split.logits[test], split.weights[test])))
    best = min(range(len(errors)), key=errors.__getitem__)
    return CELLS_A_SIDE[best], torch.cat(found[best])


def _fit_cell_readout(embedding: ConvSRAE, split: Side, features: list[int], side: int) -> None:
    """Give x-features the least squares weights with which they add to the others, one a cell."""
    cells = _cells(embedding.readout_size, side)
    maps = embedding.readout_maps
    maps[:, features] = 0
    embedding.readout.bias.zero_()
    means, rest = [], []
    for z in split.data.z.split(MAPS_AT_ONCE):
        e = embedding.encode(z.float())
        # Shares of the map's mean rather than means of the cells, which differ in size.
        means.append(_cell_means(embedding.pool(e)[:, features], cells) * cells.mean(0))
        rest.append(embedding.reproduce(e))
    missing = split.logits - torch.cat(rest)
    weight, bias = fit_linear(torch.cat(means).flatten(1), missing, split.weights, CELL_RIDGE)
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


def _below(
    embedding: ConvSRAE, z: Float[Tensor, "batch dims height width"]
) -> Float[Tensor, "batch units height width"]:
    """Outputs of the layer below the x-layer."""
    hidden = z.float() / embedding.scale
    for layer in embedding.encoder[:-1]:
        hidden = torch.relu(layer(hidden))
    return hidden
