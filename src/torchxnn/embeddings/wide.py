r"""Ridge regression on wide Z: the same solution as in closed form, without a matrix of d x d.

With centred rows X (M, d), each times the root of its share, and outputs Y alike, the weights are

.. math:: W=(X^\top X+\lambda)^{-1}X^\top Y=X^\top(XX^\top+\lambda)^{-1}Y

so one matrix of the smaller side is enough (Saunders, Gammerman, Vovk 1998, Ridge regression
learning algorithm in dual variables). Where both sides are larger than `LARGEST_SIDE` there is no
matrix at all: conjugate gradients read the rows again and again. SciPy's solvers of this kind take
one output at a time, and PyTorch has none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.embeddings.exact import exact
from torchxnn.errors import XNNWarning

LARGEST_SIDE = 8192
"""Most rows or dimensions of which a square matrix is made, 0.54 GB."""

VALUES_AT_ONCE = 2**20
"""Numbers of Z that are held in float64 at once, 8 MB."""

BLOCK = 1024
"""Rows of a square matrix that are computed at once; what is above the diagonal of a block is not
needed."""

OUTPUTS_AT_ONCE = 128
"""Outputs that conjugate gradients are run for at once."""

ROUNDING = 1e-14
"""Deviation, as a share of the size of the mean, of what does not vary."""

CLOSE = 1e-9
"""Residual, as a share of what it is at 0, at which conjugate gradients end: that of float32."""

MOST_STEPS = 2000
"""Most steps of conjugate gradients; generated activations took 200 to 370 at a penalty of .03."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Centred and weighted rows of Z, a few values at a time in float64 (see `exact`).

    Attributes:
        z: (M, d), in any precision on any device.
        roots: (M, 1), the roots of the rows' shares.
        mean: (d,), of weighted rows.
    """

    z: Float[Tensor, "samples dims"]
    roots: Float[Tensor, "samples 1"]
    mean: Float[Tensor, " dims"]

    @classmethod
    def of(cls, z: Float[Tensor, "samples dims"], share: Float[Tensor, "samples 1"]) -> Rows:
        """Rows of Z about their mean by these shares, of sum 1."""
        mean = [(share.mT @ exact(z[:, part]))[0] for part in _parts(z.shape[1], len(z))]
        return cls(z, share.sqrt(), torch.cat(mean))

    def by_dims(self) -> Iterator[tuple[slice, Float[Tensor, "samples some"]]]:
        """Some dimensions of all rows after the other, and which."""
        for part in _parts(self.z.shape[1], len(self.z)):
            values = exact(self.z[:, part]) - self.mean[part]
            yield part, values.mul_(self.roots)

    def by_samples(self) -> Iterator[tuple[slice, Float[Tensor, "some dims"]]]:
        """All dimensions of some rows after the other, and which."""
        for part in _parts(*self.z.shape):
            values = exact(self.z[part]) - self.mean
            yield part, values.mul_(self.roots[part])

    def damping(self, variance: Tensor, ridge: float) -> Float[Tensor, ""]:
        """A share of the mean variance, by the sum of all dimensions'; 0 if that is rounding."""
        varies = variance > (ROUNDING * self.mean.norm()).square()
        return ridge * variance / len(self.mean) * varies


def solve_wide(
    rows: Rows, wanted: Float[Tensor, "samples targets"], ridge: float
) -> Float[Tensor, "dims targets"]:
    r"""The W (d, k) of least :math:`\|XW-Y\|^2+\lambda\|W\|^2`, in float64.

    Args:
        rows: X.
        wanted: Y, (M, k), centred and times the roots of the shares.
        ridge: the penalty :math:`\lambda`, above 0, as a share of the mean variance of the
            dimensions.

    Returns:
        (d, k), 0 if nothing varies. A warning says so if conjugate gradients did not come close.
    """
    samples, dims = rows.z.shape
    if min(samples, dims) > LARGEST_SIDE:
        return _iterated(rows, wanted, ridge)
    if samples < dims:
        gram = _gram((part for _, part in rows.by_dims()), samples, wanted)
        dual = _solve(gram, wanted, rows.damping(gram.diagonal().sum(), ridge))
        return torch.cat([part.mT @ dual for _, part in rows.by_dims()])
    gram = _gram((part.mT for _, part in rows.by_samples()), dims, wanted)
    damping = rows.damping(gram.diagonal().sum(), ridge)
    return _solve(gram, _cross(rows, wanted), damping)


