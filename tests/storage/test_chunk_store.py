import json
import multiprocessing
import pickle
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from chunk_examples import ABOUT, content, fill, write_in_order
from torchxnn.errors import DataError
from torchxnn.storage.chunk_store import ChunkStore
from torchxnn.storage.tensor_file import encode_tensors


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "store")
    return f"memory://{tmp_path.name}/{random.random()}/store"


def same(tensors, others):
    return tensors.keys() == others.keys() and all(
        tensors[name].dtype == others[name].dtype and torch.equal(tensors[name], others[name])
        for name in tensors
    )


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_what_is_written_comes_back(place):
    store = ChunkStore.create(place, ABOUT, rows=10, chunk_rows=4, notes={"who": "me"})
    assert (store.chunks, store.missing()) == (3, [0, 1, 2])
    assert [list(store.span(2)), len(store.span(0))] == [[8, 9], 4]
    fill(store, [2, 0])
    assert store.missing() == [1]
    fill(store)
    again = ChunkStore.open(place)
    assert not again.missing()
    assert again.verify() == []
    assert (again.about, again.notes, again.rows) == (ABOUT, {"who": "me"}, 10)
    for chunk in range(3):
        assert same(again.read(chunk), content(store, chunk))
    assert list(again.read(1, ["label"])) == ["label"]
    assert torch.equal(again.read_part(1, "by_output", 2, 4), content(store, 1)["by_output"][2:4])
    for rows in ([3, 0, 0], [1], []):
        index = torch.tensor(rows, dtype=torch.int64)
        assert torch.equal(again.read_rows(0, "z", index), content(store, 0)["z"][index])
    assert same(pickle.loads(pickle.dumps(again)).read(1), content(store, 1))


@settings(max_examples=40)
@given(
    shapes=st.lists(st.lists(st.integers(1, 4), max_size=3), min_size=1, max_size=4),
    dtypes=st.lists(
        st.sampled_from(
            [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
        ),
        min_size=4,
        max_size=4,
    ),
    rows=st.integers(1, 5),
)
def test_every_shape_and_precision_is_a_safetensors_file(tmp_path_factory, shapes, dtypes, rows):
    folder = tmp_path_factory.mktemp("store")
    tensors = {
        f"t{i}": (torch.arange(rows * torch.Size(shape).numel()) % 3).reshape(rows, *shape).to(kind)
        for i, (shape, kind) in enumerate(zip(shapes, dtypes, strict=False))
    }
    store = ChunkStore.create(folder / "local", {}, rows, rows)
    remote = ChunkStore.create(f"memory://{folder.name}", {}, rows, rows)
    for each in (store, remote):
        each.write(0, tensors)
        assert same(each.read(0), tensors)
    assert same(load_file(folder / "local" / "chunk-000000.safetensors"), tensors)


def test_mapped_tensors_do_not_change_the_file(tmp_path):
    store = ChunkStore.create(tmp_path / "store", ABOUT, 4, 4)
    fill(store)
    store.read(0)["label"].zero_()
    assert store.verify() == []
    assert same(store.read(0), content(store, 0))


def test_another_store_is_refused_with_what_differs(place):
    fill(ChunkStore.create(place, ABOUT, 10, 4, notes={"a": 1}))
    same_again = ChunkStore.create(place, ABOUT, 10, 4, notes={"a": 2})
    assert not same_again.missing()
    assert same_again.notes == {"a": 1}
    other = {"model": {"name": "b", "size": (1, 2)}, "share": 0.5}
    with pytest.raises(DataError, match=r'model\.name is "a", not "b"\. Choose another folder'):
        ChunkStore.create(place, other, 10, 4)
    with pytest.raises(DataError, match="rows is 10, not 11"):
        ChunkStore.create(place, ABOUT, 11, 4)
    with pytest.raises(DataError, match="chunk_rows is 4, not 5"):
        ChunkStore.create(place, ABOUT, 10, 5)
    with pytest.raises(DataError, match="extra is null, not 1"):
        ChunkStore.create(place, {**ABOUT, "extra": 1}, 10, 4)


def test_something_else_is_left_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(DataError, match=r"holds 'cat.jpg' but no manifest.json"):
        ChunkStore.create(tmp_path / "photos", ABOUT, 1, 1)
    with pytest.raises(DataError, match="is a file"):
        ChunkStore.create(tmp_path / "photos" / "cat.jpg", ABOUT, 1, 1)
    for place in (tmp_path / "photos", tmp_path / "photos" / "cat.jpg", tmp_path / "nothing"):
        with pytest.raises(DataError, match="is not a chunk store"):
            ChunkStore.open(place)
    assert list(files(tmp_path / "photos")) == ["cat.jpg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2, this torchxnn"),
        ({"format": "other"}, "is not a chunk store: its format"),
        ({"rows": 11}, "is damaged"),
        ({"about": {}}, "is damaged"),
    ],
)
def test_a_changed_manifest_is_refused(tmp_path, change, message):
    ChunkStore.create(tmp_path, ABOUT, 10, 4)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    for use in (ChunkStore.open, lambda place: ChunkStore.create(place, ABOUT, 10, 4)):
        with pytest.raises(DataError, match=message):
            use(tmp_path)


