"""Networks by name (`torchvision:NAME`, `timm:NAME`, `package.module:factory`) and their weights."""

import difflib
import hashlib
import importlib
import inspect
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from torchxnn.datasets.base import Preprocessing
from torchxnn.errors import ModelError, XNNWarning

_SHOWN = 4  # keys that a mismatch error names, of each kind
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in evaluation mode and how to feed it.

    Attributes:
        model: float32, on the CPU.
        preprocessing: how its pictures become tensors.
        classes: class names, where they are known.
        description: one line for people: what it is and where its weights come from.
    """

    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    description: str


@dataclass(frozen=True)
class _Source:
    """Where a network comes from: how to build it, and its own weights on this machine."""

    spec: str
    build: Callable[[int | None], nn.Module]
    preprocessing: Preprocessing | None
    pretrained: Callable[[], LoadedModel] | None


def load_model(
    spec: str,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    allow_random: bool = False,
) -> LoadedModel:
    """Build a network by name and load its weights; nothing is ever downloaded.

    Without `weights`, `torchvision:` and `timm:` networks take the library's own weights if they
    lie in the local cache; an explanation of a random network is useless, so otherwise this is an
    error. A factory is called with `num_classes` if it takes it, and may return an `nn.Module` or a
    `LoadedModel`; an attribute `preprocessing` of its module is honoured.

    Args:
        spec: `torchvision:resnet18`, `timm:resnet18`, `package.module:factory`.
        weights: a state dict in `.safetensors`, or in `.pt`, `.pth`, `.bin` without code in it.
            Loaded strictly; float16 values go into float32 parameters.
        num_classes: by default read from the shape of the last layer in `weights`.
        preprocessing: overrides what the library says about the network.
        allow_random: take random weights, with a warning.

    Raises:
        ModelError: if there is no such network, or the weights do not fit; the message names the
            nearest matches or the first keys that differ.
    """
    if num_classes is not None and num_classes < 1:
        raise ModelError(f"num_classes must be at least 1, got {num_classes}")
    source = _find_source(spec)
    if weights is not None:
        loaded = _load_weights(source, Path(weights), num_classes)
    elif source.pretrained is None:
        loaded = _as_loaded(source.build(num_classes), source, "weights as the factory made them")
    elif allow_random:
        warnings.warn(
            f"{spec} has random weights: its explanations mean nothing", XNNWarning, stacklevel=2
        )
        loaded = _as_loaded(source.build(num_classes), source, "random weights")
    else:
        loaded = source.pretrained()
        if num_classes is not None and loaded.classes and num_classes != len(loaded.classes):
            raise ModelError(
                f"the library's weights of {spec} have {len(loaded.classes)} classes, not "
                f"{num_classes}; give a checkpoint with weights (--weights FILE)"
            )
    loaded.model.eval()
    return loaded if preprocessing is None else replace(loaded, preprocessing=preprocessing)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names, shapes, types and values of all parameters and buffers.

    It does not depend on the device, the memory layout or the order in which modules were added.

    Raises:
        ModelError: if a parameter has no values yet (lazy or meta).
    """
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        if isinstance(tensor, nn.parameter.UninitializedTensorMixin) or tensor.is_meta:
            raise ModelError(
                f"parameter {name} has no values yet; run the network once, then retry"
            )
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        digest.update(memoryview(values.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _find_source(spec: str) -> _Source:
    library, _, name = spec.partition(":")
    if not library or not name:
        known = torchvision.models.list_models(module=torchvision.models)
        hint = f"; did you mean torchvision:{spec}?" if spec in known else ""
        raise ModelError(
            f"a network is torchvision:NAME, timm:NAME or package.module:factory, got {spec!r}{hint}"
        )
    finders = {"torchvision": _find_torchvision, "timm": _find_timm}
    return finders.get(library, _find_factory)(spec)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    return f"; near ones: {', '.join(near)}" if near else ""


def _as_loaded(
    model: nn.Module | LoadedModel,
    source: _Source,
    origin: str,
    classes: tuple[str, ...] | None = None,
) -> LoadedModel:
    if isinstance(model, LoadedModel):
        return replace(model, description=f"{source.spec}, {origin}")
    own = getattr(model, "preprocessing", None)
    chosen = own if isinstance(own, Preprocessing) else source.preprocessing
    return LoadedModel(model, chosen or Preprocessing(), classes, f"{source.spec}, {origin}")


# --- torchvision


def _find_torchvision(spec: str) -> _Source:
    name = spec.partition(":")[2]
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ModelError(
            f"torchvision has no classification network {name!r}{_nearest(name, known)}"
        )
    members = list(torchvision.models.get_model_weights(name))

    def build(num_classes: int | None) -> nn.Module:
        options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
        if name in ("googlenet", "inception_v3"):
            options |= {"init_weights": False}
        return torchvision.models.get_model(name, weights=None, **options)

    def pretrained() -> LoadedModel:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        default = torchvision.models.get_model_weights(name).DEFAULT
        files = {}
        for member in (default, *members):
            files.setdefault(member, folder / Path(urlparse(member.url).path).name)
        for member, file in files.items():
            if file.is_file():
                _check_name(file)
                model = build(None)
                load_state(model, read_state(file), str(file))
                chosen = replace(source, preprocessing=_torchvision_preprocessing(member))
                classes = tuple(member.meta["categories"])
                return _as_loaded(model, chosen, f"torchvision's weights {member.name}", classes)
        raise ModelError(
            f"the pretrained weights of {spec} are not on this machine (looked for {files[default]}); "
            "give a checkpoint (--weights FILE), or fetch them once with "
            f"torchvision.models.{name}(weights='DEFAULT')"
        )

    source = _Source(spec, build, _torchvision_preprocessing(members[0]), pretrained)
    return source


def _torchvision_preprocessing(member: Any) -> Preprocessing:
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


# --- timm


def _find_timm(spec: str) -> _Source:
    name = spec.partition(":")[2]
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModelError(f"{spec} needs the package timm: pip install timm") from error
    if not timm.is_model(name):
        known = timm.list_models()
        raise ModelError(f"timm has no network {name!r}{_nearest(name, known)}")

    def build(num_classes: int | None) -> nn.Module:
        options = {} if num_classes is None else {"num_classes": num_classes}
        return timm.create_model(name, pretrained=False, **options)

    def pretrained() -> LoadedModel:
        file = _cached_timm_file(timm.get_pretrained_cfg(name))
        if file is None:
            raise ModelError(
                f"the pretrained weights of {spec} are not on this machine; give a checkpoint "
                f"(--weights FILE), or fetch them once with timm.create_model({name!r}, "
                "pretrained=True)"
            )
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
        subset = timm.data.infer_imagenet_subset(model)
        info = timm.data.ImageNetInfo(subset) if subset else None
        classes = tuple(info.label_descriptions()) if info else None
        return _as_loaded(model, source, f"timm's weights {file.name}", classes)

    source = _Source(spec, build, _timm_preprocessing(timm, name), pretrained)
    return source


def _cached_timm_file(config: Any) -> Path | None:
    if config is None:
        return None
    if config.hf_hub_id:
        from huggingface_hub import try_to_load_from_cache

        for name in ("model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(config.hf_hub_id, name)
            if isinstance(found, str):
                return Path(found)
    if config.url:
        file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(config.url).path).name
        return file if file.is_file() else None
    return None


def _timm_preprocessing(timm: Any, name: str) -> Preprocessing | None:
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return None
    data = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    channels, height, width = data["input_size"]
    if channels != 3 or height != width:
        raise ModelError(f"timm:{name} expects {channels} x {height} x {width}, not square RGB")
    squash = data["crop_mode"] == "squash"
    known = data["interpolation"] in ("bilinear", "bicubic")
    return Preprocessing(
        size=height,
        resize="squash" if squash else "crop",
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"] if known else "bicubic",
        shorter_side=None if squash else max(height, int(height / data["crop_pct"])),
    )


# --- package.module:factory


def _find_factory(spec: str) -> _Source:
    module_name, _, name = spec.partition(":")
    try:
        with _current_folder_importable():
            module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(
            f"cannot import {module_name!r} of the network {spec!r}: {error}"
        ) from error
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value)]
        raise ModelError(f"{module_name} has no function {name!r}{_nearest(name, known)}")
    takes_classes = "num_classes" in inspect.signature(factory).parameters

    def build(num_classes: int | None) -> Any:
        if num_classes is not None and not takes_classes:
            raise ModelError(f"{spec} takes no num_classes, so {num_classes} cannot be asked for")
        options = {} if num_classes is None else {"num_classes": num_classes}
        try:
            inspect.signature(factory).bind(**options)
        except TypeError as error:
            raise ModelError(f"{spec} cannot be called: {error}") from error
        model = factory(**options)
        if not isinstance(model, nn.Module | LoadedModel):
            raise ModelError(f"{spec} returned a {type(model).__name__}, not an nn.Module")
        return model

    return _Source(spec, build, None, None)


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


