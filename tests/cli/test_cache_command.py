import gc
import random
import weakref
from pathlib import Path

import fsspec
import pytest
import torch
from torch.utils.data import TensorDataset

from cli_examples import fails, small_network, text_of, write_letters
from conftest import make_images
from killing import kill_midway
from torchxnn.cli.main import main
from torchxnn.data.activation_cache import ActivationCache
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.record import cache_activations
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing
from torchxnn.parallel.engine import LocalEngine

SMALL = Preprocessing(size=12, resize="squash")


@pytest.fixture
def folder(tmp_path):
    return write_letters(tmp_path / "images")


def command(data, out, *more, model="cli_examples:small_network"):
    return ["cache", model, str(data), "--layer", "classifier.1", "features.3",
            "--out", str(out), "--images-per-pass", "5", "--chunk-rows", "10", *more]  # fmt: skip


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_folder_becomes_a_cache_with_all_that_a_fit_needs(folder, tmp_path, capsys):
    assert main(command(folder, tmp_path / "cache", "--dtype", "float16")) == 0
    out, _ = text_of(capsys)
    assert "64 images, 4 outputs" in out
    assert "8 x 5 x 5" in out
    assert "with labels" in out
    cache = ActivationCache.open(tmp_path / "cache")
    assert (cache.layers, cache.dtype) == (("classifier.1", "features.3"), torch.float16)
    assert cache.class_names == ("a", "b", "c", "d")
    assert cache.preprocessing == SMALL
    assert cache.source is not None
    assert cache.source["model"] == "cli_examples:small_network"
    assert (cache.source["weights"], cache.source["random_weights"]) == (None, False)
    assert torch.equal(cache.labels, torch.tensor(ImageFolder(folder, SMALL).labels))
    before = files(tmp_path / "cache")
    assert main(command(folder, tmp_path / "cache", "--dtype", "float16")) == 0
    assert files(tmp_path / "cache") == before
    capsys.readouterr()
    line = fails(capsys, *command(folder, tmp_path / "cache"))
    assert 'its dtype is "float16", not "float32"' in line
    (folder / "a" / "0.png").unlink()
    line = fails(capsys, *command(folder, tmp_path / "cache", "--dtype", "float16"))
    assert "data.names is" in line


@pytest.mark.slow
def test_several_processes_record_the_same_bits(folder, tmp_path):
    assert main(command(folder, tmp_path / "alone")) == 0
    assert main(command(folder, tmp_path / "jobs", "--jobs", "2")) == 0
    assert files(tmp_path / "jobs") == files(tmp_path / "alone")


def test_copies_are_recorded_with_what_is_held_out(folder, tmp_path, capsys):
    assert main(command(folder, tmp_path / "cache", "--copies", "2", "--held-out", "0.25")) == 0
    assert "48 of the images are held out" in text_of(capsys)[0]
    cache = ActivationCache.open(tmp_path / "cache")
    assert len(cache) == 64 * 3
    assert int(cache.held_out.sum()) == 48
    line = fails(capsys, *command(folder, tmp_path / "cache", "--copies", "2", "--seed", "1"))
    assert "data.held_out is 0.25, not 0.2; its data.seed is 0, not 1" in line
    assert "at least 1" in fails(capsys, *command(folder, tmp_path / "x", "--copies", "-1"))


def test_verify_records_damaged_chunks_again(folder, tmp_path, capsys):
    place = tmp_path / "cache"
    assert "no cache at" in fails(capsys, *command(folder, place, "--verify"))
    assert main(command(folder, place)) == 0
    before = files(place)
    broken = bytearray(before["chunk-000003.safetensors"])
    broken[-1] ^= 1
    (place / "chunk-000003.safetensors").write_bytes(broken)
    assert main(command(folder, place)) == 0  # not seen without asking
    capsys.readouterr()
    assert main(command(folder, place, "--verify")) == 0
    assert "1 damaged chunk(s) were recorded again" in text_of(capsys)[1]
    assert files(place) == before
    assert main(command(folder, place, "--verify")) == 0
    assert "damaged" not in text_of(capsys)[1]


