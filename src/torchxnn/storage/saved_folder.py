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
from torchxnn.explanations.names.file import NAMES, encode_names, read_names, write_names
from torchxnn.explanations.names.judgements import FeatureNames
from torchxnn.storage.artifact import __version__
from torchxnn.storage.files import replace_folder
from torchxnn.storage.paths import Location, as_location, child, file_sizes, read_bytes, write_bytes

FORMAT, FORMAT_VERSION = "torchxnn.xnn", 1
MARKER, WEIGHTS = "xnn.json", "embedding.safetensors"


def write_saved(
    path: Location,
    about: Mapping[str, Any],
    state: Mapping[str, Tensor],
    names: FeatureNames | None = None,
) -> None:
    """Write a saved XNN; the folder appears whole or not at all.

    In object storage, which has no folders, the JSON is put last and holds a checksum of the
    weights, so that whoever reads a mixture of two XNNs is told.

    Args:
        path: the folder, or a URL; an older saved XNN there is replaced.
        about: plain values, see `describe_xnn`.
        state: state dict of the embedding.
        names: of its x-features; those that lie there for the same weights are kept, too.

    Raises:
        FileExistsError: something else is at `path`, or names that people gave to another fit.
    """
    path = as_location(path)
    weights = save({k: v.detach().cpu().contiguous() for k, v in state.items()})
    digest = hashlib.sha256(weights).hexdigest()
    head = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {"torchxnn": __version__, "torch": torch.__version__},
        "weights_sha256": digest,
    }
    text = to_json({**head, **about}).encode()
    check_names(path, digest)
    if isinstance(path, Path):
        with replace_folder(path, MARKER) as folder:
            (folder / WEIGHTS).write_bytes(weights)
            (folder / MARKER).write_bytes(text)
            together = _with_old_names(path, names, digest)
            if together is not None:
                (folder / NAMES).write_bytes(encode_names(together, digest))
        return
    there = file_sizes(path)
    if there and MARKER not in there and WEIGHTS not in there:
        raise FileExistsError(f"{path} exists and is no saved XNN; choose another name")
    write_bytes(child(path, WEIGHTS), [weights])
    write_bytes(child(path, MARKER), [text])
    if names is not None and (names.judgements or names.actions):
        write_names(path, names, digest)


def check_names(path: Location, digest: str | None = None) -> None:
    """Refuse to replace names that people gave; to be asked before long work, too.

    Args:
        path: where an XNN is to be saved.
        digest: checksum of its weights if they are known: names for the same weights are fine.

    Raises:
        FileExistsError: names of other x-features are there.
    """
    try:
        named = json.loads(read_bytes(child(as_location(path), NAMES)).decode())
    except (FileNotFoundError, NotADirectoryError):
        return
    except ValueError:
        named = {}
    if digest is None or named.get("embedding_sha256") != digest:
        raise FileExistsError(
            f"{path} holds names that people gave to x-features ({NAMES}), and another fit would "
            "replace them; save elsewhere and carry the names over with XNN.adopt_names, or move "
            "that file away"
        )


def _with_old_names(path: Path, names: FeatureNames | None, digest: str) -> FeatureNames | None:
    """The names to be kept: those that lie there and those that are new."""
    if (path / NAMES).is_file():
        n_features = json.loads((path / NAMES).read_text("utf-8"))["n_features"]
        old = read_names(path, digest, n_features)
        return old if names is None else old.union(names)
    return names if names is not None and (names.judgements or names.actions) else None


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
    """The two parts of a saved XNN, checked; the first has "weights_sha256" in any case.

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
    found = hashlib.sha256(weights).hexdigest()
    if expected is not None and found != expected:
        raise ModelError(f"{file} is damaged, or belongs to another XNN than {MARKER} beside it")
    return {**about, "weights_sha256": found}, state


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
