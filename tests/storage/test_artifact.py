import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from torchxnn.errors import DataError, ModelError
from torchxnn.storage.artifact import Format, differences, plain, structure, to_json

FORMAT = Format("torchxnn.example", 3, "an example", ModelError)


@dataclass(frozen=True)
class Inner:
    size: int
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError(f"size must be positive, got {self.size}")


@dataclass(frozen=True)
class Outer:
    r2: float
    names: tuple[str, ...]
    inner: Inner = Inner(1)
    bound: float | None = None
    rows: tuple[tuple[int, ...], ...] = ()


def test_a_file_says_what_it_is_and_comes_back(tmp_path):
    file = tmp_path / "example.json"
    file.write_bytes(FORMAT.encode({"size": 3}))
    found = FORMAT.read(file)
    assert (found["format"], found["format_version"], found["size"]) == ("torchxnn.example", 3, 3)
    assert set(found["versions"]) == {"torchxnn", "torch"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"is not an example: it holds no example\.json"),
        ("{", "cannot be read, it is damaged"),
        (b"\xff", "cannot be read, it is damaged"),
        ("[]", "is not an example: its format is None"),
        ('{"format": "other"}', "is not an example: its format is 'other'"),
        (
            '{"format": "torchxnn.example", "format_version": 4, "versions": {"torchxnn": "9.1"}}',
            r"format version 4, this torchxnn \(.*\) reads version 3; use the .* wrote it: 9\.1",
        ),
    ],
)
def test_what_cannot_be_used_is_named_and_why(tmp_path, content, message):
    file = tmp_path / "example.json"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=message):
        FORMAT.read(file)
    with pytest.raises(ModelError, match="cannot be read"):
        FORMAT.read(tmp_path)


def test_files_of_before_say_version(tmp_path):
    file = tmp_path / "example.json"
    file.write_text('{"format": "torchxnn.example", "version": 3}')
    assert FORMAT.read(file)["version"] == 3


def test_plain_values():
    values = {
        1: (1.5, math.nan, -math.inf),
        "array": np.array([[1, 2]]),
        "number": np.float32(0.5),
        "tensor": torch.tensor([1.0, math.nan]),
        "path": Path("a/b"),
        "inner": Inner(2),
        "none": None,
    }
    assert plain(values) == {
        "1": [1.5, None, None],
        "array": [[1, 2]],
        "number": 0.5,
        "tensor": [1.0, None],
        "path": "a/b",
        "inner": {"size": 2, "kind": "a"},
        "none": None,
    }
    with pytest.raises(TypeError):
        to_json(object())


def test_every_text_comes_back_and_stays_readable():
    text = "Vögel \udcff \N{SNOWMAN} \ud83d"  # file names that are no UTF-8 have lone surrogates
    content = to_json(text)
    assert json.loads(content.decode()) == text
    assert "Vögel".encode() in content


def test_dataclasses_come_back():
    outer = Outer(0.5, ("a", "b"), Inner(2, "b"), 1.0, ((1, 2), ()))
    assert structure(json.loads(to_json(outer)), Outer, "it") == outer
    assert structure({"r2": 1, "names": []}, Outer, "it") == Outer(1.0, ())
    assert math.isnan(structure({"r2": None, "names": []}, Outer, "it").r2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a", 3]}, "file.json is damaged: got 3 in the place of str @ .names"),
        ({"inner": {}}, "'size' is missing @ .inner"),
        ({"inner": {"size": 0}}, "size must be positive, got 0 @ .inner"),
        ({"inner": {"size": True}}, "got True in the place of int @ .inner.size"),
        ({"inner": {"size": 1, "kind": "c"}}, "got 'c' in the place of 'a' or 'b'"),
        ({"inner": {"size": 1, "colour": 2}}, "nobody knows colour @ .inner"),
        ({"bound": "x"}, "got 'x' in the place of a number"),
        ({"rows": 3}, "is damaged"),
    ],
)
def test_damage_is_named_with_its_place(change, message):
    values = {"r2": 1.0, "names": ["a"], "inner": {"size": 1}}
    with pytest.raises(DataError) as caught:
        structure({**values, **change}, Outer, "file.json")
    assert message in str(caught.value)
    for other in (None, [], "text"):
        with pytest.raises(DataError, match=r"file\.json is damaged"):
            structure(other, Outer, "file.json")


def test_differences_go_down_to_single_settings():
    found = {"model": {"size": 3, "name": "a"}, "share": 0.5}
    assert differences(found, found) == []
    assert differences(found, {"model": {"size": 4, "name": "a"}, "extra": 1}) == [
        "its model.size is 3, not 4",
        "its share is 0.5, not null",
        "its extra is null, not 1",
    ]
    assert differences(3, 4, "rows") == ["its rows is 3, not 4"]
    assert len(differences("x" * 500, "y", "text")[0]) < 120
