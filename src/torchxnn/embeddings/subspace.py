"""The principal subspace of scaled Z, in which the outer layers of an SRAE can be fitted."""

from __future__ import annotations

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

EXACT_DIMS = 2048
"""Most dimensions of Z whose covariance is decomposed exactly; beyond it, at random (Halko)."""

ROUNDING = 1e-6
"""Share of the largest variance that is not told from rounding."""


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
def principal_subspace(
    z: Float[Tensor, "samples dims"],
    rank: int,
    seed: int = 0,
    within: Float[Tensor, "dims directions"] | None = None,
) -> Subspace:
    """The subspace of rank r nearest to scaled activations (M, S_z): principal components.

    Above `EXACT_DIMS` dimensions a random projection finds it (Halko, Martinsson, Tropp 2011,
    Finding structure with randomness), below from the covariance. With `within` it is the nearest
    subspace that holds these directions.

    Args:
        z: activations divided by their scale (no unit), (M, S_z); values are not checked.
        rank: r, at most S_z.
        seed: of the random projection.
        within: fewer than r linearly independent directions, (S_z, m); None for none.

    Returns:
        The mean of Z, (S_z,), and an orthonormal basis, (S_z, r), that of `within` first;
        it has fewer columns above `EXACT_DIMS` if there are fewer than r samples.
    """
    mean = z.mean(0)
    centred = z - mean
    if within is None:
        return Subspace(mean, _principal_directions(centred, rank, seed))
    first = torch.linalg.qr(within).Q
    rest = centred - centred @ first @ first.mT
    others = _principal_directions(rest, rank - first.shape[1], seed)
    # where Z has fewer dimensions than asked for, the last of these are any, even some of the first
    basis, triangle = torch.linalg.qr(torch.cat([first, others], 1))
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)
    return Subspace(mean, (basis * signs).contiguous())


@torch.no_grad()
def directions_of_logits(
    z: Float[Tensor, "samples dims"],
    weight: Float[Tensor, "outputs dims"],
    most: int,
    seed: int = 0,
) -> Float[Tensor, "dims directions"]:
    r"""Directions of Z along which a linear model :math:`Uz` of all logits varies most.

    With the principal components P of :math:`Uz` over the samples they are :math:`U^\top P`. As
    many as there are, at most `most`: those whose variance is more than rounding.

    Args:
        z: activations divided by their scale (no unit), (M, S_z); values are not checked.
        weight: U, (K, S_z), in logits per unit of z.
        most: m, most directions.
        seed: of the random projection that finds P for more than `EXACT_DIMS` logits.

    Returns:
        (S_z, m'), m' at most `most`, K and M, neither orthogonal nor of length 1.
    """
    logits = (z - z.mean(0)) @ weight.mT
    count = min(most, *logits.shape)
    principal = _principal_directions(logits, count, seed)
    variance = (logits @ principal).var(0, correction=0)
    return weight.mT @ principal[:, variance > ROUNDING * variance.max()]


def _principal_directions(
    centred: Float[Tensor, "samples dims"], count: int, seed: int
) -> Float[Tensor, "dims directions"]:
    if centred.shape[1] <= EXACT_DIMS:
        # in float32 LAPACK has returned NaN for the covariance of activations with dead units
        covariance = (centred.mT @ centred / len(centred)).double()
        vectors = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :count]
        return vectors.to(centred.dtype).contiguous()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = min(count + 16, *centred.shape)
        return torch.svd_lowrank(centred, q=size, niter=4)[2][:, :count].contiguous()
