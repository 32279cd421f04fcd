"""Which x-features of different classes are alike: correlation over all images of the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from torchxnn.apps.atlas.config import AtlasConfig
from torchxnn.apps.atlas.numbers import read_features


@dataclass(frozen=True)
class Similar:
    """An x-feature of another class.

    Attributes:
        name: folder of its class.
        feature: 0-based.
        correlation: in [-1, 1].
    """

    name: str
    feature: int
    correlation: float


def standardise(features: Float[Tensor, "features rows"]) -> Float[Tensor, "features rows"]:
    """Rows of mean 0 and norm 1, so that products are correlations; a constant row becomes 0."""
    centred = features.double() - features.double().mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    least = 1e-6 * features.double().norm(dim=1, keepdim=True)
    return torch.where(norm > least, centred / norm.clamp(min=1e-300), 0.0).float()


def compare_block(
    work: Path, names: tuple[str, ...], config: AtlasConfig, start: int
) -> dict[str, tuple[tuple[Similar, ...], ...]]:
    """For each x-feature of a block of classes the most similar ones of all other classes.

    Two blocks are in memory at once. The formula is Pearson's correlation of E over all images.

    Args:
        work: folder of the numbers.
        names: of all classes.
        config: classes read at once, how many are similar, and what correlation they have at least.
        start: first class of the block.
    """
    block, count, least = config.block, config.similar, config.least_correlation
    own = names[start : start + block]
    ours, owners, _ = _stack(work, own, start)
    best: list[list[Similar]] = [[] for _ in owners]
    for first in range(0, len(names), block):
        part = names[first : first + block]
        theirs, others, places = _stack(work, part, first)
        correlation = ours @ theirs.T
        correlation[owners[:, None] == others[None, :]] = -2.0
        values, indices = correlation.topk(min(count, len(others)), dim=1)
        for row, (value, index) in enumerate(zip(values.tolist(), indices.tolist(), strict=True)):
            best[row] += [
                Similar(names[int(others[i])], int(places[i]), min(1.0, v))
                for v, i in zip(value, index, strict=True)
                if v >= max(least, -1.0)
            ]
    found: dict[str, tuple[tuple[Similar, ...], ...]] = {}
    for offset, name in enumerate(own):
        rows = (owners == start + offset).nonzero().flatten().tolist()
        found[name] = tuple(
            tuple(sorted(best[row], key=lambda each: -each.correlation)[:count]) for row in rows
        )
    return found


def _stack(work: Path, names: tuple[str, ...], first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Standardised x-features of some classes, whose each is, and its number in its class."""
    parts = [standardise(read_features(work, name)) for name in names]
    owners = [torch.full((len(part),), first + at) for at, part in enumerate(parts)]
    places = [torch.arange(len(part)) for part in parts]
    return torch.cat(parts), torch.cat(owners), torch.cat(places)