def test_a_cut_manifest_is_refused_at_every_byte(tmp_path):
    ChunkStore.create(tmp_path, {}, 1, 1)
    file = tmp_path / "manifest.json"
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError, match="is damaged"):
            ChunkStore.open(tmp_path)


@pytest.mark.parametrize(
    ("about", "rows", "chunk_rows"), [({}, 0, 1), ({}, 1, 0), ({"a": float("nan")}, 1, 1)]
)
def test_impossible_settings_are_refused(tmp_path, about, rows, chunk_rows):
    with pytest.raises(DataError, match=r"at least 1|plain finite"):
        ChunkStore.create(tmp_path, about, rows, chunk_rows)


def test_wrong_requests_are_refused(place):
    store = ChunkStore.create(place, ABOUT, 10, 4)
    with pytest.raises(DataError, match="chunks 0 to 2, not 3"):
        store.span(3)
    with pytest.raises(DataError, match=r"has 4 rows, 'z' has shape \(3, 2\)"):
        store.write(0, {"z": torch.zeros(3, 2)})
    with pytest.raises(TypeError, match="complex64"):
        store.write(0, {"z": torch.zeros(4, dtype=torch.complex64)})
    with pytest.raises(DataError, match="missing or not whole; run again"):
        store.read(0)
    fill(store)
    with pytest.raises(DataError, match="has no 'nothing', only"):
        store.read(0, ["nothing"])


def test_a_chunk_cut_at_any_byte_is_written_again_bit_by_bit(tmp_path):
    store = ChunkStore.create(tmp_path / "store", ABOUT, 6, 3)
    for chunk in (0, 1):
        store.write(chunk, {"z": content(store, chunk)["z"]})
    whole = files(store.location)
    file = store.location / "chunk-000001.safetensors"
    for length in range(len(whole[file.name])):
        file.write_bytes(whole[file.name][:length])
        fresh = ChunkStore.create(store.location, ABOUT, 6, 3)
        assert fresh.missing() == [1], f"cut to {length} bytes"
        assert store.missing() == [1]
        fresh.write(1, {"z": content(store, 1)["z"]})
        assert files(store.location) == whole
    file.write_bytes(whole[file.name] + b"x")
    assert store.missing() == [1]


def test_a_flipped_bit_anywhere_is_found(tmp_path):
    store = ChunkStore.create(tmp_path / "store", ABOUT, 3, 3)
    store.write(0, {"z": torch.arange(6.0).reshape(3, 2)})
    file = store.location / "chunk-000000.safetensors"
    whole = bytearray(file.read_bytes())
    padding = bytes(whole[8:]).index(b"}}") + 10  # spaces after the header mean nothing
    data = 8 + int.from_bytes(whole[:8], "little")
    for byte in [*range(padding), *range(data, len(whole))]:
        broken = bytearray(whole)
        broken[byte] ^= 4
        file.write_bytes(broken)
        fresh = ChunkStore.open(store.location)
        assert fresh.missing() == [0] or fresh.verify() == [0], f"byte {byte}"


