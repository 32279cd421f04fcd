"""Where the images of a batch lie in a value, as far as the shapes of the operations tell.

Which element belongs to which image never depends on numbers, and nearly always on shapes alone: of
convolutions, sums, products and reshapes it is worked out here without any tensor. So nothing has
to be read back from a GPU for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torchxnn.attribution.excitation_backprop.tape import Value


@dataclass(frozen=True)
class Along:
    """Images lie along one dimension, and every element belongs to one.

    Index i of that dimension is of image i // run % images; all elements are of the only image, if
    there is one.
    """

    images: int
    dim: int = 0
    run: int = 1

    @property
    def outermost(self) -> bool:
        """Whether images lie along the first dimension, or there is one image."""
        return self.images == 1 or self.dim == 0

    def at(self, dim: int) -> Along:
        """The same along another dimension."""
        return self if self.images == 1 else replace(self, dim=dim)

    def reshaped(self, before: Sequence[int], after: Sequence[int]) -> Along | None:
        """The same elements in another shape; None if images then lie along several dimensions."""
        if self.images == 1:
            return self
        step, inner = self.run * math.prod(before[self.dim + 1 :]), 1
        if step == 0 or 0 in after:
            return None
        for dim in reversed(range(len(after))):
            if step % inner == 0 and inner * after[dim] % (step * self.images) == 0:
                return replace(self, dim=dim, run=step // inner)
            inner *= after[dim]
        return None

    def broadcast(self, before: Sequence[int], after: Sequence[int]) -> Along | None:
        """Repeated along other dimensions, as sums of several values are."""
        dim = self.dim + len(after) - len(before)
        if self.images == 1:
            return self
        return self.at(dim) if after[dim] == before[self.dim] else None

    def without(self, dims: Sequence[int], rank: int, *, keep: bool = False) -> Along | None:
        """After a sum or a selection over dimensions of a value with `rank` of them."""
        gone = {dim % rank for dim in dims} if rank else set()
        if self.images == 1:
            return self
        if self.dim in gone:
            return None
        return self if keep else self.at(self.dim - sum(dim < self.dim for dim in gone))


KnownAlong = Callable[[Value], Along | None]
"""Where the images of a value lie; None if shapes do not tell, or some elements are of none."""


def of_all(values: Sequence[Value], shape: Sequence[int], known: KnownAlong) -> Along | None:
    """Where the images lie in what is computed from values element by element.

    Args:
        values: they depend on the images, and can be broadcast to the shape.
        shape: of the result.
        known: see `KnownAlong`.
    """
    found = [known(value) for value in values]
    each = [
        None if along is None else along.broadcast(value.shape, shape)
        for value, along in zip(values, found, strict=True)
    ]
    return each[0] if each and all(along == each[0] for along in each) else None
