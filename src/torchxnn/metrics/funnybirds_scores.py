"""The scores of FunnyBirds' official protocol: its checks added up over images, at one threshold.

See `funnybirds_protocol` for the checks and their source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchxnn.embeddings.exact import exact
from torchxnn.errors import DataError
from torchxnn.metrics.funnybirds_protocol import THRESHOLDS


@dataclass(frozen=True)
class Sums:
    """Scores of some images, added up.

    Attributes:
        values: a sum for each threshold, or one sum.
        count: of how many.
    """

    values: tuple[float, ...]
    count: int

    @staticmethod
    def of(scores: Tensor) -> Sums:
        """Of scores (T, N) or (N,); an item that is NaN at any threshold is left out."""
        rows = torch.atleast_2d(exact(scores))
        there = ~rows.isnan().any(dim=0)
        return Sums(tuple(rows[:, there].sum(dim=1).tolist()), int(there.sum()))

    def __add__(self, other: Sums) -> Sums:
        pairs = zip(self.values, other.values, strict=True)
        return Sums(tuple(one + two for one, two in pairs), self.count + other.count)

    def means(self) -> np.ndarray:
        """Mean scores; NaN of nothing."""
        return np.array(self.values) / self.count if self.count else np.array(self.values) * np.nan


@dataclass(frozen=True)
class OfficialTally:
    """What the protocol has counted on some images; tallies of other images can be added.

    Attributes:
        accuracy: of the network.
        csdc: controlled synthetic data check, by threshold; of images that are classified rightly.
        pc: preservation check, by threshold.
        dc: deletion check, by threshold.
        d: distractibility, by threshold.
        bi: background independence, of background objects; it speaks of the network alone.
        sd: single deletion.
        ts: target sensitivity, two for each image.
        composed: of interventions that were shown to the network, those without a rendering.
    """

    accuracy: Sums
    csdc: Sums
    pc: Sums
    dc: Sums
    d: Sums
    bi: Sums
    sd: Sums
    ts: Sums
    composed: Sums

    def __add__(self, other: OfficialTally) -> OfficialTally:
        names = [field.name for field in fields(self)]
        return OfficialTally(*(getattr(self, name) + getattr(other, name) for name in names))


def _completeness(means: Mapping[str, Any]) -> Any:
    return ((means["csdc"] + means["pc"] + means["dc"]) / 3 + means["d"]) / 2


def _with_main(**scores: float) -> dict[str, float]:
    """Scores of the single checks, and the three of the paper with their mean."""
    three = {
        "official_completeness": _completeness(scores),
        "official_correctness": scores["sd"],
        "official_contrastivity": scores["ts"],
    }
    single = {f"official_{name}": score for name, score in scores.items()}
    return single | three | {"official_mean": sum(three.values()) / 3}


def official_scores(tally: OfficialTally, threshold: float | None = None) -> dict[str, float]:
    """The scores of the paper; all higher is better, but for the threshold and what was composed.

    completeness = ((csdc + pc + dc) / 3 + d) / 2, correctness = sd, contrastivity = ts; their mean
    is the score of an explanation (section 4.3).

    Args:
        tally: of all images; several tallies are added before.
        threshold: one of `THRESHOLDS`, as when a part of the images is looked at; by default the
            first with the largest completeness.

    Returns:
        `official_csdc`, `official_pc`, `official_dc`, `official_d`, `official_bi`, `official_sd`,
        `official_ts`, `official_completeness`, `official_correctness`, `official_contrastivity`,
        `official_mean`, `official_accuracy`, `official_threshold`, and `composed_share`. NaN where
        there was nothing to count.

    Raises:
        DataError: the threshold is none of those of the protocol.
    """
    means = {field.name: getattr(tally, field.name).means() for field in fields(tally)}
    completeness = _completeness(means)
    if threshold is None:
        best = 0 if np.isnan(completeness).all() else int(np.nanargmax(completeness))
    elif threshold in THRESHOLDS:
        best = THRESHOLDS.index(threshold)
    else:
        raise DataError(f"the protocol has no threshold {threshold}; it has {THRESHOLDS}")
    composed = float(means.pop("composed")[0])
    scores = {name: float(values[best % len(values)]) for name, values in means.items()}
    return {
        **_with_main(**scores),
        "official_threshold": THRESHOLDS[best],
        "composed_share": composed,
    }


ANCHORS = MappingProxyType(
    {
        "Input x Gradient, ResNet-50": _with_main(
            csdc=0.7353, pc=0.602, dc=0.532, d=0.54372, bi=0.99826, sd=0.54592, ts=0.806
        ),
        "example without a name": _with_main(
            csdc=0.93935, pc=0.952, dc=0.92, d=0.96602, bi=0.98493, sd=0.72917, ts=0.72345
        ),
    }
)
"""Published scores of other networks: the first in the README of visinf/funnybirds-framework, the
second in `funnybirds_complete/plot_results.py` of visinf/funnybirds, which does not say what method
it is. Figures of the paper's other methods, which it draws, were not found."""
