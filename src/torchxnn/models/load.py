"""Networks by name (`torchvision:NAME`, `timm:NAME`, `package.module:factory`) and weights."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from torchxnn.errors import ModelError, XNNWarning, near_ones
from torchxnn.models.channels import settle_channels
from torchxnn.models.hooks import in_precision_of, preserve_state
from torchxnn.models.layers import unwrap
from torchxnn.models.outputs import as_logits
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.weights import differing_weight, load_state, read_state

_NEAR = 4, 0.5  # names of networks in a message, and how like they must be


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A network in evaluation mode and how to feed it.

    Attributes:
        model: float32, on the CPU.
        preprocessing: how its pictures become tensors.
        classes: class names, where they are known.
        description: one line for people: what it is and where its weights come from.
        random_weights: whether nobody trained it, as far as `load_model` can tell.
    """

    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    description: str
    random_weights: bool = False


@dataclass(frozen=True)
class _Source:
    """Where a network comes from: how to build it, and its own weights on this machine.

    `factory` takes `num_classes` by name, or nothing for the classes that the network has.
    `pretrained` is None for a factory and returns None if the weights are not on this machine;
    `fetch` is what a person can do about it.
    """

    spec: str
    factory: Callable[..., nn.Module | LoadedModel]
    preprocessing: Preprocessing | None
    pretrained: Callable[[], LoadedModel | None] | None
    fetch: str = ""

    def build(self, num_classes: int | None) -> nn.Module | LoadedModel:
        """The network with random weights, or those that its factory gives it."""
        return self.factory(**({} if num_classes is None else {"num_classes": num_classes}))


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
    error, and so is a factory that makes other weights when it is called again. A factory is called
    with `num_classes` if it takes it, and may return an `nn.Module` or a `LoadedModel`; an
    attribute `preprocessing` of its module is honoured.

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
        loaded = _as_the_factory_made_it(source, num_classes, allow_random)
    else:
        loaded = _pretrained_or_random(source, num_classes, allow_random)
    loaded.model.eval()
    chosen = preprocessing or settle_channels(loaded.model, loaded.preprocessing)
    return replace(loaded, preprocessing=chosen)


def _pretrained_or_random(
    source: _Source, num_classes: int | None, allow_random: bool
) -> LoadedModel:
    found = source.pretrained() if source.pretrained else None
    own = len(found.classes) if found and found.classes else None
    if found is not None and num_classes in (None, own):
        return found
    if allow_random:
        return _random(source, num_classes)
    if found is not None:
        raise ModelError(
            f"the library's weights of {source.spec} have {own} classes, not {num_classes}; give a "
            "checkpoint (--weights FILE)"
        )
    raise ModelError(
        f"the pretrained weights of {source.spec} are not on this machine; give a checkpoint "
        f"(--weights FILE), or fetch them once with {source.fetch}"
    )


def _as_the_factory_made_it(
    source: _Source, num_classes: int | None, allow_random: bool
) -> LoadedModel:
    """What a factory returns, if it returns the same weights when it is called again.

    Raises:
        ModelError: it does not, so that nobody can have trained them.
    """
    loaded = _as_loaded(source.build(num_classes), source, "weights as the factory made them")
    with torch.random.fork_rng(devices=[]):
        again = _as_loaded(source.build(num_classes), source, "").model
    differing = differing_weight(loaded.model, again)
    if differing is None:
        return loaded
    if allow_random:
        return _random(source, num_classes)
    raise ModelError(
        f"{source.spec} makes other weights at every call ({differing} differs), so nobody loaded "
        "them: give the trained ones (--weights FILE), or try things out with --random-weights"
    )


