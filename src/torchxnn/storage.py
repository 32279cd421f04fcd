"""What a saved XNN looks like on disk: a folder with safetensors and a versioned JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from torchxnn.errors import ModelError
from torchxnn.files import replace_folder
from torchxnn.location import Location, as_location, child, file_sizes, read_bytes, write_bytes
from torchxnn.version import __version__

FORMAT, FORMAT_VERSION = "torchxnn.xnn", 1
MARKER, WEIGHTS = "xnn.json", "embedding.safetensors"


def write_saved(path: Location, about: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write a saved XNN; the folder appears whole or not at all.

    In object storage, which has no folders, the JSON is put last and holds a checksum of the
    weights, so that whoever reads a mixture of two XNNs is told.

    Args:
        path: the folder, or a URL; an older saved XNN there is replaced.
        about: plain values, see `describe_xnn`.
        state: state dict of the embedding.

    Raises:
        FileExistsError: something else is at `path`.
    """
    path = as_location(path)
    weights = save({k: v.detach().cpu().contiguous() for k, v in state.items()})
    head = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {"torchxnn": __version__, "torch": torch.__version__},
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = to_json({**head, **about}).encode()
    if isinstance(path, Path):
        with replace_folder(path, MARKER) as folder:
            (folder / WEIGHTS).write_bytes(weights)
            (folder / MARKER).write_bytes(text)
        return
    there = file_sizes(path)
    if there and MARKER not in there and WEIGHTS not in there:
        raise FileExistsError(f"{path} exists and is no saved XNN; choose another name")
    write_bytes(child(path, WEIGHTS), [weights])
    write_bytes(child(path, MARKER), [text])


def to_json(values: Any) -> str:
    """JSON that every reader takes: NaN and infinity become null."""
    return json.dumps(_finite(values), indent=1, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_saved(path: Location) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The two parts of a saved XNN, checked.

    Raises:
        ModelError: there is none, it is broken, or its format is not known to this version.
    """
    about = read_about(path)
    file = child(as_location(path), WEIGHTS)
    try:
        weights = read_bytes(file)
        state = load(weights)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    expected = about.get("weights_sha256")  # not there in files of earlier versions
    if expected is not None and hashlib.sha256(weights).hexdigest() != expected:
        raise ModelError(f"{file} is damaged, or belongs to another XNN than {MARKER} beside it")
    return about, state


def read_about(path: Location) -> dict[str, Any]:
    """The JSON part of a saved XNN, checked.

    Raises:
        ModelError: see `read_saved`.
    """
    file = child(as_location(path), MARKER)
    try:
        about = json.loads(read_bytes(file).decode())
    except FileNotFoundError as error:
        raise ModelError(f"{path} is not a saved XNN: it holds no {MARKER}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ModelError(f"{file} was not written by XNN.save_pretrained")
    if about.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"{file} has format version {about.get('format_version')}, this torchxnn "
            f"({__version__}) reads version {FORMAT_VERSION}; use the version that wrote it: "
            f"{about.get('versions', {}).get('torchxnn', 'unknown')}"
        )
    return about
