"""What the network itself says about the data: accuracy, confusions, and the closest classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.positives import positives_of
from torchxnn.models.meaning import CLASSES, Meaning
from torchxnn.models.outputs import count_classes, predicted_classes
from torchxnn.xnn import XNN

LEADERS = 2  # outputs beyond those explained that faithfulness needs, per image


@dataclass(frozen=True)
class CloseClass:
    """A class that is close to another one.

    Attributes:
        output: its index.
        taken_for: images of the class that are predicted as this one; of labels, on which the
            network sees this one, too.
        taken_from: images of this one that are predicted as the class, or on which it is seen.
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
        kinds: (M,), the class of each image: its label, or the prediction without labels. Of
            labels without any given, the one with the largest logit.
        predicted: (M,), the class that the network predicts; see `predicted_classes`.
        leading: (M, L), the highest logits, descending.
        leaders: (M, L), whose they are.
        means: (K, K), mean logits of the images of each class; a row of NaN if it has none.
        counts: (K, K), images by class and prediction.
        positives_by: what made an image one of a class.
        meaning: of the outputs: classes, or labels that do not exclude each other.
    """

    kinds: Int64[Tensor, " rows"]
    predicted: Int64[Tensor, " rows"]
    leading: Float[Tensor, "rows leading"]
    leaders: Int64[Tensor, "rows leading"]
    means: Float[Tensor, "outputs outputs"]
    counts: Int64[Tensor, "outputs outputs"]
    positives_by: Literal["label", "prediction"]
    meaning: Meaning = CLASSES

    def positives(
        self, target_logits: Float[Tensor, "rows targets"], xnn: XNN
    ) -> Bool[Tensor, "rows targets"]:
        """Which images are of which target: by label, or as the network says without labels."""
        if self.positives_by == "label":
            return positives_of(self.kinds, None, xnn.targets, xnn.outputs, xnn.meaning)[0]
        return self.decided(target_logits, xnn)

    def decided(
        self, target_logits: Float[Tensor, "rows targets"], xnn: XNN
    ) -> Bool[Tensor, "rows targets"]:
        """On which images the network predicts a class, or sees a label."""
        if self.meaning.outputs_are == "labels":
            return target_logits > self.meaning.boundary
        return positives_of(self.predicted, None, xnn.targets, xnn.outputs)[0]

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


def read_predictions(
    cache: ActivationCache, most_targets: int, meaning: Meaning = CLASSES
) -> Predictions:
    """Read the logits of a cache once, chunk by chunk; no XNN has more than `most_targets`."""
    outputs = cache.n_outputs
    size = count_classes(outputs)
    sums = torch.zeros(size, outputs, dtype=torch.float64)
    counts, members = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size).double()
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
        predicted[rows] = predicted_classes(logits, meaning.boundary)
        kinds[rows] = predicted[rows] if labels is None else labels[rows]
        several = meaning.outputs_are == "labels" and outputs > 1
        seen = logits > meaning.boundary if several else one_hot(predicted[rows], size)
        said, values = seen.double(), logits.double()
        if several and labels is None:  # an image counts for every label that is seen on it
            sums += said.T @ values
            counts += said.T @ said
            members += said.sum(0)
        else:
            sums.index_add_(0, kinds[rows], values)
            counts.index_add_(0, kinds[rows], said)
            members += kinds[rows].bincount(minlength=size)
    counts, means = counts.long(), sums / members.unsqueeze(1)
    if outputs == 1:  # one logit has no rival
        counts, means = counts[:1, :1], means[:1]
    by: Literal["label", "prediction"] = "prediction" if labels is None else "label"
    return Predictions(kinds, predicted, leading, leaders, means, counts, by, meaning)
