"""A store with the same contents in every process, for tests that kill its writers."""

import torch

from torchxnn.storage.chunk_store import ChunkStore

ABOUT = {"model": {"name": "a", "size": [1, 2]}, "share": 0.5}


def content(store, chunk, seed=0):
    """The same tensors for the same chunk, of every kind that caches hold."""
    count = len(store.span(chunk))
    generator = torch.Generator().manual_seed(seed * 1000 + chunk)
    values = torch.randn(count, 3, generator=generator)
    return {
        "z": values.bfloat16(),
        "half": values.half(),
        "by_output": torch.randn(7, count, generator=generator),
        "label": torch.arange(count) + store.span(chunk).start,
        "flag": values[:, 0] > 0,
    }


def fill(store, chunks=None):
    for chunk in store.missing() if chunks is None else chunks:
        store.write(chunk, content(store, chunk))


def write_in_order(place, rows, backwards):
    """What a writer process does: every chunk, also those that are there."""
    store = ChunkStore.create(place, ABOUT, rows, 1)
    fill(store, range(rows)[::-1] if backwards else range(rows))