def test_a_full_disk_is_one_line(folder, tmp_path, capsys, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    assert main(command(folder, tmp_path / "cache")) == 0
    before = files(tmp_path / "cache")
    (tmp_path / "cache" / "chunk-000001.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        line = fails(capsys, *command(folder, tmp_path / "cache"))
    assert "disk is full" in line
    assert "run the same again" in line
    assert main(command(folder, tmp_path / "cache")) == 0
    assert files(tmp_path / "cache") == before


def test_unreadable_caches_are_one_line(folder, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    assert "holds 'cat.jpg'" in fails(capsys, *command(folder, tmp_path / "photos"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "manifest.json").write_text('{"format"')
    assert "is damaged" in fails(capsys, *command(folder, tmp_path / "cache"))
    assert "does not exist" in fails(capsys, *command(tmp_path / "nothing", tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.fixture
def bucket(folder, tmp_path):
    """The folder's files in the memory of this process, under a URL."""
    url = f"memory://{tmp_path.name}-bucket"
    system = fsspec.filesystem("memory")
    for file in folder.rglob("*.png"):
        system.pipe_file(f"{url}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    yield url
    system.rm(url, recursive=True)


def test_images_and_cache_in_object_storage_give_the_same_numbers(folder, bucket, tmp_path, capsys):
    assert main(command(folder, tmp_path / "cache")) == 0
    assert main(command(bucket, f"{bucket}-cache")) == 0
    local, remote = (ActivationCache.open(p) for p in (tmp_path / "cache", f"{bucket}-cache"))
    assert remote.class_names == local.class_names
    assert torch.equal(remote.labels, local.labels)
    assert torch.equal(remote.column(2), local.column(2))
    rows = torch.tensor([63, 1, 30])
    for layer in local.layers:
        assert torch.equal(remote.read(layer, rows), local.read(layer, rows))
    system, name = fsspec.filesystem("memory"), f"{bucket}/a/12.png"
    system.pipe_file(name, system.cat_file(name) + b"\0")
    assert "data.file_sizes is" in fails(capsys, *command(bucket, f"{bucket}-cache"))
    assert "layout of cub, which is read from local" in fails(
        capsys, *command(bucket, f"{bucket}-x", "--layout", "cub")
    )


def test_an_image_folder_in_object_storage_is_like_a_local_one(folder, bucket):
    system = fsspec.filesystem("memory")
    system.pipe_file(f"{bucket}/a/broken.png", b"no picture")
    system.pipe_file(f"{bucket}/a/.hidden.png", b"")
    with pytest.warns(
        UserWarning, match=r"1 of 65 images could not be read.*a/broken.png \(not an"
    ):
        remote = ImageFolder(bucket, SMALL)
    local = ImageFolder(folder, SMALL)
    assert (remote.classes, remote.paths, remote.labels) == (
        local.classes,
        local.paths,
        local.labels,
    )
    assert remote.name == bucket.removeprefix("memory://")
    assert torch.equal(remote[17].image, local[17].image)
    assert remote.file(0) is None
    assert len(ImageFolder(bucket, SMALL, labelled=False, check=False)) == 65
    for url, message in (
        (f"{bucket}/nothing", "does not exist"),
        (f"{bucket}/a/0.png", "is not a folder"),
        (f"{bucket}/a", "has images but no class folders"),
    ):
        with pytest.raises(DataError, match=message):
            ImageFolder(url, SMALL)
    system.rm(f"{bucket}/{remote.paths[5]}")
    with pytest.raises(DataError, match=r"cannot read the image memory://.*no such file"):
        remote[5]


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bits(folder, tmp_path):
    expected, place = tmp_path / "expected", tmp_path / "cache"
    assert main(command(folder, expected, "--chunk-rows", "1")) == 0
    arguments = command(folder, place, "--chunk-rows", "1")
    enough = random.Random(0).randint(5, 30)
    run = ["-m", "torchxnn.cli", *arguments]
    assert kill_midway(run, place, "chunk*.safetensors", enough, 64)
    assert main(arguments) == 0
    assert files(place) == files(expected)


def test_an_engine_records_the_same_bits(tmp_path):
    data = TensorDataset(*make_images(20))
    net = small_network()
    for name, engine in (("alone", None), ("one", LocalEngine(1))):
        seen = []
        options = {"chunk_rows": 6, "batch_size": 4, "engine": engine, "on_images": seen.append}
        cache_activations(net, "classifier.1", data, tmp_path / name, **options)
        assert sum(seen) == 20
    assert files(tmp_path / "one") == files(tmp_path / "alone")
    model = weakref.ref(net)
    del net
    gc.collect()
    assert model() is None, "something of the recording keeps the network"
