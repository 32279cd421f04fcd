"""Networks by name, of libraries, of folders and of somebody's own factories, and their weights."""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torchxnn.errors import ModelError, XNNWarning, near_ones, where_and_why
from torchxnn.models.channels import black_image, check_dimensions, settle_channels
from torchxnn.models.checkpoints import Checkpoint, read_checkpoint
from torchxnn.models.from_hugging_face import find_hugging_face
from torchxnn.models.from_timm import find_timm, own_preprocessing
from torchxnn.models.from_torchvision import classification_networks, find_torchvision
from torchxnn.models.hooks import run_watched, takes_shape
from torchxnn.models.layers import unwrap
from torchxnn.models.outputs import as_logits
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.refused import check_explainable
from torchxnn.models.source import NEAR, LoadedModel, Source
from torchxnn.models.weights import differing_weight
from torchxnn.models.without_compiler import Undrawn

__all__ = ["LoadedModel", "count_outputs", "load_model"]


def load_model(
    spec: str,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    allow_random: bool = False,
) -> LoadedModel:
    """Build a network by name and load its weights; nothing is ever downloaded.

    Without `weights`, `torchvision:`, `timm:` and `hf:` networks take the library's own weights if
    they lie in the local cache, or in the folder that is named; an explanation of a random network
    is useless, so otherwise this is an error, and so is a factory that makes other weights when it
    is called again. A factory is called with `num_classes` if it takes it, and may return an
    `nn.Module` or a `LoadedModel`; an attribute `preprocessing` of its module is honoured, and so
    is the configuration of a module of timm.

    Args:
        spec: `torchvision:resnet18`, `timm:resnet18`, `hf:google/vit-base-patch16-224`,
            `hf:FOLDER`, `package.module:factory`.
        weights: a state dict in `.safetensors`, or in `.pt`, `.pth`, `.bin`, `.ckpt` without code
            in it, or what a trainer wrote around one (`models.checkpoints`). Loaded strictly;
            float16 values go into float32 parameters.
        num_classes: by default read from the shape of the last layer in `weights`.
        preprocessing: overrides what the library says about the network.
        allow_random: take random weights, with a warning.

    Raises:
        ModelError: if there is no such network, or the weights do not fit; the message names the
            nearest matches or the first keys that differ.
    """
    if num_classes is not None and num_classes < 1:
        raise ModelError(f"num_classes must be at least 1, got {num_classes}")
    file = None if weights is None else Path(weights)
    source = _find_source(spec, file, preprocessing)
    if file is not None:
        loaded = _load_weights(source, file, num_classes)
    elif source.pretrained is None:
        loaded = _as_the_factory_made_it(source, num_classes, allow_random)
    else:
        loaded = _pretrained_or_random(source, num_classes, allow_random)
    loaded.model.eval()
    chosen = preprocessing or settle_channels(loaded.model, loaded.preprocessing)
    return replace(loaded, preprocessing=chosen, assumed=loaded.assumed and preprocessing is None)


def _pretrained_or_random(
    source: Source, num_classes: int | None, allow_random: bool
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
    source: Source, num_classes: int | None, allow_random: bool
) -> LoadedModel:
    """What a factory returns, if it returns the same weights when it is called again.

    Raises:
        ModelError: it does not, so that nobody can have trained them.
    """
    loaded = source.loaded(source.build_or_say_why(num_classes), "weights as the factory made them")
    with torch.random.fork_rng(devices=[]):
        again = source.loaded(source.build(num_classes), "").model
    differing = differing_weight(loaded.model, again)
    if differing is None:
        return loaded
    if allow_random:
        return _random(source, num_classes)
    raise ModelError(
        f"{source.spec} makes other weights at every call ({differing} differs), so nobody loaded "
        "them: give the trained ones (--weights FILE), or try things out with --random-weights"
    )


