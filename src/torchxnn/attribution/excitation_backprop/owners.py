"""Which image each element of a value belongs to, and sums of relevance over each image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from torchxnn.attribution.excitation_backprop.along import Along
from torchxnn.embeddings.exact import exact, exact_device, exact_sum

ROW_LENGTH = 1024
"""Terms that are added in the precision of the relevance before float64 takes over."""

FEW = 1 << 20
"""Owners that are looked at on the CPU, so that a GPU is waited for once and not per dimension."""


class Owner:
    """Which image each element of a value belongs to, 1-based, 0 for a constant.

    Args:
        shape: of the value.
        device: where it lies.
        images: how many there are.
        along: where the images lie, if shapes tell.
        tensor: the owners themselves, which can be expanded to the shape, where they do not.

    Attributes:
        along: where the images lie, as far as it is known so far.
    """

    def __init__(
        self,
        shape: Sequence[int],
        device: torch.device | None,
        images: int,
        along: Along | None = None,
        tensor: Tensor | None = None,
    ) -> None:
        self.shape = torch.Size(shape)
        self.along = along
        self._device = device
        self._images = images
        self._tensor = None if tensor is None else unrepeated(tensor)

    @cached_property
    def compact(self) -> Tensor:
        """The owners, with every dimension along which they do not vary cut down to 1."""
        if self._tensor is not None:
            return self.look()
        along, shape = self.along, [1] * len(self.shape)
        if along is None or along.images == 1:
            return torch.ones(shape, dtype=torch.int32, device=self._device)
        shape[along.dim] = length = self.shape[along.dim]
        index = torch.arange(length, dtype=torch.int32, device=self._device)
        return (index.div_(along.run, rounding_mode="floor") % along.images + 1).reshape(shape)

    @cached_property
    def complete(self) -> bool:
        """Whether all elements belong to an image."""
        if self.along is None:
            self.look()  # which sets this very attribute
        known: bool = vars(self).get("complete", True)
        return known

    def look(self) -> Tensor:
        """See in the owners themselves where the images lie; returns them compact."""
        tensor = self._tensor
        if tensor is None or "compact" in vars(self):
            return self.compact
        if tensor.numel() > FEW:
            tensor = _shared_out(tensor)
        seen = tensor.to("cpu", torch.int64).numpy()
        for dim, size in enumerate(seen.shape):
            first = seen.take([0], dim) if size else seen
            if size > 1 and (seen == first).all():
                seen, tensor = first, tensor.narrow(dim, 0, 1)
        self.compact = tensor
        self.complete = bool((seen > 0).all())
        varying = [dim for dim, size in enumerate(seen.shape) if size > 1]
        if self.complete and len(varying) < 2 and seen.size:
            dim = varying[0] if varying else 0
            self.along = _along(seen.ravel().tolist(), dim, self._images)
        return tensor

    @property
    def in_rows(self) -> bool:
        """Whether shapes tell that index i of the first dimension is of image i alone."""
        along = self.along
        if along is None or along.images == 1:
            return along is not None
        return along.dim == 0 and along.run == 1 and self.shape[0] == along.images

    @property
    def tensor(self) -> Tensor:
        """The owners in the shape of the value."""
        known = self.compact if self._tensor is None else self._tensor
        return known.expand(self.shape)


def _along(owners: list[int], dim: int, images: int) -> Along | None:
    run = next((at for at, owner in enumerate(owners) if owner != owners[0]), len(owners))
    found = [index // run % images + 1 for index in range(len(owners))]
    whole = len(owners) % (run * images) == 0 or images == 1
    return Along(images, dim, run if images > 1 else 1) if found == owners and whole else None


def unrepeated(owner: Tensor) -> Tensor:
    """Owners with every dimension along which they are expanded cut down to 1."""
    for dim, (size, step) in enumerate(zip(owner.shape, owner.stride(), strict=True)):
        if size > 1 and step == 0:
            owner = owner.narrow(dim, 0, 1)
    return owner


def _shared_out(owner: Tensor) -> Tensor:
    """Owners with every dimension along which they do not vary cut down to 1."""
    for dim in reversed(range(owner.ndim)):
        if owner.shape[dim] > 1:
            first = owner.narrow(dim, 0, 1)
            owner = first if bool((owner == first).all()) else owner
    return owner


def sum_by_owner(relevance: Tensor, owner: Owner, images: int) -> Tensor:
    """Sum (seeds, *shape) over the elements of each image, (seeds, images), in float64.

    It lies where the relevance does, or on the CPU if no float64 is known there. Relevance on
    elements that belong to no image is left out: it is lost.
    """
    if owner.in_rows:
        apart = 1 if images == 1 else 2
        return precise_sum(relevance, list(range(apart, relevance.ndim))).reshape(-1, images)
    compact = owner.compact
    dims = [dim + 1 for dim, size in enumerate(compact.shape) if size == 1]
    there, size = exact_device(relevance.device), (relevance.shape[0], images + 1)
    sums = torch.zeros(size, dtype=torch.float64, device=there)
    index = compact.reshape(-1).to(there, torch.int64)
    flat = precise_sum(relevance, dims).reshape(relevance.shape[0], -1)
    return sums.index_add_(1, index, flat)[:, 1:]


def _begins(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor begins: its memory, and how far into it.

    They are not added up: MPS knows memory by handles, and one with an offset may be another.
    """
    return tensor.untyped_storage().data_ptr(), int(tensor.storage_offset())


def same_memory(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors (seeds, images, ...) are the same memory, up to how the rest is shaped.

    The first may have more seeds.
    """
    if min(first.ndim, second.ndim) < 2 or _begins(first) != _begins(second):
        return False
    each = [(tensor.stride()[:2], tensor.shape[1:].numel()) for tensor in (first, second)]
    return each[0] == each[1] and first.shape[1] == second.shape[1]


def same_images(first: Owner | None, second: Owner | None) -> bool:
    """Whether owners of two values are known to be the same images along the first dimension."""
    if first is None or second is None or not (first.in_rows and second.in_rows):
        return False
    return len(first.shape) > 0 and first.shape[:1] == second.shape[:1]


def precise_sum(tensor: Tensor, dims: list[int]) -> Tensor:
    """Sum over dimensions in float64, without a copy of the tensor in float64.

    Rows along the innermost dimensions in memory are summed in the tensor's own precision first,
    pairwise; a float32 sum of a few hundred terms is good to 1e-7. A device without float64 hands
    these sums to the CPU, not the tensor.
    """
    by_step = sorted(dims, key=lambda dim: tensor.stride(dim))
    length, rows = 1, []
    for dim in by_step:
        if length * tensor.shape[dim] > ROW_LENGTH:
            break
        length *= tensor.shape[dim]
        rows.append(dim)
    if rows:
        tensor = tensor.sum(rows, keepdim=True)
    rest = [dim for dim in dims if dim not in rows]
    return exact_sum(tensor, dims) if rest or rows else exact(tensor)
