"""What a saved XNN looks like on disk: a folder with safetensors and a versioned JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from torchxnn.errors import ModelError
from torchxnn.files import replace_folder
from torchxnn.version import __version__

FORMAT, FORMAT_VERSION = "torchxnn.xnn", 1
MARKER, WEIGHTS = "xnn.json", "embedding.safetensors"


def write_saved(path: Path, about: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write a saved XNN; the folder appears whole or not at all.

    Args:
        path: the folder; an older saved XNN there is replaced.
        about: plain values, see `XNN.save_pretrained`.
        state: state dict of the embedding.

    Raises:
        FileExistsError: something else is at `path`.
    """
    head = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "versions": {"torchxnn": __version__, "torch": torch.__version__},
    }
    with replace_folder(path, MARKER) as folder:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, folder / WEIGHTS)
        (folder / MARKER).write_text(to_json({**head, **about}), "utf-8")


def to_json(values: Any) -> str:
    """JSON that every reader takes: NaN and infinity become null."""
    return json.dumps(_finite(values), indent=1, allow_nan=False)


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def read_saved(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The two parts of a saved XNN, checked.

    Raises:
        ModelError: there is none, it is broken, or its format is not known to this version.
    """
    about = read_about(path)
    try:
        return about, load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path / WEIGHTS} cannot be read: {error}") from error


def read_about(path: Path) -> dict[str, Any]:
    """The JSON part of a saved XNN, checked.

    Raises:
        ModelError: see `read_saved`.
    """
    file = path / MARKER
    try:
        about = json.loads(file.read_text("utf-8"))
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