def _random(source: Source, num_classes: int | None) -> LoadedModel:
    warnings.warn(
        f"{source.spec} has random weights: its explanations mean nothing", XNNWarning, stacklevel=4
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same random network again when a saved XNN is loaded
        loaded = source.loaded(source.build(num_classes), "random weights")
    return replace(loaded, random_weights=True)


def _find_source(spec: str, weights: Path | None, preprocessing: Preprocessing | None) -> Source:
    library, _, name = spec.partition(":")
    if not library or not name:
        hint = f"; did you mean torchvision:{spec}?" if spec in classification_networks() else ""
        raise ModelError(
            "a network is torchvision:NAME, timm:NAME, hf:NAME-OR-FOLDER or "
            f"package.module:factory, got {spec!r}{hint}"
        )
    match library:
        case "torchvision":
            return find_torchvision(spec, weights)
        case "timm":
            return find_timm(spec)
        case "hf":
            return find_hugging_face(spec, preprocessing)
    return _find_factory(spec)


# --- package.module:factory


def _find_factory(spec: str) -> Source:
    module_name, _, name = spec.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(
            f"cannot import {module_name!r} of the network {spec!r}: {error}"
        ) from error
    except Exception as error:
        raise ModelError(f"{module_name!r} of {spec!r} fails: {where_and_why(error)}") from error
    finally:
        sys.path.remove(here)
    factory = getattr(module, name, None)
    if not callable(factory):
        known = [key for key, value in vars(module).items() if callable(value)]
        near = near_ones(name, known, *NEAR)
        raise ModelError(f"{module_name} has no function {name!r}{near}")
    takes_classes = "num_classes" in inspect.signature(factory).parameters

    def build(**options: int) -> Any:
        if options and not takes_classes:
            count = options["num_classes"]
            raise ModelError(f"{spec} takes no num_classes, so {count} cannot be asked for")
        try:
            inspect.signature(factory).bind(**options)
        except TypeError as error:
            raise ModelError(
                f"{spec} cannot be called: {error}; {_way_out(name, takes_classes)}"
            ) from error
        model = factory(**options)
        network = model.model if isinstance(model, LoadedModel) else model
        check_explainable(network, f"what {spec} returned")
        own = None if hasattr(network, "preprocessing") else own_preprocessing(network)
        return model if own is None or network is not model else LoadedModel(model, own, None, "")

    return Source(spec, build, None, None)


def _way_out(name: str, takes_classes: bool) -> str:
    """What to do about a factory that needs arguments."""
    weights = "name weights, whose last layer tells num_classes (--weights FILE), or "
    return (
        f"{weights if takes_classes else ''}write a function without arguments, "
        f"`def network(): return {name}(...)`, and name that one"
    )


# --- weights


def _load_weights(source: Source, file: Path, num_classes: int | None) -> LoadedModel:
    checkpoint = read_checkpoint(file)
    if num_classes is None:
        num_classes = _infer_classes(source, checkpoint)
    loaded = source.loaded(source.build_or_say_why(num_classes), "")
    network, note = source.take(loaded.model, checkpoint)
    about = f"{source.spec}, weights {file.name}{note}"
    return replace(loaded, model=network, description=about)


def _infer_classes(source: Source, checkpoint: Checkpoint) -> int | None:
    """The size of the last layer in a checkpoint, whatever the network calls it.

    Two networks are built, with 2 and 3 classes: where the first dimension of a tensor follows,
    there is the head. None if the network takes no number of classes, or the heads disagree.
    """
    try:
        two, three = (_skeleton(source, count) for count in (2, 3))
    except ModelError:
        return None
    state = checkpoint.fitted_to(two.keys()).state
    heads = {
        name
        for name in two.keys() & three.keys() & state.keys()
        if (two[name].shape[:1], three[name].shape[:1]) == ((2,), (3,))
    }
    sizes = {state[name].shape[0] for name in heads if state[name].ndim}
    return sizes.pop() if len(sizes) == 1 else None


def _skeleton(source: Source, num_classes: int) -> dict[str, Tensor]:
    try:
        with torch.device("meta"), Undrawn():  # takes no memory and no time
            model = source.build(num_classes)
    except ModelError:
        raise
    except Exception:  # a constructor that computes with its tensors, such as RegNet's
        model = source.build(num_classes)
    return (model.model if isinstance(model, LoadedModel) else model).state_dict()


def count_outputs(model: nn.Module, preprocessing: Preprocessing) -> int:
    """Number of outputs of a model, from one forward pass on a black image or volume.

    Raises:
        DataError: the model does not take images of that shape, or returns no logits.
        ModelError: its forward raised something else, or it takes volumes, or images where volumes
            are described.
    """
    inner = unwrap(model)
    check_dimensions(inner, preprocessing)
    image = black_image(inner, preprocessing)
    with torch.no_grad(), takes_shape(image):
        return as_logits(run_watched(inner, image, ())).shape[1]