def _gram(
    parts: Iterable[Float[Tensor, "side some"]], side: int, like: Tensor
) -> Float[Tensor, "side side"]:
    """The sum of the parts' outer products; above the diagonal it may be 0."""
    gram = like.new_zeros(side, side)
    for part in parts:
        for start in range(0, side, BLOCK):
            end = min(side, start + BLOCK)
            gram[start:end, :end].addmm_(part[start:end], part[:end].mT)
    return gram


def _solve(
    gram: Float[Tensor, "side side"], wanted: Float[Tensor, "side targets"], damping: Tensor
) -> Float[Tensor, "side targets"]:
    """`wanted` by the inverse of a Gram matrix (its lower half) and damping, whose memory it takes.

    What rounding made smaller than the damping is taken as that. 0 if the damping is 0.
    """
    if not damping > 0:
        return torch.zeros_like(wanted)
    gram.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(gram)
    if not failed:
        return torch.cholesky_solve(wanted, factor)
    sizes, vectors = torch.linalg.eigh(gram)
    return vectors @ (vectors.mT @ wanted / sizes.clamp(min=float(damping)).unsqueeze(1))


def _cross(rows: Rows, wanted: Float[Tensor, "samples targets"]) -> Float[Tensor, "dims targets"]:
    """The rows' products with what is wanted of them."""
    cross = wanted.new_zeros(rows.z.shape[1], wanted.shape[1])
    for part, values in rows.by_samples():
        cross.addmm_(values.mT, wanted[part])
    return cross


def _iterated(
    rows: Rows, wanted: Float[Tensor, "samples targets"], ridge: float
) -> Float[Tensor, "dims targets"]:
    """`solve_wide` by conjugate gradients (Hestenes, Stiefel 1952), no square matrix at all."""
    variances = torch.stack([values.square().sum() for _, values in rows.by_samples()])
    damping = rows.damping(variances.sum(), ridge)
    if not damping > 0:
        return wanted.new_zeros(rows.z.shape[1], wanted.shape[1])
    found = [
        _conjugate_gradients(rows, _cross(rows, some), damping)
        for some in wanted.split(OUTPUTS_AT_ONCE, 1)
    ]
    return torch.cat(found, 1)


def _conjugate_gradients(
    rows: Rows, cross: Float[Tensor, "dims targets"], damping: Tensor
) -> Float[Tensor, "dims targets"]:
    r"""The W of :math:`(X^\top X+\lambda)W=C`, each column on its own, until all are `CLOSE`."""
    solution, residual, direction = torch.zeros_like(cross), cross.clone(), cross.clone()
    size = residual.square().sum(0)
    enough = CLOSE**2 * size
    for _ in range(MOST_STEPS):
        if bool((size <= enough).all()):
            return solution
        image = damping * direction
        for _, values in rows.by_samples():
            image.addmm_(values.mT, values @ direction)
        step = size / _positive((direction * image).sum(0))
        solution += step * direction
        residual -= step * image
        before, size = size, residual.square().sum(0)
        direction = residual + size / _positive(before) * direction
    if bool((size <= enough).all()):
        return solution
    left = float((size / _positive(enough)).sqrt().max()) * CLOSE
    warnings.warn(
        f"a linear model of {len(cross)} dimensions was not solved to the end: after {MOST_STEPS} "
        f"steps {left:.1g} of it is left; its penalty is small for these activations",
        XNNWarning,
        stacklevel=2,
    )
    return solution


def _positive(sums: Float[Tensor, " targets"]) -> Float[Tensor, " targets"]:
    """Denominators that are 0 only where the numerator is, made safe."""
    return sums.clamp(min=torch.finfo(sums.dtype).tiny)


def _parts(outer: int, inner: int) -> list[slice]:
    """Divides the outer side of a matrix so that a part holds about `VALUES_AT_ONCE`."""
    count = max(1, VALUES_AT_ONCE // inner)
    return [slice(start, start + count) for start in range(0, outer, count)]
