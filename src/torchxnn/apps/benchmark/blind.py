"""Embeddings that do not see a target: fitted once, kept in the folder of the benchmark."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from torchxnn.apps.benchmark.methods import BLIND, MORE_CONCEPTS, FitData
from torchxnn.apps.benchmark.settings import BenchmarkConfig
from torchxnn.embeddings.base import Embedding
from torchxnn.embeddings.kinds import build_embedding
from torchxnn.errors import DataError
from torchxnn.storage.tensor_file import open_tensors, write_tensors

FILE = "blind.safetensors"


@dataclass(frozen=True, eq=False)
class Blind:
    """Embeddings by method, with the usual and with more concepts, and seconds by method."""

    usual: dict[str, Embedding]
    more: dict[str, Embedding]
    seconds: dict[str, float]


def fit_blind(data: FitData, config: BenchmarkConfig, folder: Path) -> Blind:
    """Fit them, or read them if the folder holds them."""
    path = folder / FILE
    if path.is_file():
        return _read(path)
    found: dict[str, Embedding] = {}
    seconds = {}
    for name, fit in BLIND.items():
        start = time.perf_counter()
        found[name] = fit(data, config.n_features, config.train)
        seconds[name] = time.perf_counter() - start
        if name != "CAE":  # learned per number of concepts, and far behind the others
            most = min(MORE_CONCEPTS, *data.train.z.shape)
            found[f"{name}/more"] = fit(data, most, config.train)
    about = {
        name: {"kind": embedding.kind, "settings": embedding.settings()}
        for name, embedding in found.items()
    }
    tensors = {
        f"{name}:{key}": value
        for name, embedding in found.items()
        for key, value in embedding.state_dict().items()
    }
    write_tensors(path, tensors, {"about": about, "seconds": seconds})
    return _read(path)


def _read(path: Path) -> Blind:
    tensors, head = open_tensors(path)
    found = {}
    try:
        for name, made in head["about"].items():
            start = f"{name}:"
            state = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
            found[name] = build_embedding(made["kind"], made["settings"], state)
    except (ValueError, KeyError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete it to fit again") from error
    return Blind(
        usual={name: e for name, e in found.items() if "/" not in name},
        more={name.removesuffix("/more"): e for name, e in found.items() if "/" in name},
        seconds=head.get("seconds", {}),
    )
