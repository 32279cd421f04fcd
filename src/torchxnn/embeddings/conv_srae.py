"""The convolutional embedding: x-features are maps, read by position (paper section 4.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.embeddings.autoencoder import Autoencoder
from torchxnn.embeddings.config import Pooling
from torchxnn.errors import XNNError


class ConvSRAE(Autoencoder):
    r"""1x1 convolutions Z -> channels -> n, mirrored decoder, ReLU after each, readout by position.

    The same small network is applied at every position p of Z, so E_i is a map. The readout is
    fully connected: it has one weight per x-feature and position of the (pooled) map,

    .. math:: \hat y \approx b + \sum_i c_i, \qquad c_i = \frac1P\sum_p v_{ip}\,E_{ip},

    so what x-feature i contributes is one number, and the contributions plus the intercept are the
    reproduced logit, as for a fully connected layer. The division by the number of positions P only
    sets the unit of v: if all positions have the same weight, :math:`c_i` is that weight times the
    spatial mean of E_i; with a 1x1 map the embedding is the SRAE.

    Args:
        dims: C, channels of Z.
        size: (h, w) of Z; fixed, since the readout has a weight per position.
        n_features: n; see `Embedding`, as for `n_targets`.
        channels: see `ConvConfig`, as for `pooling`.
        nonnegative: see `Autoencoder`.
        pool_size: see `ConvConfig`; windows that stick out of the map are cut off.

    Raises:
        XNNError: a size that is not positive.
    """

    kind = "conv_srae"
    size: tuple[int, int]

    def __init__(
        self,
        dims: int,
        size: Sequence[int],
        n_features: int,
        n_targets: int = 1,
        channels: Sequence[int] = (64, 32),
        nonnegative: bool = True,
        pooling: Pooling = "none",
        pool_size: int | None = 2,
    ) -> None:
        super().__init__()
        sizes = (dims, *channels, n_features)
        if min((*sizes, *size, n_targets)) < 1 or len(size) != 2:
            raise XNNError(
                f"all sizes must be positive, got {sizes}, maps {tuple(size)} and {n_targets} "
                "target(s)"
            )
        self.dims, self.n_features, self.n_targets = dims, n_features, n_targets
        self.size = (int(size[0]), int(size[1]))
        self.channels, self.nonnegative = tuple(channels), nonnegative
        self.pooling: Pooling = pooling
        self.pool_size = pool_size
        self.encoder = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(sizes))
        self.decoder = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(sizes[::-1]))
        self.readout = nn.Linear(n_features * math.prod(self.readout_size), n_targets)
        self.subspace, self.offset = None, None
        self.register_buffer("scale", torch.ones(()))
        self.forget_typical()

    @property
    def readout_size(self) -> tuple[int, int]:
        """(h', w') of the maps that the readout reads."""
        if self.pooling == "none":
            return self.size
        height, width = self._window()
        return -(-self.size[0] // height), -(-self.size[1] // width)

    @property
    def readout_maps(self) -> Float[Tensor, "targets features height width"]:
        """v, (k, n, h', w')."""
        return self.readout.weight.unflatten(1, (self.n_features, *self.readout_size))

    @property
    def readout_weight(self) -> Float[Tensor, "targets features"]:
        """Mean of v over the positions, (k, n)."""
        return self.readout_maps.mean((2, 3))

    def pool(
        self, features: Float[Tensor, "batch features height width"]
    ) -> Float[Tensor, "batch features pooled_height pooled_width"]:
        """The maps as the readout sees them, (B, n, h', w')."""
        if self.pooling == "none":
            return features
        window = self._window()
        if self.pooling == "max":
            return nn.functional.max_pool2d(features, window, ceil_mode=True)
        return nn.functional.avg_pool2d(features, window, ceil_mode=True, count_include_pad=False)

    def summarise(
        self, features: Float[Tensor, "batch features height width"]
    ) -> Float[Tensor, "batch features"]:
        """Spatial mean of each map: how much of the x-feature there is, wherever it is."""
        return features.mean((2, 3))

    def readout_inputs(
        self, features: Float[Tensor, "batch features height width"]
    ) -> Float[Tensor, "batch inputs"]:
        r""":math:`E_{ip}/P` of every x-feature and position of the pooled maps."""
        pooled = self.pool(features)
        return pooled.flatten(1) / math.prod(pooled.shape[2:])

    def by_feature(
        self, summands: Float[Tensor, "*batch targets inputs"]
    ) -> Float[Tensor, "*batch targets features"]:
        r""":math:`c_i=\frac1P\sum_pv_{ip}E_{ip}`: the sum over the positions of its map."""
        return summands.unflatten(-1, (self.n_features, -1)).sum(-1)

    def salience(
        self, features: Float[Tensor, "batch features height width"]
    ) -> Float[Tensor, "batch features"]:
        r"""How much each map matters, :math:`\frac1P\sum_p\sum_k|v_{kip}|E_{ip}`.

        The unit whose heatmap is drawn: a position counts as much as it contributes to any target,
        in whichever direction, and where the readout has no weight it does not count.
        """
        size = self.readout_maps.abs().sum(0)
        return (self.pool(features) * size).mean((2, 3))

    def _window(self) -> tuple[int, int]:
        return self.size if self.pool_size is None else (self.pool_size, self.pool_size)
