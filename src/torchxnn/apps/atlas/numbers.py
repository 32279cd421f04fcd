"""The x-features of all classes on all images: every XNN applied to one recording of Z, on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
