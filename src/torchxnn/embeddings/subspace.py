"""The principal subspace of scaled Z, in which the outer layers of an SRAE can be fitted."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

EXACT_DIMS = 2048
"""Most dimensions of Z whose covariance is decomposed exactly; beyond it, at random (Halko)."""


@final
class Subspace(nn.Module):
    """An affine subspace of scaled Z with an orthonormal basis.

    Args:
        mean: (S_z,), its origin.
        basis: (S_z, r), orthonormal columns.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, mean: Float[Tensor, " dims"], basis: Float[Tensor, "dims rank"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)

    @property
    def rank(self) -> int:
        """Its number of dimensions r."""
        return self.basis.shape[1]

    def project(
        self, z: Float[Tensor, "*batch dims"], scale: Float[Tensor, ""] | None = None
    ) -> Float[Tensor, "*batch rank"]:
        """Coordinates of the nearest point of the subspace, without a copy of Z.

        Z is to be divided by `scale`; None if it is scaled already.
        """
        basis = self.basis if scale is None else self.basis / scale
        return z @ basis - self.mean @ self.basis

    def span(self, coordinates: Float[Tensor, "*batch rank"]) -> Float[Tensor, "*batch dims"]:
        """A combination of the basis, without the origin."""
        return coordinates @ self.basis.mT

    def unfold(
        self, weight: Float[Tensor, "units rank"], bias: Float[Tensor, " units"]
    ) -> tuple[Float[Tensor, "units dims"], Float[Tensor, " units"]]:
        """A linear layer on coordinates as the same function of scaled Z."""
        whole = weight @ self.basis.mT
        return whole, bias - whole @ self.mean


@torch.no_grad()
def principal_subspace(z: Float[Tensor, "samples dims"], rank: int, seed: int = 0) -> Subspace:
    """The subspace of rank r nearest to scaled activations (M, S_z): principal components.

    Where Z has many dimensions a random projection finds it, of the given seed.
    """
    mean = z.mean(0)
    centred = z - mean
    if z.shape[1] <= EXACT_DIMS:
        _, vectors = torch.linalg.eigh(centred.mT @ centred / len(z))
        basis = vectors.flip(1)[:, :rank]
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            basis = torch.svd_lowrank(centred, q=min(rank + 16, *z.shape), niter=4)[2][:, :rank]
    return Subspace(mean, basis.contiguous())
