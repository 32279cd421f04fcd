"""`hf:NAME-OR-FOLDER`: image classifiers of transformers, from a folder or from the local cache.

transformers is imported when the first such network is asked for. Nothing is ever downloaded, and
no code of a repository is run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from torchxnn.errors import ModelError, XNNWarning
from torchxnn.models.caches import WEIGHTS, cached_in_repository
from torchxnn.models.checkpoints import Checkpoint, first_names, load_checkpoint
from torchxnn.models.image_processor import preprocessing_of
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.models.source import LoadedModel, Source

CONFIG = "config.json"
_NO_FILE = (OSError, ValueError)  # what transformers raises when a file is missing or not to be run


def find_hugging_face(spec: str, preprocessing: Preprocessing | None = None) -> Source:
    """A network of transformers that classifies images.

    Args:
        spec: `hf:NAME-OR-FOLDER`: a folder that `save_pretrained` wrote, or the name of a
            repository that lies in the local cache.
        preprocessing: how images become tensors; None asks the image processor.

    Raises:
        ModelError: transformers is not installed, there is no such folder or repository on this
            machine, it classifies no images, or its image processor cannot be followed.
    """
    name = spec.partition(":")[2]
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{spec} needs the package transformers: pip install 'torchxnn[huggingface]'"
        ) from error
    config = _read_config(transformers, spec, name)
    classifier = transformers.AutoModelForImageClassification
    if type(config) not in classifier._model_mapping:
        raise ModelError(
            f"{spec} is a {type(config).__name__.removesuffix('Config')}, of which transformers "
            "has no image classifier; name a network with a classification head"
        )

    def pretrained() -> LoadedModel | None:
        if not _has_weights(name):
            return None
        return source.loaded(_load(classifier, spec, name), "its own weights")

    build = partial(_build, classifier, config)
    chosen = preprocessing or _read_preprocessing(transformers, spec, name, config)
    source = Source(
        spec, build, chosen, pretrained, _fetch(name), _class_names, partial(_take, classifier)
    )
    return source


def lasting_name(spec: str) -> str:
    """The name under which a network is found from any folder: a local folder in full."""
    library, _, name = spec.partition(":")
    local = library == "hf" and Path(name).is_dir()
    return f"{library}:{Path(name).resolve()}" if local else spec


def _fetch(name: str) -> str:
    return f"transformers.AutoModelForImageClassification.from_pretrained({name!r})"


def _read_config(transformers: ModuleType, spec: str, name: str) -> Any:
    if Path(name).is_dir() and not (Path(name) / CONFIG).is_file():
        # Some versions would guess the network from the folder's name ("empty" holds "mpt").
        raise ModelError(f"the folder of {spec} holds no {CONFIG}; save_pretrained writes one")
    try:
        return transformers.AutoConfig.from_pretrained(name, local_files_only=True)
    except _NO_FILE as error:
        if Path(name).is_dir():
            raise ModelError(
                f"the folder of {spec} holds no usable {CONFIG}: {str(error).splitlines()[0]}"
            ) from error
        raise ModelError(
            f"{spec} is no folder, and no repository in the local cache; give a folder that "
            f"save_pretrained wrote, or fetch it once with transformers: {_fetch(name)} and "
            f"AutoImageProcessor.from_pretrained({name!r})"
        ) from error


def _build(classifier: Any, config: Any, num_classes: int | None = None) -> nn.Module:
    """The network with random weights, with another head if another number is asked for."""
    if num_classes is not None and num_classes != config.num_labels:
        kept = {k: v for k, v in config.to_dict().items() if k not in ("id2label", "label2id")}
        config = type(config).from_dict({**kept, "num_labels": num_classes})
    network: nn.Module = classifier.from_config(config, dtype=torch.float32)
    return network


def _has_weights(name: str) -> bool:
    """Whether weights lie in a folder, or in the cache under the name of a repository."""
    names = [*WEIGHTS, *(f"{each}.index.json" for each in WEIGHTS)]
    if Path(name).is_dir():
        return any((Path(name) / each).is_file() for each in names)
    return cached_in_repository(name, names) is not None


def _load(classifier: Any, spec: str, name: str) -> nn.Module:
    """The network with its weights, if they are all there: transformers would draw the rest."""
    try:
        with _without_progress_bar():
            network, about = classifier.from_pretrained(
                name, local_files_only=True, dtype=torch.float32, output_loading_info=True
            )
    except (*_NO_FILE, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"the weights of {spec} cannot be loaded: {reason}") from error
    bad = sorted({*about["missing_keys"], *(str(each[0]) for each in about["mismatched_keys"])})
    if bad:
        raise ModelError(
            f"the weights of {spec} lack {len(bad)} of the classifier's, which would be random: "
            f"{first_names(bad)}; name a network that was trained to classify, or give --weights "
            "FILE"
        )
    loaded: nn.Module = network
    return loaded


def _take(classifier: Any, network: nn.Module, checkpoint: Checkpoint) -> tuple[nn.Module, str]:
    """A network with the weights of a file, also by the names that transformers writes to files."""
    found = checkpoint.fitted_to(network.state_dict().keys())
    if found.state.keys() != network.state_dict().keys():
        config: Any = network.config
        with TemporaryDirectory() as folder, _without_progress_bar():
            config.save_pretrained(folder)
            state = {name: value.clone() for name, value in found.state.items()}
            save_file(state, Path(folder) / WEIGHTS[0], metadata={"format": "pt"})
            taken, about = classifier.from_pretrained(
                folder,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        if not any(about[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched")):
            return taken, found.note
    return network, load_checkpoint(network, checkpoint)


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _class_names(network: nn.Module) -> tuple[str, ...] | None:
    """The names of `id2label` in the order of the outputs, if somebody gave any."""
    config: Any = network.config
    names = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    outputs = range(config.num_labels)
    if len(outputs) < 2 or set(names) != set(outputs):
        return None
    if all(names[index] == f"LABEL_{index}" for index in outputs):
        return None
    return tuple(names[index] for index in outputs)


def _read_preprocessing(
    transformers: ModuleType, spec: str, name: str, config: Any
) -> Preprocessing:
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(name, local_files_only=True)
    except (*_NO_FILE, ImportError):
        size = getattr(config, "image_size", None)
        taken = Preprocessing(size=size) if isinstance(size, int) else Preprocessing()
        warnings.warn(
            f"{spec} comes without a usable image processor (preprocessor_config.json), so nobody "
            f"knows how its images are prepared: taking {taken.size} x {taken.size} pixels and "
            "ImageNet's mean and spread; save the processor beside the weights",
            XNNWarning,
            stacklevel=5,
        )
        return taken
    return preprocessing_of(processor, spec)
