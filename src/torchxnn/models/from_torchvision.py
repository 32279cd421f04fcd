"""`torchvision:NAME`: its classification networks, with the weights that lie in torch's cache."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torchxnn.errors import ModelError, near_ones
from torchxnn.models.caches import cached_checkpoint, file_name
from torchxnn.models.checkpoints import load_checkpoint, read_checkpoint
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.source import NEAR, LoadedModel, Source
from torchxnn.models.without_compiler import torchvision_models


def classification_networks() -> list[str]:
    """Names of the networks that torchvision has for classes."""
    models = torchvision_models()
    return models.list_models(module=models)


def find_torchvision(spec: str, weights: Path | None) -> Source:
    """A network of torchvision.

    Args:
        spec: `torchvision:NAME`.
        weights: the file that is to be loaded, if any: where its name is that of weights of the
            library, these say how pictures become tensors.

    Raises:
        ModelError: there is no such network.
    """
    models, name = torchvision_models(), spec.partition(":")[2]
    known = classification_networks()
    if name not in known:
        near = near_ones(name, known, *NEAR)
        raise ModelError(f"torchvision has no classification network {name!r}{near}")
    members = list(models.get_model_weights(name))
    default = models.get_model_weights(name).DEFAULT

    own = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    build = partial(models.get_model, name, weights=None, **own)

    def pretrained() -> LoadedModel | None:
        for member in (default, *members):
            file = cached_checkpoint(member.url)
            if file is not None:
                _check_name(file)
                model = build()
                load_checkpoint(model, read_checkpoint(file))
                chosen = replace(source, preprocessing=_preprocessing(member))
                classes = tuple(member.meta["categories"])
                return chosen.loaded(model, f"torchvision's weights {member.name}", classes)
        return None

    given = weights.name if weights else None
    member = next((m for m in members if file_name(m.url) == given), members[0])
    fetch = f"torchvision.models.{name}(weights='DEFAULT')"
    source = Source(spec, build, _preprocessing(member), pretrained, fetch)
    return source


def _preprocessing(member: Any) -> Preprocessing:
    preset = member.transforms()
    return Preprocessing(
        size=preset.crop_size[0],
        resize="crop",
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        shorter_side=preset.resize_size[0],
    )


def _check_name(file: Path) -> None:
    """Cached files carry the start of their SHA-256 in the name: a half download is found."""
    expected = file.stem.rpartition("-")[2]
    with file.open("rb") as stream:
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    if not actual.startswith(expected):
        raise ModelError(f"the cached weights {file} are broken (wrong checksum); delete the file")
