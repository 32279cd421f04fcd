"""Arguments of the command line that are written in a way of their own."""

from __future__ import annotations

import re
from types import NoneType
from typing import get_args

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from torchxnn.models.config import Size

ARGUMENTS = ConstructorRegistry()
"""How the parser reads arguments whose type says too little."""


@ARGUMENTS.primitive_rule
def read_size(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Size | None] | None:
    """A size in pixels: 224 for a square, 16x64 for a height of 16 and a width of 64."""
    if set(get_args(kind.type)) - {NoneType} != set(get_args(Size)):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PIXELS|HEIGHTxWIDTH",
        instance_from_str=lambda texts: _parse_size(texts[0]),
        is_instance=lambda value: value is None or isinstance(value, int | tuple),
        str_from_instance=lambda size: [_write_size(size)],
    )


def _parse_size(text: str) -> Size | None:
    if text == "None":
        return None
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if found is None:
        raise ValueError(f"a size is 224 or 16x64 (height x width), got {text!r}")
    height, width = found.groups()
    return int(height) if width is None else (int(height), int(width))


def _write_size(size: Size | None) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)
