"""`xnn fit` of many classes, and from a cache."""

import json
import re

import pytest
import torch

from cli_examples import FAST, fails, text_of, write_letters
from torchxnn.cli.main import main
from torchxnn.storage.files import claimed
from torchxnn.storage.saved_folder import read_saved

MODEL = "cli_examples:small_network"


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    return write_letters(tmp_path_factory.mktemp("letters") / "images")


def command(folder, out, *more, model=MODEL):
    data = [] if folder is None else [folder]
    options = ["--layer", "classifier.1", "--out", out, *FAST, *more]
    return [str(each) for each in ["fit", model, *data, *options]]


def test_an_xnn_per_class(letters, tmp_path, capsys):
    out = tmp_path / "runs"
    assert main(command(letters, out, "--targets", "all")) == 0
    said, _ = text_of(capsys)
    assert "4 of 4 classes" in said
    folders = sorted(path.parent.name for path in out.glob("*/xnn.json"))
    assert folders == ["0000-a", "0001-b", "0002-c", "0003-d"]
    index = json.loads((out / "index.json").read_text())
    assert [entry["names"] for entry in index["classes"]] == [["a"], ["b"], ["c"], ["d"]]
    assert [entry["folder"] for entry in index["classes"]] == folders
    assert all(entry["error"] is None and entry["images"] == 64 for entry in index["classes"])
    about = json.loads((out / "0001-b" / "xnn.json").read_text())
    assert about["source"]["model"] == MODEL
    image = next(letters.glob("b/*.png"))
    assert main(["explain", str(out / "0001-b"), str(image), "--out", str(tmp_path / "e")]) == 0
    capsys.readouterr()
    stamp = (out / "0001-b" / "xnn.json").stat().st_mtime_ns
    assert main(command(letters, out, "--targets", "all")) == 0
    assert "4 were there already" in text_of(capsys)[0]
    assert (out / "0001-b" / "xnn.json").stat().st_mtime_ns == stamp
    line = fails(capsys, *command(letters, out, "--targets", "all", "--beta", "7"))
    assert "other settings" in line


def test_one_class_of_many_is_the_fit_of_that_class(letters, tmp_path):
    """From the same cache, alone and among all: the same up to rounding."""
    cache = tmp_path / "cache"
    record = ["cache", MODEL, str(letters), "--layer", "classifier.1", "--out", str(cache)]
    assert main(record) == 0
    more = ["--cache", str(cache)]
    assert main(command(None, tmp_path / "many", "--targets", "all", *more)) == 0
    assert main(command(None, tmp_path / "one", "--target", "c", *more)) == 0
    (about, one), (_, among) = (read_saved(tmp_path / name) for name in ("one", "many/0002-c"))
    assert about["class_names"] == list("abcd")
    assert one.keys() == among.keys()
    for name, value in one.items():
        assert torch.allclose(value, among[name], atol=1e-4), name


@pytest.mark.slow
def test_chosen_classes_with_copies_in_two_processes(letters, tmp_path, capsys):
    out = tmp_path / "runs"
    more = ["--targets", "d", "1", "--copies", "1", "--jobs", "2", "--block", "1"]
    assert main(command(letters, out, *more)) == 0
    assert sorted(path.parent.name for path in out.glob("*/xnn.json")) == ["0001-b", "0003-d"]
    index = json.loads((out / "index.json").read_text())
    assert [entry["targets"] for entry in index["classes"]] == [[3], [1]]
    assert all(entry["images"] == 128 for entry in index["classes"])


