"""`timm:NAME`: its networks, with the weights that lie in the local caches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from torchxnn.errors import ModelError, near_ones
from torchxnn.models.caches import WEIGHTS, cached_checkpoint, cached_in_repository
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.source import NEAR, LoadedModel, Source
from torchxnn.models.without_compiler import without_compiler


def find_timm(spec: str) -> Source:
    """A network of timm.

    Args:
        spec: `timm:NAME`.

    Raises:
        ModelError: timm is not installed, or has no such network.
    """
    name = spec.partition(":")[2]
    try:
        with without_compiler():
            import timm
    except ModuleNotFoundError as error:
        raise ModelError(f"{spec} needs the package timm: pip install timm") from error
    if not timm.is_model(name):
        near = near_ones(name, timm.list_models(), *NEAR)
        raise ModelError(f"timm has no network {name!r}{near}")
    config = timm.get_pretrained_cfg(name)

    def pretrained() -> LoadedModel | None:
        file = _cached_file(config)
        if file is None:
            return None
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
        subset = timm.data.infer_imagenet_subset(model)
        info = timm.data.ImageNetInfo(subset) if subset else None
        classes = tuple(info.label_descriptions()) if info else None
        return source.loaded(model, f"timm's weights {file.name}", classes)

    fetch = f"timm.create_model({name!r}, pretrained=True)"
    build = partial(timm.create_model, name, pretrained=False)
    about = None if config is None else _preprocessing(spec, config.to_dict())
    source = Source(spec, build, about, pretrained, fetch)
    return source


def own_preprocessing(model: nn.Module) -> Preprocessing | None:
    """What a network that timm made says of its images; None for any other network.

    Raises:
        ModelError: it cannot be expressed.
    """
    config = getattr(model, "pretrained_cfg", None)
    if not type(model).__module__.startswith("timm.") or not isinstance(config, dict):
        return None
    about: dict[str, Any] = dict(config)
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    if isinstance(size, tuple) and len(size) == 2:  # other than that of the pretrained weights
        channels = about.get("input_size", (3,))[0]
        about["input_size"] = (channels, *size)
    return _preprocessing(type(model).__name__, about)


def _cached_file(config: Any) -> Path | None:
    if config is None:
        return None
    found = cached_in_repository(config.hf_hub_id, WEIGHTS) if config.hf_hub_id else None
    if found is None and config.url:
        return cached_checkpoint(config.url)
    return found


def _preprocessing(name: str, config: dict[str, Any]) -> Preprocessing:
    """What timm's own evaluation transform does, from its data configuration."""
    from timm.data import resolve_data_config

    data = resolve_data_config(pretrained_cfg=config)
    _, height, width = data["input_size"]
    least = min(height, width)
    enlarged = int(least / data["crop_pct"])
    squash = data["crop_mode"] == "squash"
    cut = squash and height != width and enlarged != least
    if data["crop_mode"] == "border" or enlarged < least or cut:
        raise ModelError(
            f"{name} resizes its images in timm's mode {data['crop_mode']!r} with crop_pct "
            f"{data['crop_pct']}, which is not among ours; give preprocessing= (load_model), or a "
            "factory whose network has an attribute `preprocessing`"
        )
    return Preprocessing(
        size=(height, width),
        resize="squash" if squash else "crop",
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        shorter_side=None if squash and enlarged == least else enlarged,
    )
