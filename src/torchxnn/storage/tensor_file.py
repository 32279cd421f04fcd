"""One safetensors file with a checksum: written in one pass, read in parts, mapped where local.

The format is safetensors: 8 bytes with the length of a JSON header, the header, the data. The
header's metadata carry `sha256`, over the header's entries and all data. Any safetensors reader can
open the files; ours checks the size before it believes one and never maps a file for writing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from torchxnn.errors import DataError
from torchxnn.storage.artifact import plain
from torchxnn.storage.files import replace_file
from torchxnn.storage.paths import Place, read_bytes

CHECKSUM = "sha256"
HEAD = 4096
"""Bytes that are read at first; most headers are shorter."""
FEW = 8
"""Up to a chunk's rows over this many, rows are read one by one."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class TensorFileHeader:
    """What a file says about itself.

    Attributes:
        entries: dtype, shape and data_offsets of every tensor, as safetensors has them.
        metadata: strings.
        start: where the data begin, in bytes from the start of the file.
        size: of the whole file in bytes.
    """

    entries: Mapping[str, Mapping[str, Any]]
    metadata: Mapping[str, str]
    start: int
    size: int


def encode_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> list[Any]:
    """The buffers of a file, in order; the same tensors give the same bytes.

    Raises:
        TypeError: a precision that the format does not have.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # aligned
    entries: dict[str, dict[str, Any]] = {}
    data = []
    end = 0
    for name in names:
        tensor = tensors[name].detach().cpu().contiguous()
        if tensor.dtype not in _NAMES:
            raise TypeError(f"{name!r} is {tensor.dtype}; use one of {', '.join(map(str, _NAMES))}")
        data.append(tensor.reshape(-1).view(torch.uint8).numpy().data)
        begin, end = end, end + data[-1].nbytes
        entries[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    digest = hashlib.sha256(_entry_bytes(entries))
    for part in data:
        digest.update(part)
    head = {"__metadata__": {**metadata, CHECKSUM: digest.hexdigest()}, **entries}
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *data]


def _entry_bytes(entries: Mapping[str, Mapping[str, Any]]) -> bytes:
    return json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()


def read_header(file: Place, size: int, head: bytes) -> TensorFileHeader | None:
    """The header of a file of so many bytes, which begins with `head`.

    None if the file is not whole or is something else.
    """
    if len(head) < 8:
        return None
    start = 8 + int.from_bytes(head[:8], "little")
    if start > size:
        return None
    if start > len(head):
        head = read_bytes(file, 0, start)
    try:
        content = json.loads(head[8:start])
        metadata = content.pop("__metadata__")
        end = max((entry["data_offsets"][1] for entry in content.values()), default=0)
        sound = all(_spans(entry) for entry in content.values()) and CHECKSUM in metadata
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return None
    if not sound or start + end != size:
        return None
    return TensorFileHeader(content, metadata, start, size)


def _spans(entry: Mapping[str, Any]) -> bool:
    begin, end = entry["data_offsets"]
    return end - begin == math.prod(entry["shape"]) * _DTYPES[entry["dtype"]].itemsize


def read_tensors(
    file: Place, header: TensorFileHeader, only: Collection[str] | None = None
) -> dict[str, Tensor]:
    """The tensors of a file, all or some of them.

    Local ones are mapped: pages are read when they are used, and changing such a tensor does not
    change the file. Remote ones are read, and of the file only what is asked for.

    Raises:
        KeyError: there is no tensor of that name.
    """
    names = list(header.entries if only is None else only)
    if isinstance(file, Path):
        with safe_open(file, "pt") as stream:
            return {name: stream.get_tensor(name) for name in names}
    return {name: read_tensor_part(file, header, name) for name in names}


def read_tensor_part(
    file: Place, header: TensorFileHeader, name: str, start: int = 0, stop: int | None = None
) -> Tensor:
    """One tensor from `start` to `stop` of its first dimension; read, not mapped.

    For small parts that is far faster: a mapped page brings megabytes around it along.
    """
    entry = header.entries[name]
    begin, end = (header.start + offset for offset in entry["data_offsets"])
    shape = list(entry["shape"])
    if shape:
        first, last, _ = slice(start, stop).indices(shape[0])
        size = (end - begin) // max(1, shape[0])
        begin, end, shape[0] = begin + first * size, begin + last * size, last - first
    content = np.frombuffer(bytearray(read_bytes(file, begin, end) if end > begin else b""), "u1")
    return torch.from_numpy(content).view(_DTYPES[entry["dtype"]]).view(shape)


def read_tensor_rows(file: Place, header: TensorFileHeader, name: str, rows: Tensor) -> Tensor:
    """Rows of one tensor in the given order; a few of many are read one by one."""
    shape = header.entries[name]["shape"]
    if not isinstance(file, Path) or len(rows) * FEW >= shape[0]:
        return read_tensors(file, header, [name])[name][rows]
    begin, end = (header.start + offset for offset in header.entries[name]["data_offsets"])
    size = (end - begin) // shape[0]
    content = np.empty((len(rows), size), np.uint8)
    with file.open("rb", buffering=0) as stream:
        for place, row in enumerate(rows.tolist()):
            stream.seek(begin + row * size)
            stream.readinto(content[place].data)
    dtype = _DTYPES[header.entries[name]["dtype"]]
    return torch.from_numpy(content.reshape(-1)).view(dtype).view(len(rows), *shape[1:])


def checksum_holds(file: Place, header: TensorFileHeader) -> bool:
    """Whether the data of a file are what was written."""
    digest = hashlib.sha256(_entry_bytes(header.entries))
    if isinstance(file, Path):
        with file.open("rb", buffering=0) as stream:
            stream.seek(header.start)
            while block := stream.read(2**20):
                digest.update(block)
    else:
        digest.update(read_bytes(file, header.start))
    return digest.hexdigest() == header.metadata[CHECKSUM]


def write_tensors(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write a few tensors to a file of this machine, which appears whole or not at all.

    The plain values `about` them stand in the metadata of the safetensors file, by name.
    """
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    replace_file(file, save(whole, {name: json.dumps(plain(v)) for name, v in about.items()}))


def open_tensors(
    file: Path, only: Collection[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_tensors` wrote: the tensors, all or some of them, and the values about them.

    Raises:
        DataError: the file cannot be read, or has no tensor of that name.
    """
    try:
        with safe_open(file, "pt") as stream:
            about = {name: json.loads(text) for name, text in (stream.metadata() or {}).items()}
            names = stream.keys() if only is None else only
            return {name: stream.get_tensor(name) for name in names}, about
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read ({error}); delete it, and it is made again"
        ) from error