def test_a_class_with_too_few_images_is_named_and_the_rest_is_fitted(letters, tmp_path, capsys):
    few = tmp_path / "few"
    for path in sorted(letters.glob("*/*.png")):
        if path.parent.name != "c" or len(list((few / "c").glob("*"))) < 3:
            (few / path.parent.name).mkdir(parents=True, exist_ok=True)
            (few / path.parent.name / path.name).write_bytes(path.read_bytes())
    assert main(command(few, tmp_path / "runs", "--targets", "b", "c")) == 0
    said, told = text_of(capsys)
    assert "1 failed" in said
    assert "class 2: DataError: target 2 has 3 positive image(s) by label" in told
    index = json.loads((tmp_path / "runs" / "index.json").read_text())
    assert index["classes"][1]["folder"] is None
    assert "3 positive" in index["classes"][1]["error"]
    assert main(command(few, tmp_path / "all", "--targets", "all")) == 0
    names = sorted(path.parent.name for path in (tmp_path / "all").glob("*/xnn.json"))
    assert names == ["0000-a", "0001-b", "0003-d"]
    capsys.readouterr()
    assert main(command(few, tmp_path / "none", "--targets", "c")) == 2
    said, told = text_of(capsys)
    assert re.search(r"error: no class could be fitted; \S*none/index\.json says why", told)
    assert "Next:" not in said, "there is nothing to go on with"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "give either --target, for one XNN, or --targets"),
        (["--target", "a", "--targets", "all"], "give either --target"),
        (["--targets", "nobody"], "no class 'nobody'"),
        (["--targets", "all", "--block", "0"], "block must be at least 1"),
        (["--target", "a", "--subspace", "0"], "subspace must be at least 1"),
        (["--targets", "all", "--components", "-1"], "components must not be negative, got -1.0"),
        (["--target", "a", "--components", "nan"], "components must not be negative, got nan"),
        (["--target", "a", "--cache", "cache"], "give either DIR"),
    ],
)
def test_bad_options_are_one_line(letters, tmp_path, capsys, more, message):
    assert message in fails(capsys, *command(letters, tmp_path / "runs", *more))
    if "components" in message or "subspace" in message:  # refused before anything is recorded
        assert not (tmp_path / "runs").exists()


def test_a_cache_of_another_model_or_layer_is_refused(letters, tmp_path, capsys):
    cache = tmp_path / "cache"
    record = ["cache", MODEL, str(letters), "--layer", "classifier.1", "--out", str(cache)]
    assert main(record) == 0
    capsys.readouterr()
    more = ["--target", "a", "--cache", str(cache)]
    line = fails(capsys, *command(None, tmp_path / "run", *more, "--layer", "classifier.0"))
    assert "no layer 'classifier.0'" in line
    other = command(None, tmp_path / "run", *more, model="torchvision:squeezenet1_1")
    assert "another model" in fails(capsys, *other, "--random-weights")
    assert "recorded with the cache" in fails(
        capsys, *command(None, tmp_path / "run", *more, "--copies", "2")
    )
    assert "DIR" in fails(capsys, *command(None, tmp_path / "run", "--target", "a"))


@pytest.mark.slow
def test_ray_gives_the_same_bits(letters, tmp_path):
    pytest.importorskip("ray")
    here, there = tmp_path / "here", tmp_path / "there"
    more = ["--targets", "all", "--block", "2", "--jobs", "2"]
    assert main(command(letters, here, *more)) == 0
    assert main(command(letters, there, *more, "--engine", "ray")) == 0
    for name in ("0000-a", "0001-b", "0002-c", "0003-d"):
        first, second = (
            (place / name / "embedding.safetensors").read_bytes() for place in (here, there)
        )
        assert first == second
    caches = [sorted((place / "activations").glob("chunk*")) for place in (here, there)]
    assert [path.read_bytes() for path in caches[0]] == [path.read_bytes() for path in caches[1]]


def test_an_xnn_of_another_class_is_not_replaced(letters, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(command(letters, out, "--target", "b")) == 0
    first = (out / "xnn.json").read_bytes()
    line = fails(capsys, *command(letters, out, "--target", "c"))
    assert line == f"{out} explains b; choose another --out, or remove that one first"
    assert (out / "xnn.json").read_bytes() == first
    assert main(command(letters, out, "--target", "b", "--seed", "1")) == 0
    assert (out / "xnn.json").read_bytes() != first


def test_two_fits_with_one_out_do_not_meet(letters, tmp_path, capsys):
    out = tmp_path / "run"
    with claimed(out):
        line = fails(capsys, *command(letters, out, "--target", "b"))
    assert line.startswith(f"another process is at work on {out}; wait until it is done")
    assert not out.exists()


def test_a_place_that_cannot_be_written_is_named_before_the_work(letters, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file" / "run", "/proc/run"):
        line = fails(capsys, *command(letters, place, "--target", "b"))
        assert line.startswith(f"{place} cannot be written")
        assert "choose another place" in line
    assert (tmp_path / "file").read_text() == "mine"
