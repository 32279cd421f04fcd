"""The principal subspace of scaled Z, in which the outer layers of an SRAE can be fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.embeddings.exact import back, exact, exact_device

EXACT_DIMS = 2048
"""Most dimensions of Z whose covariance is decomposed exactly; beyond it, at random."""

ROUNDING = 1e-6
"""Share of the largest variance that is not told from rounding."""

ITERATIONS = 4
"""Passes of the random projection over Z and back."""

VALUES_AT_ONCE = 2**24
"""Numbers of Z whose deviations are held at once, 67 MB in float32."""


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
    scale: Float[Tensor, ""] | None = None,
) -> Subspace:
    """The subspace of rank r nearest to scaled activations (M, S_z): principal components.

    Above `EXACT_DIMS` dimensions a random projection finds it, which needs no copy of Z
    (`random_directions`), below from the covariance. With `within` it is the nearest subspace that
    holds these directions.

    Args:
        z: activations, (M, S_z); values are not checked.
        rank: r, at most S_z.
        seed: of the random projection.
        within: fewer than r linearly independent directions, (S_z, m); None for none.
        scale: what Z is to be divided by; None if it is scaled already (no unit).

    Returns:
        The mean of scaled Z, (S_z,), and an orthonormal basis, (S_z, r), that of `within` first;
        it has fewer columns above `EXACT_DIMS` if there are fewer than r samples.
    """
    first = None if within is None else _orthonormal(within)
    left = rank - (0 if first is None else first.shape[1])
    mean = _mean(z, scale)
    if z.shape[1] > EXACT_DIMS:
        others = random_directions(Deviations(z, mean, scale, first), left, seed)
    else:
        rest = z - mean if scale is None else (z / scale).sub_(mean)
        if first is not None:
            rest.sub_(rest @ first @ first.mT)
        others = exact_directions(rest, left)
    if first is None:
        return Subspace(mean, others)
    # where Z has fewer dimensions than asked for, the last of these are any, even some of the first
    basis, triangle = _decomposed(torch.cat([first, others], 1))
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)
    return Subspace(mean, (basis * signs).contiguous())


@torch.no_grad()
def directions_of_logits(
    z: Float[Tensor, "samples dims"],
    weight: Float[Tensor, "outputs dims"],
    most: int,
    seed: int = 0,
    scale: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "dims directions"]:
    r"""Directions of Z along which a linear model :math:`Uz` of all logits varies most.

    With the principal components P of :math:`Uz` over the samples they are :math:`U^\top P`. As
    many as there are, at most `most`: those whose variance is more than rounding.

    Args:
        z: activations, (M, S_z); values are not checked.
        weight: U, (K, S_z), in logits per unit of scaled z.
        most: m, most directions.
        seed: of the random projection that finds P for more than `EXACT_DIMS` logits.
        scale: what Z is to be divided by; None if it is scaled already (no unit).

    Returns:
        (S_z, m'), m' at most `most`, K and M, neither orthogonal nor of length 1.
    """
    logits = Deviations(z, _mean(z, scale), scale).times(weight.mT)
    count = min(most, *logits.shape)
    if logits.shape[1] > EXACT_DIMS:
        zero = torch.zeros_like(logits[0])  # they are centred
        principal = random_directions(Deviations(logits, zero), count, seed)
    else:
        principal = exact_directions(logits, count)
    variance = (logits @ principal).var(0, correction=0)
    return weight.mT @ principal[:, variance > ROUNDING * variance.max()]


@dataclass(frozen=True, eq=False)
class Deviations:
    """Deviations of scaled Z from its mean, in products alone: no copy of Z is made.

    Attributes:
        z: activations, (M, S_z).
        mean: (S_z,), of scaled Z.
        scale: what Z is divided by; None for 1.
        without: orthonormal directions that are left out, (S_z, m); None for none.
    """

    z: Float[Tensor, "samples dims"]
    mean: Float[Tensor, " dims"]
    scale: Float[Tensor, ""] | None = None
    without: Float[Tensor, "dims directions"] | None = None

    def times(self, right: Float[Tensor, "dims columns"]) -> Float[Tensor, "samples columns"]:
        """The rows' products with directions."""
        right = self._inside(right)
        return torch.cat([rows @ right for _, rows in self._rows()])

    def transposed_times(
        self, left: Float[Tensor, "samples columns"]
    ) -> Float[Tensor, "dims columns"]:
        """Sums of the rows with weights."""
        total = left.new_zeros(self.z.shape[1], left.shape[1])
        for part, rows in self._rows():
            total += rows.mT @ left[part]
        return self._inside(total)

    def _inside(self, directions: Float[Tensor, "dims columns"]) -> Float[Tensor, "dims columns"]:
        if self.without is None:
            return directions
        return directions - self.without @ (self.without.mT @ directions)

    def _rows(self) -> Iterator[tuple[slice, Float[Tensor, "some dims"]]]:
        count = max(1, VALUES_AT_ONCE // self.z.shape[1])
        for start in range(0, len(self.z), count):
            part = slice(start, start + count)
            rows = self.z[part]
            yield (
                part,
                rows - self.mean if self.scale is None else (rows / self.scale).sub_(self.mean),
            )


def exact_directions(
    centred: Float[Tensor, "samples dims"], count: int
) -> Float[Tensor, "dims directions"]:
    """Principal directions of centred values, from their covariance."""
    # in float32 LAPACK has returned NaN for the covariance of activations with dead units
    covariance = exact(centred.mT @ centred / len(centred))
    vectors = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :count]
    return back(vectors, centred).contiguous()


def random_directions(
    deviations: Deviations, count: int, seed: int
) -> Float[Tensor, "dims directions"]:
    """Principal directions by a random projection, to about the precision of the values.

    Subspace iteration of Halko, Martinsson, Tropp 2011 (Finding structure with randomness,
    algorithms 4.4 and 5.1), as `torch.svd_lowrank`, which needs the deviations themselves: of
    25,088 dimensions they are as large as Z.

    Returns:
        (S_z, r), r at most `count` and M.
    """
    z = deviations.z
    generator = torch.Generator().manual_seed(seed)
    size = min(count + 16, *z.shape)
    start = torch.randn(len(z), size, generator=generator).to(z)
    basis = _orthonormal(deviations.transposed_times(start))
    for _ in range(ITERATIONS):
        samples = _orthonormal(deviations.times(basis))
        basis = _orthonormal(deviations.transposed_times(samples))
    seen = deviations.times(basis)
    turned = torch.linalg.svd(seen.to(exact_device(z.device)), full_matrices=False).Vh.to(z.device)
    return (basis @ turned[:count].mT).contiguous()


def _mean(
    z: Float[Tensor, "samples dims"], scale: Float[Tensor, ""] | None
) -> Float[Tensor, " dims"]:
    """The mean of Z divided by a scale."""
    if scale is None:
        return z.mean(0)
    return z.mean(0) / scale if z.shape[1] > EXACT_DIMS else (z / scale).mean(0)


def _orthonormal(columns: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows some"]:
    """An orthonormal basis of what some columns span."""
    return _decomposed(columns)[0]


def _decomposed(columns: Float[Tensor, "rows columns"]) -> tuple[Tensor, Tensor]:
    """QR, on the CPU for Apple's GPUs, which have no decompositions."""
    factors = torch.linalg.qr(columns.to(exact_device(columns.device)))
    return factors.Q.to(columns.device), factors.R.to(columns.device)