# --- weights


def read_state(file: Path) -> dict[str, Tensor]:
    """Read a state dict; no code in the file is ever run.

    Raises:
        ModelError: if the file is missing, broken, of another kind, or holds NaN or infinity.
    """
    if not file.is_file():
        raise ModelError(f"there is no weights file {file}")
    try:
        match file.suffix.lower():
            case ".safetensors":
                state: Any = load_file(file)
            case ".pt" | ".pth" | ".bin":
                state = torch.load(file, map_location="cpu", weights_only=True)
            case suffix:
                raise ModelError(f"weights are .safetensors, .pt or .pth, not {suffix!r}: {file}")
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors (or is broken); save model.state_dict()"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise ModelError(f"cannot read the weights {file}: {error}") from error
    state = _unwrap(state)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{file} holds no state dict (names and tensors)")
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ModelError(f"{file}: {name} holds NaN or infinity")
    return state


def load_state(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a state dict strictly; values take the types of the network's own tensors.

    Raises:
        ModelError: that names the first missing, unexpected and differently shaped keys.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    parts = [
        f"{len(keys)} {kind}: {', '.join(keys[:_SHOWN])}{', ...' if len(keys) > _SHOWN else ''}"
        for kind, keys in kinds.items()
        if keys
    ]
    if parts:
        raise ModelError(f"the weights {origin} do not fit the network; {'; '.join(parts)}")
    model.load_state_dict(dict(state), strict=True)


def _load_weights(source: _Source, file: Path, num_classes: int | None) -> LoadedModel:
    state = read_state(file)
    if num_classes is None:
        num_classes = _infer_classes(source, state)
    loaded = _as_loaded(source.build(num_classes), source, f"weights {file.name}")
    load_state(loaded.model, state, str(file))
    return loaded


def _infer_classes(source: _Source, state: Mapping[str, Tensor]) -> int | None:
    """The size of the last layer in the state, if that is the one that `num_classes` changes.

    Two skeletons without memory are built, with 2 and 3 classes: the tensors whose first dimension
    differs are the head, whatever the network calls it.
    """
    try:
        with torch.device("meta"):
            two, three = (source.build(count).state_dict() for count in (2, 3))
    except Exception:  # a factory without num_classes, or one that computes with its tensors
        return None
    heads = {
        name
        for name in two.keys() & three.keys() & state.keys()
        if two[name].ndim and (two[name].shape[0], three[name].shape[0]) == (2, 3)
    }
    sizes = {state[name].shape[0] for name in heads if state[name].ndim}
    return sizes.pop() if len(sizes) == 1 else None


def _unwrap(state: Any) -> dict[str, Any]:
    for key in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        return {}
    if state and all(str(name).startswith("module.") for name in state):  # nn.DataParallel
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return dict(state)
