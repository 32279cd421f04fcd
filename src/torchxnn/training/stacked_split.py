"""Splits of several fits to the same Z, stacked: all that a step and a measurement read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from torchxnn.embeddings.linear import normalised, products
from torchxnn.training.config import PullAway
from torchxnn.training.split import Split


@dataclass(frozen=True, eq=False)
class StackedSplit:
    """One split of the data as G fits see it; a batch of it has its own samples for every fit.

    Attributes:
        logits: (G, M, k), those that each fit reproduces.
        spread: (G, 1, k), standard deviation of the logits over the training data.
        weights: (G, M), each of sum 1.
        positives: (G, M), images of any of the fit's targets.
        groups: (G, M, c), one-hot, within which x-features are centred; None for none.
        shares: (G, c), weight of each group; None without groups.
        components: (G, M, n), contributions that x-features are held near, 0 for a fit that has
            none; None if no fit has any.
        held: (G,), 1 for a fit with components and 0 for another; None if no fit has any.
    """

    logits: Float[Tensor, "fits samples targets"]
    spread: Float[Tensor, "fits 1 targets"]
    weights: Float[Tensor, "fits samples"]
    positives: Bool[Tensor, "fits samples"]
    groups: Float[Tensor, "fits samples groups"] | None
    shares: Float[Tensor, "fits groups"] | None
    components: Float[Tensor, "fits samples features"] | None
    held: Float[Tensor, " fits"] | None

    @classmethod
    def of(
        cls, splits: Sequence[Split], spread: Float[Tensor, "fits targets"], pull_away: PullAway
    ) -> StackedSplit:
        """Stack splits of the same data, one per fit."""
        weights = normalised(torch.stack([split.weights for split in splits]))
        found = [split.groups(pull_away) for split in splits]
        groups = shares = None
        if pull_away != "cosine":
            groups = torch.stack([group for group in found if group is not None])
            shares = products(weights.unsqueeze(1), groups).squeeze(1)
        return cls(
            torch.stack([split.logits for split in splits]),
            spread.unsqueeze(1),
            weights,
            torch.stack([split.positives.any(1) for split in splits]),
            groups,
            shares,
            *_components(splits),
        )

    def __len__(self) -> int:
        """Samples M."""
        return self.logits.shape[1]

    def at(self, index: Int64[Tensor, "fits batch"]) -> StackedSplit:
        """The samples at each fit's own positions; `shares` stay those of the whole split."""
        fits = torch.arange(len(index), device=index.device).unsqueeze(1)
        return self._taken((fits, index))

    def part(self, rows: slice) -> StackedSplit:
        """The same samples of all fits; `shares` stay those of the whole split."""
        return self._taken((slice(None), rows))

    def _taken(self, which: tuple[Tensor | slice, Tensor | slice]) -> StackedSplit:
        return StackedSplit(
            self.logits[which],
            self.spread,
            self.weights[which],
            self.positives[which],
            None if self.groups is None else self.groups[which],
            self.shares,
            None if self.components is None else self.components[which],
            self.held,
        )


def _components(splits: Sequence[Split]) -> tuple[Tensor | None, Tensor | None]:
    """Components of every fit, and which fits have any."""
    found = [split.components for split in splits]
    some = next((each for each in found if each is not None), None)
    if some is None:
        return None, None
    none = torch.zeros_like(some)
    held = torch.tensor([float(each is not None) for each in found])
    return torch.stack([none if each is None else each for each in found]), held.to(some)


class Draws:
    """Draws samples of several fits with probability proportional to their weights.

    Random numbers come from each fit's own generator on the CPU, so that every device sees the
    same batches. They go to the device once an epoch; what they stand for is looked up there.
    The batches are those of `torch.multinomial` with the same generator.

    Args:
        splits: of the fits; all have as many samples.
        generators: of the fits.
        device: where positions are wanted.
    """

    def __init__(
        self, splits: Sequence[Split], generators: Sequence[torch.Generator], device: torch.device
    ) -> None:
        self.generators, self.device = list(generators), device
        # Apple's GPUs know no float64, and in float32 some numbers would stand for other samples
        self.tables = torch.stack([cumulative(split.weights) for split in splits])
        if device.type != "mps":
            self.tables = self.tables.to(device)

    def draw(self, steps: int, size: int) -> Int64[Tensor, "steps fits batch"]:
        """Positions of the samples of so many batches."""
        numbers = [
            torch.rand(steps * size, dtype=torch.float64, generator=generator)
            for generator in self.generators
        ]
        there = torch.stack(numbers).to(self.tables.device, non_blocking=True)
        found = torch.searchsorted(self.tables, there).clamp(max=self.tables.shape[1] - 1)
        return found.unflatten(1, (steps, size)).transpose(0, 1).contiguous().to(self.device)


def cumulative(weights: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Cumulative probabilities (M,), float64, summed as `torch.multinomial` sums them."""
    total = np.cumsum(weights.cpu().numpy())  # one after the other, in the weights' precision
    return torch.from_numpy(total / total[-1]).double()
