"""What a saved XNN looks like on disk: a folder with safetensors and a versioned JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from torchxnn.errors import ModelError
from torchxnn.storage.artifact import Format
from torchxnn.storage.files import replace_folder
from torchxnn.storage.paths import Location, as_place, file_sizes, read_bytes, write_bytes

FORMAT = Format("torchxnn.xnn", 1, "a saved XNN", ModelError)
MARKER, WEIGHTS = "xnn.json", "embedding.safetensors"


def encode_weights(state: Mapping[str, Tensor]) -> tuple[bytes, str]:
    """The weights' file of a state dict, and its checksum, by which names know their XNN."""
    weights = save({name: value.detach().cpu().contiguous() for name, value in state.items()})
    return weights, hashlib.sha256(weights).hexdigest()


def write_saved(
    path: Location,
    about: Mapping[str, Any],
    state: Mapping[str, Tensor],
    beside: Mapping[str, bytes] | None = None,
) -> None:
    """Write a saved XNN; the folder appears whole or not at all.

    In object storage, which has no folders, the JSON is put last and holds a checksum of the
    weights, so that whoever reads a mixture of two XNNs is told. An older saved XNN is replaced; on
    this machine, what else lay in the folder is gone. For the plain values `about` it see
    `describe_xnn`; `state` is the state dict of the embedding, `beside` further files by name.

    Raises:
        FileExistsError: something else is at `path`.
    """
    path = as_place(path)
    weights, digest = encode_weights(state)
    text = FORMAT.encode({"weights_sha256": digest, **about})
    files = {**(beside or {}), WEIGHTS: weights, MARKER: text}
    if isinstance(path, Path):
        with replace_folder(path, MARKER) as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)
        return
    there = file_sizes(path)
    if there and MARKER not in there and WEIGHTS not in there:
        raise FileExistsError(f"{path} exists and is no saved XNN; choose another name")
    for name, content in files.items():
        write_bytes(path / name, [content])


def read_saved(path: Location) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The two parts of a saved XNN, checked; the first has "weights_sha256" in any case.

    Raises:
        ModelError: there is none, it is broken, or its format is not known to this version.
    """
    about = read_about(path)
    file = as_place(path) / WEIGHTS
    try:
        weights = read_bytes(file)
        state = load(weights)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file} cannot be read: {error}") from error
    expected = about.get("weights_sha256")  # not there in files of earlier versions
    found = hashlib.sha256(weights).hexdigest()
    if expected is not None and found != expected:
        raise ModelError(f"{file} is damaged, or belongs to another XNN than {MARKER} beside it")
    return {**about, "weights_sha256": found}, state


def read_about(path: Location) -> dict[str, Any]:
    """The JSON part of a saved XNN, checked.

    Raises:
        ModelError: see `read_saved`.
    """
    return FORMAT.read(as_place(path) / MARKER)
