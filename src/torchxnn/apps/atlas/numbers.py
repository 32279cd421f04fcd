"""The x-features of all classes on all images: every XNN applied to one recording of Z, on disk.

Those of different classes are alike by their correlation over all images of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchxnn.apps.atlas.config import AtlasConfig
from torchxnn.apps.atlas.runs import Failure, SavedClass
from torchxnn.apps.gallery import largest
from torchxnn.data.activation_cache import ActivationCache
from torchxnn.embeddings.apply import Embedded, apply_embedding
from torchxnn.errors import XNNError
from torchxnn.storage.artifact import digest, structure
from torchxnn.storage.tensor_file import open_tensors, write_tensors
from torchxnn.xnn import XNN

THUMBNAILS = 3
"""Images that stand for an x-feature where another class's page links to it."""


@dataclass(frozen=True)
class Summary:
    """What the pages of other classes need to know about a class.

    Attributes:
        name: of its folder.
        title: name of what it explains.
        feature_names: one per x-feature.
        tops: rows of the images on which each x-feature is largest.
        key: of the saved XNN and the data.
    """

    name: str
    title: str
    feature_names: tuple[str, ...]
    tops: tuple[tuple[int, ...], ...]
    key: str


def numbers_file(work: Path, name: str) -> Path:
    """Where a class's numbers are kept."""
    return work / "numbers" / f"{name}.safetensors"


def read_numbers(work: Path, name: str) -> Embedded:
    """One class's x-features on all images of the data, as `embed_block` wrote them."""
    parts, _ = open_tensors(numbers_file(work, name))
    return Embedded(parts["features"].T, parts["contributions"].permute(2, 0, 1),
                    parts["reproduced"].T)  # fmt: skip


def read_features(work: Path, name: str) -> Float[Tensor, "features rows"]:
    """The x-features alone, a row for each."""
    return open_tensors(numbers_file(work, name), ["features"])[0]["features"]


def embed_block(
    model: nn.Module, cache: ActivationCache, work: Path, block: tuple[SavedClass, ...]
) -> tuple[list[Summary], list[Failure]]:
    """Apply a few XNNs of a model to all of its cached Z, by chunks, and keep the numbers."""
    data = digest(cache.store.about)
    summaries: list[Summary] = []
    failures: list[Failure] = []
    loaded: dict[SavedClass, XNN] = {}
    for saved in block:
        there = _finished(work, saved.name, digest([saved.key, data]))
        if there is not None:
            summaries.append(there)
            continue
        try:
            cache.dims(saved.layer)
            loaded[saved] = XNN.from_pretrained(saved.place, model)
        except (XNNError, OSError, ValueError) as error:
            failures.append(Failure(saved.name, f"{type(error).__name__}: {error}"))
    for saved, numbers in _embed(loaded, cache).items():
        if not bool(torch.isfinite(numbers.features).all()):
            failures.append(Failure(saved.name, "its x-features are NaN or infinite on the data"))
            continue
        xnn = loaded[saved]
        summary = Summary(
            name=saved.name,
            title=" or ".join(xnn.target_name(target) for target in xnn.targets),
            feature_names=tuple(xnn.feature_names),
            tops=tuple(largest(column, THUMBNAILS) for column in numbers.features.T),
            key=digest([saved.key, data]),
        )
        tensors = {
            "features": numbers.features.T,
            "contributions": numbers.contributions.permute(1, 2, 0),
            "reproduced": numbers.reproduced.T,
        }
        write_tensors(numbers_file(work, saved.name), tensors, {"summary": summary})
        summaries.append(summary)
    return summaries, failures


def _embed(loaded: dict[SavedClass, XNN], cache: ActivationCache) -> dict[SavedClass, Embedded]:
    """One pass over the chunks of Z for all XNNs of the same layer."""
    parts: dict[SavedClass, list[Embedded]] = {saved: [] for saved in loaded}
    for layer in sorted({saved.layer for saved in loaded}):
        members = {saved: xnn for saved, xnn in loaded.items() if saved.layer == layer}
        for chunk in range(cache.store.chunks):
            span = cache.store.span(chunk)
            z = cache.read(layer, torch.arange(span.start, span.stop), torch.float32)
            for saved, xnn in members.items():
                if xnn.embedding is not None:
                    parts[saved].append(apply_embedding(xnn.embedding, z))
    return {saved: Embedded.cat(each) for saved, each in parts.items()}


def _finished(work: Path, name: str, key: str) -> Summary | None:
    """The summary of numbers that an earlier run has kept."""
    file = numbers_file(work, name)
    if not file.is_file():
        return None
    about = open_tensors(file, [])[1].get("summary", {})
    if about.get("key") != key:
        return None
    return structure(about, Summary, str(file))


# --- which are alike


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