def test_verify_finds_damage_and_the_chunk_is_written_again(place):
    store = ChunkStore.create(place, ABOUT, 10, 4)
    fill(store)
    broken = encode_tensors(content(store, 1, seed=9), {"chunk": "1", "store": store._key})
    good = encode_tensors(content(store, 1), {"chunk": "1", "store": store._key})
    mixed = b"".join([*good[:2], *broken[2:]])  # the right header before other data
    if place.startswith("memory"):
        import fsspec

        fsspec.filesystem("memory").pipe_file(f"{place}/chunk-000001.safetensors", mixed)
    else:
        (Path(place) / "chunk-000001.safetensors").write_bytes(mixed)
    assert not ChunkStore.open(place).missing()  # its size is right
    seen = []
    assert store.verify(seen.append) == [1]
    assert (seen, store.missing()) == ([0, 1, 2], [1])
    assert store.verify(chunks=[0, 2]) == []
    assert store.missing() == [1]
    assert store.verify(remove=True) == [1]
    assert ChunkStore.open(place).missing() == [1]
    fill(store)
    assert not store.missing()
    assert store.verify() == []


def test_a_chunk_of_another_store_does_not_count(tmp_path):
    one = ChunkStore.create(tmp_path / "one", ABOUT, 8, 4)
    two = ChunkStore.create(tmp_path / "two", {**ABOUT, "share": 0.6}, 8, 4)
    fill(one)
    names = ["chunk-000000.safetensors", "chunk-000001.safetensors"]
    (two.location / names[0]).write_bytes((one.location / names[0]).read_bytes())
    (one.location / names[1]).write_bytes((one.location / names[0]).read_bytes())
    assert ChunkStore.open(two.location).missing() == [0, 1]
    assert ChunkStore.open(one.location).missing() == [1]


def test_a_full_disk_says_what_to_do_and_leaves_whole_chunks(tmp_path, monkeypatch):
    store = ChunkStore.create(tmp_path / "store", ABOUT, 10, 4)
    fill(store, [0])
    before = files(store.location)

    def fail(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match=r"disk is full.*run the same again.*chunk-000001"):
            fill(store)
    assert files(store.location) == before
    fill(ChunkStore.create(tmp_path / "store", ABOUT, 10, 4))
    assert not store.missing()


def test_other_errors_of_the_disk_pass(tmp_path, monkeypatch):
    store = ChunkStore.create(tmp_path / "store", ABOUT, 10, 4)

    def fail(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=r"Input/output error$"):
        fill(store)


def test_left_over_temporary_files_are_ignored_and_cleaned(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".torchxnn-x.tmp").write_bytes(b"half a manifest")
    store = ChunkStore.create(tmp_path / "store", ABOUT, 10, 4)
    for chunk in (0, 1):
        (store.location / f".chunk-{chunk:06d}.x.tmp").write_bytes(b"half a chunk")
    assert store.missing() == [0, 1, 2]
    fill(store, [0])
    assert sorted(n for n in files(store.location) if n.startswith(".chunk")) == [
        ".chunk-000001.x.tmp"  # perhaps another process is at it
    ]
    fill(store)
    assert not [n for n in files(store.location) if n.startswith(".chunk")]


def test_unknown_storage_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"nosuch://x cannot be opened: Unsupported filesystem"):
        ChunkStore.create("nosuch://x", {}, 1, 1)
    for kind in ("file", "local"):
        store = ChunkStore.create(f"{kind}://{tmp_path}/a", {}, 1, 1)
        assert store.location == tmp_path / "a"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_writers_at_once_and_kills_at_random_moments(tmp_path):
    rows, place = 120, tmp_path / "killed"
    expected = ChunkStore.create(tmp_path / "expected", ABOUT, rows, 1)
    fill(expected)
    draw = random.Random(0)
    context = multiprocessing.get_context("fork")

    def start(folder, backwards):
        writer = context.Process(target=write_in_order, args=(folder, rows, backwards))
        writer.start()
        return writer

    interrupted = 0
    for _ in range(6):
        shutil.rmtree(place, ignore_errors=True)
        enough = draw.randint(2, 40)
        writers = [start(place, backwards) for backwards in (False, True)]
        while len(list(place.glob("*"))) < enough and any(w.is_alive() for w in writers):
            time.sleep(draw.uniform(0, 0.002))
        for writer in writers:
            writer.kill()
            writer.join()
        store = ChunkStore.create(place, ABOUT, rows, 1)
        assert store.verify() == []
        interrupted += store.missing() != []
        for chunk in set(range(rows)) - set(store.missing()):
            assert same(store.read(chunk), content(store, chunk))
        fill(ChunkStore.create(place, ABOUT, rows, 1))
        ChunkStore.create(place, ABOUT, rows, 1)
        assert files(place) == files(expected.location)
    assert interrupted
    writers = [start(tmp_path / "both", backwards) for backwards in (False, True)]
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert files(tmp_path / "both") == files(expected.location)
