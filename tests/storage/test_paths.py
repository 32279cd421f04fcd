import pickle
from pathlib import Path

import fsspec
import pytest
from upath import UPath

from torchxnn.storage.paths import as_place, file_size, file_sizes, list_folder, read_bytes


@pytest.fixture
def bucket(tmp_path):
    """A folder in the memory of this process with a file, a hidden one and a folder."""
    url = f"memory://{tmp_path.name}"
    system = fsspec.filesystem("memory")
    for name in ("a #1?.bin", ".hidden", "sub/b.bin"):
        system.pipe_file(f"{url}/{name}", b"12345")
    yield as_place(url)
    system.rm(url, recursive=True)


def test_a_place_is_a_path_here_and_a_upath_elsewhere(tmp_path):
    for given in (tmp_path, str(tmp_path), f"file://{tmp_path}", f"local://{tmp_path}"):
        assert as_place(given) == tmp_path
        assert isinstance(as_place(given), Path)
    place = as_place("memory://folder/run/")
    assert isinstance(place, UPath)
    assert as_place(place) is place
    assert str(place / "names.json") == "memory://folder/run/names.json"
    assert pickle.loads(pickle.dumps(place)) == place


def test_listing_gives_sizes_and_folders(bucket, tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a #1?.bin", ".hidden"):
        (tmp_path / name).write_bytes(b"12345")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    expected = {"a #1?.bin": 5, ".hidden": 5, "sub": None}
    found = {entry.name: size for entry, size in list_folder(bucket).items()}
    assert found == expected
    assert {e.name: s for e, s in list_folder(tmp_path).items()} == expected | {"gone": 0}
    assert file_sizes(bucket) == {"a #1?.bin": 5, ".hidden": 5, "sub": 0}
    assert read_bytes(bucket / "a #1?.bin", 1, 3) == b"23"
    for place in (bucket, tmp_path):
        assert file_sizes(place / "nothing") == file_sizes(place / ".hidden") == {}
        assert (file_size(place / ".hidden"), file_size(place / "nothing")) == (5, 0)


def test_the_marker_of_a_folder_is_no_file_in_it(bucket, monkeypatch):
    whole = bucket.fs.ls(bucket.path, detail=True)
    marker = {"name": f"{bucket.path}/", "size": 0, "type": "file"}
    monkeypatch.setattr(type(bucket.fs), "ls", lambda *_, **__: [marker, *whole])
    assert bucket.name not in file_sizes(bucket)
