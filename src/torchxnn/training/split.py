"""One split of the data as a fit sees it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from torchxnn.data.activations import Activations
from torchxnn.training.config import PullAway


@dataclass(frozen=True, eq=False)
class Split:
    """One split of the data, training or held out, reduced to what the fit needs.

    Attributes:
        data: activations, all logits, labels.
        logits: (M, k), those to reproduce.
        positives: (M, k).
        weights: (M,), sum 1.
        components: (M, n), contributions that the x-features are held near; None for none.
    """

    data: Activations
    logits: Float[Tensor, "samples targets"]
    positives: Bool[Tensor, "samples targets"]
    weights: Float[Tensor, " samples"]
    components: Float[Tensor, "samples features"] | None = None

    def groups(self, pull_away: PullAway) -> Float[Tensor, "samples groups"] | None:
        """One-hot groups within which x-features are centred; None for none.

        A sample is a positive of one target at most, so the groups are the targets' positives and
        all others.
        """
        if pull_away == "cosine":
            return None
        if pull_away == "correlation":
            return torch.ones_like(self.logits[:, :1])
        positives = self.positives.to(self.logits)
        return torch.cat([positives, 1 - positives.sum(1, keepdim=True)], 1)

    def beside(self, data: Activations) -> Split:
        """The same with its activations where they lie on another device, and all else there."""
        device = data.z.device
        components = None if self.components is None else self.components.to(device)
        return Split(
            data,
            self.logits.to(device),
            self.positives.to(device),
            self.weights.to(device),
            components,
        )
