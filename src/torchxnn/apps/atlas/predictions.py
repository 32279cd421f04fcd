"""What the network itself says about the data: accuracy, confusions, and the closest classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.models.outputs import count_classes, predicted_classes

LEADERS = 2  # outputs beyond those explained that faithfulness needs, per image


@dataclass(frozen=True)
class CloseClass:
    """A class that is close to another one.

    Attributes:
        output: its index.
        taken_for: images of the class that are predicted as this one.
        taken_from: images of this one that are predicted as the class.
        margin: mean of the class's logit minus this one's, over images of the class.
    """

    output: int
    taken_for: int
    taken_from: int
    margin: float


@dataclass(frozen=True, eq=False)
class Predictions:
    """The network's outputs on the data, in the little space that an atlas needs.

    Attributes:
        kinds: (M,), the class of each image: its label, or the prediction without labels.
        predicted: (M,), the class that the network predicts; see `predicted_classes`.
        leading: (M, L), the highest logits, descending.
        leaders: (M, L), whose they are.
        means: (K, K), mean logits of the images of each class; a row of NaN if it has none.
        counts: (K, K), images by class and prediction.
        positives_by: what made an image one of a class.
    """

    kinds: Int64[Tensor, " rows"]
    predicted: Int64[Tensor, " rows"]
    leading: Float[Tensor, "rows leading"]
    leaders: Int64[Tensor, "rows leading"]
    means: Float[Tensor, "outputs outputs"]
    counts: Int64[Tensor, "outputs outputs"]
    positives_by: Literal["label", "prediction"]

    def closest(self, target: int, count: int) -> tuple[CloseClass, ...]:
        """The classes confused most often with one, then those whose logits are nearest."""
        if len(self.counts) < 2 or not bool(self.means[target].isfinite().all()):
            return ()
        margins = self.means[target, target] - self.means[target]
        others = [
            CloseClass(
                output,
                int(self.counts[target, output]),
                int(self.counts[output, target]),
                float(margins[output]),
            )
            for output in range(len(self.counts))
            if output != target
        ]
        return tuple(
            sorted(others, key=lambda each: (-each.taken_for - each.taken_from, each.margin))
        )[:count]

    def logits_around(
        self, target_logits: Float[Tensor, "rows targets"], targets: Sequence[int]
    ) -> Float[Tensor, "rows columns"]:
        """Logits of some targets and the highest two of all others, (M, k + 2).

        Whatever depends on the predicted class and on the two highest logits is the same as with
        all outputs; missing ones are the lowest number there is.
        """
        if len(self.counts) == 1:  # a single logit is compared by its sign
            return target_logits
        inside = (self.leaders.unsqueeze(2) == torch.tensor(list(targets))).any(2)
        lowest = torch.finfo(self.leading.dtype).min
        rest = self.leading.masked_fill(inside, lowest).topk(min(LEADERS, inside.shape[1]), 1)
        return torch.cat([target_logits, rest.values], 1)


def read_predictions(cache: ActivationCache, most_targets: int) -> Predictions:
    """Read the logits of a cache once, chunk by chunk; no XNN has more than `most_targets`."""
    outputs = cache.n_outputs
    size = count_classes(outputs)
    sums = torch.zeros(size, outputs, dtype=torch.float64)
    kinds = torch.zeros(len(cache), dtype=torch.int64)
    predicted = torch.zeros_like(kinds)
    kept = min(outputs, most_targets + LEADERS)
    leading, leaders = torch.zeros(len(cache), kept), torch.zeros(len(cache), kept).long()
    labels = cache.labels
    for chunk in range(cache.store.chunks):
        span = cache.store.span(chunk)
        rows = slice(span.start, span.stop)
        logits = cache.logits(torch.arange(span.start, span.stop))
        best = logits.topk(kept, 1)
        leading[rows], leaders[rows] = best.values, best.indices
        predicted[rows] = predicted_classes(logits)
        kinds[rows] = predicted[rows] if labels is None else labels[rows]
        sums.index_add_(0, kinds[rows], logits.double())
    counts = torch.zeros(size * size, dtype=torch.int64)
    counts.index_add_(0, kinds * size + predicted, torch.ones_like(kinds))
    counts = counts.reshape(size, size)
    means = sums / counts.sum(1, keepdim=True)
    if outputs == 1:  # one logit has no rival
        counts, means = counts[:1, :1], means[:1]
    by: Literal["label", "prediction"] = "prediction" if labels is None else "label"
    return Predictions(kinds, predicted, leading, leaders, means, counts, by)
