"""Weights that libraries have fetched before: files in their caches on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import torch

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights in a repository of the Hugging Face hub; the first is taken where it is."""


def file_name(url: str) -> str:
    """The last part of an address: the name under which torch keeps what came from there."""
    return Path(urlparse(url).path).name


def cached_checkpoint(url: str) -> Path | None:
    """The file in torch's cache that was fetched from an address; None if there is none."""
    file = Path(torch.hub.get_dir()) / "checkpoints" / file_name(url)
    return file if file.is_file() else None


def cached_in_repository(repository: str, names: Sequence[str]) -> Path | None:
    """The first of some files of a repository that lies in the hub's cache; None if none does."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None
