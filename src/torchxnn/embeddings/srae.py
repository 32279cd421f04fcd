"""The Sparse Reconstruction Autoencoder (paper section 2.2, figure 2a)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from torchxnn.embeddings.autoencoder import Autoencoder
from torchxnn.embeddings.subspace import Subspace
from torchxnn.errors import XNNError


class SRAE(Autoencoder):
    """Fully connected encoder Z -> hidden -> n, mirrored decoder and linear readout.

    While it is fitted, its outer layers may be confined to a subspace of Z: the first one sees the
    coordinates of Z there, and the last one gives coordinates, plus an `offset` in all dimensions.
    `expanded` turns it into an ordinary SRAE, which is what users get.

    Args:
        dims: S_z; see `Embedding` for it, for `n_features` and for `n_targets`.
        hidden: sizes of the encoder's hidden layers; (800, 100) in the paper.
        nonnegative: whether Z is never negative, so that the reconstruction ends in a ReLU.
        subspace: what the outer layers are confined to; None for all of Z.
    """

    kind = "srae"

    def __init__(
        self,
        dims: int,
        n_features: int,
        n_targets: int = 1,
        hidden: Sequence[int] = (800, 100),
        nonnegative: bool = True,
        *,
        subspace: Subspace | None = None,
    ) -> None:
        super().__init__()
        sizes = (dims if subspace is None else subspace.rank, *hidden, n_features)
        if min((*sizes, dims, n_targets)) < 1:
            raise XNNError(f"all sizes must be positive, got {sizes} and {n_targets} target(s)")
        self.dims, self.n_features, self.n_targets = dims, n_features, n_targets
        self.hidden, self.nonnegative = tuple(hidden), nonnegative
        self.encoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.decoder = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes[::-1]))
        self.readout = nn.Linear(n_features, n_targets)
        self.subspace = subspace
        self.offset = None if subspace is None else nn.Parameter(subspace.mean.clone())
        self.register_buffer("scale", torch.ones(()))
        self.forget_typical()

    @torch.no_grad()
    def expanded(self) -> SRAE:
        """The same function of Z as an ordinary SRAE, without a subspace."""
        if self.subspace is None or self.offset is None:
            return self
        with torch.random.fork_rng(devices=[]):
            whole = SRAE(**self.settings()).to(self.scale)
        made, own = whole.state_dict(), self.state_dict()
        last, basis = f"decoder.{len(self.decoder) - 1}", self.subspace.basis
        weight, bias = self.subspace.unfold(own["encoder.0.weight"], own["encoder.0.bias"])
        made["encoder.0.weight"].copy_(weight)
        own["encoder.0.bias"] = bias
        del weight  # of wide layers as large as Z, so one after the other
        made[f"{last}.weight"].copy_(basis @ own[f"{last}.weight"])
        own[f"{last}.bias"] = basis @ own[f"{last}.bias"] + self.offset
        for name, value in made.items():
            if name not in ("encoder.0.weight", f"{last}.weight"):
                value.copy_(own[name])
        return whole
