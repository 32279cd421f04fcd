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
    """A size in pixels: 224 for a square, 16x64 for height and width, 32x64x64 for a volume."""
    if set(get_args(kind.type)) - {NoneType} != set(get_args(Size)):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="PIXELS|[DEPTHx]HEIGHTxWIDTH",
        instance_from_str=lambda texts: _parse_size(texts[0]),
        is_instance=lambda value: value is None or isinstance(value, int | tuple),
        str_from_instance=lambda size: [_write_size(size)],
    )


def _parse_size(text: str) -> Size | None:
    if text == "None":
        return None
    if re.fullmatch(r"\d+(x\d+){0,2}", text) is None:
        raise ValueError(
            "a size is 224, 16x64 (height x width) or 32x64x64 (depth x height x width), got "
            f"{text!r}"
        )
    match tuple(int(side) for side in text.split("x")):
        case (depth, height, width):
            return depth, height, width
        case (height, width):
            return height, width
    return int(text)


def _write_size(size: Size | None) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)