def _random(source: _Source, num_classes: int | None) -> LoadedModel:
    warnings.warn(
        f"{source.spec} has random weights: its explanations mean nothing", XNNWarning, stacklevel=4
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same random network again when a saved XNN is loaded
        loaded = _as_loaded(source.build(num_classes), source, "random weights")
    return replace(loaded, random_weights=True)


def _find_source(spec: str) -> _Source:
    library, _, name = spec.partition(":")
    if not library or not name:
        from torchvision import models

        known = models.list_models(module=models)
        hint = f"; did you mean torchvision:{spec}?" if spec in known else ""
        raise ModelError(
            "a network is torchvision:NAME, timm:NAME or package.module:factory, "
            f"got {spec!r}{hint}"
        )
    finders = {"torchvision": _find_torchvision, "timm": _find_timm}
    return finders.get(library, _find_factory)(spec)


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
    from torchvision import models

    name = spec.partition(":")[2]
    known = models.list_models(module=models)
    if name not in known:
        near = near_ones(name, known, *_NEAR)
        raise ModelError(f"torchvision has no classification network {name!r}{near}")
    members = list(models.get_model_weights(name))

    own = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    build = partial(models.get_model, name, weights=None, **own)

    def pretrained() -> LoadedModel | None:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        default = models.get_model_weights(name).DEFAULT
        for member in (default, *members):
            file = folder / Path(urlparse(member.url).path).name
            if file.is_file():
                _check_name(file)
                model = build()
                load_state(model, read_state(file), str(file))
                chosen = replace(source, preprocessing=_torchvision_preprocessing(member))
                classes = tuple(member.meta["categories"])
                return _as_loaded(model, chosen, f"torchvision's weights {member.name}", classes)
        return None

    fetch = f"torchvision.models.{name}(weights='DEFAULT')"
    source = _Source(spec, build, _torchvision_preprocessing(members[0]), pretrained, fetch)
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
        near = near_ones(name, timm.list_models(), *_NEAR)
        raise ModelError(f"timm has no network {name!r}{near}")

    def pretrained() -> LoadedModel | None:
        file = _cached_timm_file(timm.get_pretrained_cfg(name))
        if file is None:
            return None
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": str(file)})
        subset = timm.data.infer_imagenet_subset(model)
        info = timm.data.ImageNetInfo(subset) if subset else None
        classes = tuple(info.label_descriptions()) if info else None
        return _as_loaded(model, source, f"timm's weights {file.name}", classes)

    fetch = f"timm.create_model({name!r}, pretrained=True)"
    build = partial(timm.create_model, name, pretrained=False)
    source = _Source(spec, build, _timm_preprocessing(timm, name), pretrained, fetch)
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
    _, height, width = data["input_size"]
    least = min(height, width)
    squash = data["crop_mode"] == "squash"
    known = data["interpolation"] in ("bilinear", "bicubic")
    return Preprocessing(
        size=(height, width),
        resize="squash" if squash else "crop",
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"] if known else "bicubic",
        shorter_side=None if squash else max(least, int(least / data["crop_pct"])),
    )


# --- package.module:factory


def _find_factory(spec: str) -> _Source:
    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(
            f"cannot import {module_name!r} of the network {spec!r}: {error}"
        ) from error
    finally:
        sys.path.remove(here)
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value)]
        near = near_ones(name, known, *_NEAR)
        raise ModelError(f"{module_name} has no function {name!r}{near}")
    takes_classes = "num_classes" in inspect.signature(factory).parameters

    def build(**options: int) -> Any:
        if options and not takes_classes:
            count = options["num_classes"]
            raise ModelError(f"{spec} takes no num_classes, so {count} cannot be asked for")
        try:
            inspect.signature(factory).bind(**options)
        except TypeError as error:
            raise ModelError(f"{spec} cannot be called: {error}") from error
        model = factory(**options)
        if not isinstance(model, nn.Module | LoadedModel):
            raise ModelError(f"{spec} returned a {type(model).__name__}, not an nn.Module")
        return model

    return _Source(spec, build, None, None)


# --- weights


def _load_weights(source: _Source, file: Path, num_classes: int | None) -> LoadedModel:
    state = read_state(file)
    if num_classes is None:
        num_classes = _infer_classes(source, state)
    loaded = _as_loaded(source.build(num_classes), source, f"weights {file.name}")
    load_state(loaded.model, state, str(file))
    return loaded


def _infer_classes(source: _Source, state: Mapping[str, Tensor]) -> int | None:
    """The size of the last layer in the state, whatever the network calls it.

    Two networks are built, with 2 and 3 classes: where the first dimension of a tensor follows,
    there is the head. None if the network takes no number of classes, or the heads disagree.
    """
    try:
        two, three = (_skeleton(source, count) for count in (2, 3))
    except ModelError:
        return None
    heads = {
        name
        for name in two.keys() & three.keys() & state.keys()
        if (two[name].shape[:1], three[name].shape[:1]) == ((2,), (3,))
    }
    sizes = {state[name].shape[0] for name in heads if state[name].ndim}
    return sizes.pop() if len(sizes) == 1 else None


def _skeleton(source: _Source, num_classes: int) -> dict[str, Tensor]:
    try:
        with torch.device("meta"):  # takes no memory and no time
            model = source.build(num_classes)
    except ModelError:
        raise
    except Exception:  # a constructor that computes with its tensors, such as RegNet's
        model = source.build(num_classes)
    return (model.model if isinstance(model, LoadedModel) else model).state_dict()


def count_outputs(model: nn.Module, preprocessing: Preprocessing) -> int:
    """Number of outputs of a model, from one forward pass on a black image.

    Raises:
        ModelError: the model cannot be run on an image of that size.
    """
    parameter = next(iter(model.parameters()), torch.zeros(()))
    image = torch.zeros(1, *preprocessing.shape, device=parameter.device)
    try:
        with torch.no_grad(), preserve_state(unwrap(model)):
            return as_logits(unwrap(model)(in_precision_of(model, image))).shape[1]
    except (RuntimeError, AssertionError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        shape = " x ".join(map(str, preprocessing.shape))
        raise ModelError(
            f"the model cannot be run on a {shape} image ({first}); try --size or --in-channels"
        ) from error
