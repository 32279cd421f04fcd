"""Which image each element of a value belongs to, and sums of relevance over each image."""

from __future__ import annotations

import torch
from torch import Tensor

from torchxnn.embeddings.exact import exact, exact_device, exact_sum

ROW_LENGTH = 1024
"""Terms that are added in the precision of the relevance before float64 takes over."""


def shared_out(owner: Tensor) -> Tensor:
    """Owners with every dimension along which they do not vary cut down to 1.

    Nearly all values keep their images apart along the first dimension, so that sums over an image
    are plain sums over the others.
    """
    for dim, (size, step) in enumerate(zip(owner.shape, owner.stride(), strict=True)):
        if size > 1 and step == 0:
            owner = owner.narrow(dim, 0, 1)
    for dim in reversed(range(owner.ndim)):
        if owner.shape[dim] > 1:
            first = owner.narrow(dim, 0, 1)
            owner = first if bool((owner == first).all()) else owner
    return owner


def sum_by_owner(relevance: Tensor, owner: Tensor, images: int) -> Tensor:
    """Sum (seeds, *shape) over the elements of each image, (seeds, images), in float64.

    It lies where the relevance does, or on the CPU if no float64 is known there. Relevance on
    elements that belong to no image is left out: it is lost.
    """
    compact = shared_out(owner)
    dims = [dim + 1 for dim, size in enumerate(compact.shape) if size == 1]
    there, size = exact_device(relevance.device), (relevance.shape[0], images + 1)
    sums = torch.zeros(size, dtype=torch.float64, device=there)
    index = compact.reshape(-1).to(there, torch.int64)
    flat = precise_sum(relevance, dims).reshape(relevance.shape[0], -1)
    return sums.index_add_(1, index, flat)[:, 1:]


def same_memory(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors (seeds, images, ...) are the same memory, up to how the rest is shaped.

    The first may have more seeds.
    """
    if min(first.ndim, second.ndim) < 2 or first.data_ptr() != second.data_ptr():
        return False
    each = [(tensor.stride()[:2], tensor.shape[1:].numel()) for tensor in (first, second)]
    return each[0] == each[1] and first.shape[1] == second.shape[1]


def same_images(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether owners of two values are known to be the same images along the first dimension."""
    if first is None or second is None or first.data_ptr() != second.data_ptr():
        return False
    if min(first.ndim, second.ndim) == 0 or first.shape[0] != second.shape[0]:
        return False
    return not any(first.stride()[1:]) and not any(second.stride()[1:])


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
