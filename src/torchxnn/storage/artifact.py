"""How torchxnn writes and reads JSON, and what the files that it opens by format say of themselves.

Those start with a head: the format, the version of the format, and the versions of the packages
that wrote the file. All others are plain values (`to_json`). Values become plain on the way out
(`plain`) and frozen dataclasses again on the way in (`structure`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, TypeVar, final, get_args, get_origin

import numpy as np
import torch
from cattrs import BaseValidationError, Converter, transform_error
from cattrs.errors import ForbiddenExtraKeysError
from torch import Tensor

from torchxnn.errors import DataError, XNNError
from torchxnn.storage.paths import Place, read_bytes

__version__ = version("torchxnn")

T = TypeVar("T")


@final
@dataclass(frozen=True)
class Format:
    """A kind of JSON file.

    Attributes:
        name: such as "torchxnn.xnn"; stands in the file.
        version: the only one that is written and read.
        what: the file in an error message, such as "a saved XNN".
        error: what is raised about a file that cannot be used.
    """

    name: str
    version: int
    what: str
    error: type[XNNError] = DataError

    def encode(self, values: Mapping[str, Any]) -> bytes:
        """The bytes of a file: the head, then the values, made plain."""
        head = {
            "format": self.name,
            "format_version": self.version,
            "versions": {"torchxnn": __version__, "torch": torch.__version__},
        }
        return to_json({**head, **values})

    def read(self, file: Place) -> dict[str, Any]:
        """The values of a file, with its head, which is checked.

        Raises:
            XNNError: of the kind `error`, if the file is not there, cannot be read, is of another
                format or of another version of it.
        """
        try:
            content = read_bytes(file)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self.error(
                f"{file.parent} is not {self.what}: it holds no {file.name}"
            ) from error
        except OSError as error:
            raise self.error(f"{file} cannot be read: {error}") from error
        return self.decode(content, file)

    def decode(self, content: bytes, file: Place) -> dict[str, Any]:
        """The same of bytes that were read already; `file` says where they come from."""
        try:
            values = json.loads(content.decode())
        except (ValueError, RecursionError) as error:
            raise self.error(
                f"{file} cannot be read, it is damaged: {error}; restore it from a copy, or remove "
                "it and write it anew"
            ) from error
        if not isinstance(values, dict) or values.get("format") != self.name:
            found = values.get("format") if isinstance(values, dict) else None
            raise self.error(f"{file} is not {self.what}: its format is {found!r}")
        found = values.get("format_version", values.get("version"))  # older files say "version"
        if found != self.version:
            raise self.error(
                f"{file} has format version {found}, this torchxnn ({__version__}) reads version "
                f"{self.version}; use the version that wrote it: "
                f"{values.get('versions', {}).get('torchxnn', 'unknown')}"
            )
        return values


def to_json(values: Any) -> bytes:
    """JSON in UTF-8 that every reader takes, and that brings back the same texts.

    A lone surrogate, which file names hold that are no UTF-8, is written as its escape.
    """
    text = json.dumps(plain(values), indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode(errors="backslashreplace")


def plain(value: Any) -> Any:
    """Values as JSON knows them.

    Dataclasses and mappings become dictionaries with texts as keys; tuples, arrays and tensors
    become lists; paths become texts. NaN and infinity, which JSON lacks, become None.
    """
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        value = value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def structure(values: Any, kind: type[T], what: str) -> T:
    """A frozen dataclass, with those inside it, from what `plain` made of it: values by field.

    A missing value takes its default. None in the place of a number is NaN. A tensor of numbers is
    in float32; one that was not made plain stays as it is. `what` names the values in an error
    message, such as the file that they come from.

    Raises:
        DataError: a value is missing without a default, has another type than the field, is out of
            range, or belongs to no field; the message names its place.
    """
    try:
        return _converter().structure(values, kind)
    except BaseValidationError as error:
        found = transform_error(error, path="", format_exception=_complaint)
        text = "; ".join(line.removesuffix(" @ ") for line in found)
        raise DataError(f"{what} is damaged: {text}") from error
    except (AttributeError, TypeError, ValueError) as error:  # no dictionary at all
        raise DataError(f"{what} is damaged: {error}") from error


@cache
def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _exactly)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is Literal, _choice)
    converter.register_structure_hook_func(lambda kind: hasattr(kind, "array_type"), _array)
    converter.register_structure_hook_func(_is_size, _size)
    converter.register_structure_hook_func(_is_word_or_number, _word_or_number)
    return converter


def _exactly(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"got {value!r} in the place of {kind.__name__}")
    return value


def _number(value: Any, _: type) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"got {value!r} in the place of a number")
    return float(value)


def _choice(value: Any, kind: Any) -> Any:
    if value not in get_args(kind):
        raise ValueError(f"got {value!r} in the place of {' or '.join(map(repr, get_args(kind)))}")
    return value


def _is_word_or_number(kind: Any) -> bool:
    """Whether a field is one of some words, or a whole number, or None."""
    members = get_args(kind)
    return int in members and any(get_origin(each) is Literal for each in members)


def _word_or_number(value: Any, kind: Any) -> Any:
    if value is None and type(None) in get_args(kind):
        return None
    words = [word for each in get_args(kind) for word in get_args(each)]
    if value in words or type(value) is int:
        return value
    raise ValueError(f"got {value!r} in the place of {' or '.join(map(repr, words))} or a number")


def _is_size(kind: Any) -> bool:
    """Whether a field is one whole number, or a tuple of several."""
    inside = get_args(kind)
    return (
        int in inside
        and get_origin(kind) is not tuple
        and len(inside) > 1
        and all(
            get_origin(each) is tuple and set(get_args(each)) == {int}
            for each in inside
            if each is not int
        )
    )


def _size(value: Any, kind: Any) -> int | tuple[int, ...]:
    lengths = {len(get_args(each)) for each in get_args(kind)}
    if isinstance(value, (list, tuple)) and len(value) in lengths:
        return tuple(_exactly(side, int) for side in value)
    return int(_exactly(value, int))


def _array(value: Any, _: Any) -> Tensor | np.ndarray:
    if isinstance(value, (Tensor, np.ndarray)):
        return value
    return torch.tensor(value, dtype=torch.float32)


def _complaint(error: BaseException, _: Any) -> str:
    match error:
        case ForbiddenExtraKeysError():
            return f"nobody knows {', '.join(sorted(error.extra_fields))}"
        case KeyError():
            return f"{error} is missing"
    return str(error) or repr(error)


def digest(values: Any) -> str:
    """SHA-256 of plain values: what a file or a finished job belongs to."""
    return hashlib.sha256(json.dumps(plain(values), sort_keys=True).encode()).hexdigest()


def differences(found: Any, wanted: Any, name: str = "") -> list[str]:
    """What differs between two plain values, such as the settings of a run that is to go on.

    `name` is that of both; empty for dictionaries whose entries speak for themselves.

    Returns:
        For each value that differs a text such as "its model.size is 3, not 4".
    """
    if isinstance(found, dict) and isinstance(wanted, dict):
        return [
            line
            for key in dict.fromkeys([*found, *wanted])
            for line in differences(
                found.get(key), wanted.get(key), f"{name}.{key}" if name else key
            )
        ]
    return [] if found == wanted else [f"its {name} is {_short(found)}, not {_short(wanted)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:40]} ... {text[-20:]}"
