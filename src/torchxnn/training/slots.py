"""How many fits are computed at once on a device."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from torchxnn.data.activations import Activations
from torchxnn.training.config import ComputeConfig, TrainConfig

CPU_SLOTS = 4
"""A few fits fill a CPU's caches: 3.42 ms a fit and step with four, 3.55 alone.

Of an older step 4.1 with four, 4.5 with eight and 5.1 alone.
"""

COPIES = 6
"""Of every parameter: itself, its gradient, two moments, the best so far and the fit's own."""

SHARE = 0.7
"""Of the memory that is free on a GPU; the rest is for what is computed once for all fits."""


def count_slots(
    compute: ComputeConfig, data: Activations, n_features: int, config: TrainConfig
) -> int:
    """`compute.slots`, or as many as are fast on the device and fit its free memory.

    Args:
        compute: device and slots.
        data: training data, on the device.
        n_features: n of every fit.
        config: sizes of the fits.
    """
    if data.are_maps:
        return 1  # a batch of maps is large enough
    if compute.slots is not None:
        return compute.slots
    free = _free_memory(torch.device(compute.device))
    if free is None:
        return CPU_SLOTS
    return max(1, int(SHARE * free / bytes_per_fit(data, n_features, config)))


def _free_memory(device: torch.device) -> int | None:
    """Bytes that a GPU has left, with what PyTorch keeps there and can use again.

    Of Apple's GPUs, whose memory is that of the machine, it is what Metal recommends to use. None
    of a CPU, and of devices that PyTorch cannot ask.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return None


def bytes_per_fit(data: Activations, n_features: int, config: TrainConfig) -> int:
    """Memory of the device that one more fit of a group needs.

    Its parameters in `COPIES`; the units of a batch with their gradients, and what the loss keeps
    of its reconstruction; logits, groups, components and probabilities of every sample.
    """
    samples, dims = data.z.shape
    inner = min(dims, config.subspace or dims)
    sizes = (inner, *config.hidden, n_features)
    parameters = 2 * sum(a * b + b for a, b in pairwise(sizes))
    batch = config.batch_size * (4 * sum(sizes) + 8 * dims)
    rows = samples * (2 * n_features + 8)
    return 4 * math.ceil(COPIES * parameters + batch + rows)
