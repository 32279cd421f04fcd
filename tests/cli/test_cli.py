import json
import os
import re
import socket
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cli_examples import FAST, fails, text_of, write_letters
from conftest import make_net
from torchxnn import XNN
from torchxnn.cli.main import main
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.open import find_target, open_dataset
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.preprocessing import Preprocessing


@pytest.fixture
def folder(tmp_path):
    return write_letters(tmp_path / "images")


@pytest.fixture
def run(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["fit", "cli_examples:small_network", str(folder), "--layer", "classifier.1",
                 "--target", "b", "--out", str(out), *FAST]) == 0  # fmt: skip
    capsys.readouterr()
    return out


def test_layers_lists_shapes(capsys):
    assert main(["layers", "torchvision:squeezenet1_1"]) == 0
    out, _ = text_of(capsys)
    assert "features.3.squeeze" in out
    assert "512 x 13 x 13" in out


def test_a_convolutional_layer(folder, tmp_path, capsys):
    out, image = tmp_path / "conv", str(next(folder.glob("b/*.png")))
    more = ["--channels", "8", "--pooling", "max", "--map-batch-size", "16"]
    assert main(list(map(str, fit(folder, out, *more, layer="features.3")))) == 0
    about = json.loads((out / "xnn.json").read_text())
    assert about["embedding_kind"] == "conv_srae"
    assert about["report"]["config"]["conv"]["channels"] == [8]
    assert main(["explain", str(out), image, "--out", str(tmp_path / "explained")]) == 0
    assert main(["evaluate", str(out), str(folder), "--no-maps"]) == 0
    page = tmp_path / "report.html"
    assert main(["report", str(out), str(folder), "--out", str(page), "--images", "1"]) == 0
    assert "x-feature 1" in page.read_text("utf-8")


def test_fit_explain_evaluate_report(run, folder, tmp_path, capsys):
    about = json.loads((run / "xnn.json").read_text())
    assert about["targets"] == [1]
    assert about["class_names"] == list("abcd")
    assert about["report"]["config"]["hidden"] == [16]
    assert main(["check", str(run)]) == 0
    assert "features.0" in text_of(capsys)[0]
    images = [str(p) for p in sorted(folder.glob("*/1*.png"))[:2]]
    explained = tmp_path / "explained"
    assert main(["explain", str(run), *images, "--out", str(explained)]) == 0
    pages = list(explained.glob("*/explanation.html"))
    assert len(pages) == 2
    figures = tmp_path / "figures.json"
    assert main(["evaluate", str(run), str(folder), "--json", str(figures)]) == 0
    out, _ = text_of(capsys)
    assert "F_reg" in out
    assert "O1" in out
    assert json.loads(figures.read_text())["faithfulness"]["images"] == 64
    page = tmp_path / "report.html"
    assert main(["report", str(run), str(folder), "--out", str(page), "--images", "2"]) == 0
    html = page.read_text("utf-8")
    assert "x-feature 1" in html
    assert "<script src" not in html
    assert "excitation backprop effective, float32" in html
    assert "conservation error" in html
    assert 'href="./report.card.md"' in html
    assert (tmp_path / "report.card.md").read_text("utf-8").startswith("# Why b?")
    assert re.search(r"mass [0-9.e-]+%", html)
    other = [*map(str, (run, folder)), "--out", str(page), "--images", "1", "--sheet", "2"]
    assert main(["report", *other, "--method", "input_x_gradient"]) == 0
    html = page.read_text("utf-8")
    assert "input x gradient" in html
    assert not re.search(r"mass [0-9.e-]+%", html)  # its maps are in other units
    capsys.readouterr()
    assert "unknown attribution method 'magic'" in fails(
        capsys, "report", *other, "--method", "magic"
    )


def test_figures_are_of_the_xnn_that_was_measured_not_of_one_saved_there_since(
    run, folder, tmp_path, monkeypatch
):
    evaluate = XNN.evaluate
    about = json.loads((run / "xnn.json").read_text())

    def replaced(self, *args, **settings):
        (run / "xnn.json").write_text(json.dumps({**about, "weights_sha256": "another"}))
        return evaluate(self, *args, **settings)

    monkeypatch.setattr(XNN, "evaluate", replaced)
    figures = tmp_path / "figures.json"
    argv = ["evaluate", run, folder, "--no-maps", "--json", figures]
    assert main([str(a) for a in argv]) == 0
    assert json.loads(figures.read_text())["weights_sha256"] == about["weights_sha256"]


def fit(folder, out, *more, model="cli_examples:small_network", layer="classifier.1", target="b"):
    return ["fit", model, folder, "--layer", layer, "--target", target, "--out", out, *FAST, *more]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "classifier.11"}, "nearest: 'classifier.1'"),
        ({"target": "9"}, "out of range"),
        ({"target": "bb"}, "nearest: 'b'"),
        ({"model": "torchvision:resnet19"}, "resnet18"),
        ({"model": "nonsense"}, "torchvision:NAME"),
    ],
)
def test_wrong_arguments_are_one_line(folder, tmp_path, capsys, change, message):
    out = tmp_path / "run"
    line = fails(capsys, *fit(folder, out, **change))
    assert message in line
    assert not out.exists()


def test_bad_folders_are_one_line(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert "does not exist" in fails(capsys, *fit(tmp_path / "nothing", out))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no images" in fails(capsys, *fit(empty, out))
    for path in list((folder / "b").iterdir())[3:]:
        path.unlink()
    assert "3 positive" in fails(capsys, *fit(folder, out))
    assert not out.exists()


def test_broken_images_are_skipped_and_counted(folder, tmp_path, capsys):
    (folder / "a" / "broken.png").write_bytes(b"\x89PNG nothing")
    (folder / "c" / "empty.jpg").write_bytes(b"")
    assert main([str(a) for a in fit(folder, tmp_path / "run")]) == 0
    _, err = text_of(capsys)
    assert "2 of 66" in err
    assert "broken.png" in err


def test_explain_skips_broken_images(run, folder, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    good = next((folder / "a").iterdir())
    out = tmp_path / "e"
    assert main(["explain", str(run), str(good), str(broken), "--out", str(out)]) == 0
    assert "1 of 2" in text_of(capsys)[1]
    other = ["explain", str(run), str(good), "--out", str(out), "--method", "gradient"]
    assert main(other) == 0
    assert "nothing to certify" in text_of(capsys)[0]
    assert "unknown attribution" in fails(capsys, *other[:-1], "magic")
    assert "none of the images" in fails(capsys, "explain", run, broken, "--out", out)


def test_a_folder_that_is_no_run(tmp_path, capsys):
    assert "xnn.json" in fails(capsys, "explain", tmp_path, "x.jpg")


def test_out_is_not_overwritten_if_it_is_something_else(folder, tmp_path, capsys):
    out = tmp_path / "precious"
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    assert "not written by" in fails(capsys, *fit(folder, out))
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


def test_other_weights_are_refused(run, folder, tmp_path, capsys):
    other = tmp_path / "other.safetensors"
    save_file(make_net(seed=3).state_dict(), other)
    image = next((folder / "a").iterdir())
    line = fails(capsys, "explain", run, image, "--weights", other)
    assert "fingerprint" in line


def test_nan_weights_are_one_line(folder, tmp_path, capsys):
    state = make_net().state_dict()
    state["classifier.0.weight"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    line = fails(capsys, *fit(folder, tmp_path / "run", "--weights", tmp_path / "nan.safetensors"))
    assert "NaN" in line
    assert not (tmp_path / "run").exists()


def test_a_full_disk_leaves_nothing(run, folder, tmp_path, capsys, monkeypatch):
    before = (run / "xnn.json").read_text()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torchxnn.storage.saved_folder.save", full)
    assert "No space left" in fails(capsys, *fit(folder, run))
    assert (run / "xnn.json").read_text() == before
    assert "No space left" in fails(capsys, *fit(folder, tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".torchxnn*"))


@pytest.mark.slow
def test_a_killed_fit_leaves_nothing(folder, tmp_path):
    out = tmp_path / "killed"
    command = [str(a) for a in fit(folder, out)]
    command[command.index("--epochs") + 1] = "100000"
    command += ["--patience", "100000"]
    # the bars are drawn as on a terminal, so that this process sees when the fit is under way
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "FORCE_COLOR": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "torchxnn.cli", *command], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert any("trial 1" in line for line in process.stderr), "no fit has begun"
        process.kill()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images"]


# What the labels of a folder mean


def names_of(root, outputs, class_names):
    return open_dataset(root, Preprocessing(size=12), DataConfig(), outputs, class_names, "train")


def test_labels_by_count_by_name_and_not_at_all(folder):
    assert names_of(folder, 4, None).class_names == tuple("abcd")
    named = names_of(folder, 6, ("z", "d", "c", "b", "a", "y"))
    assert named.dataset.labels[0] == 4
    with pytest.warns(XNNWarning, match="not used"):
        foreign = names_of(folder, 6, ("u", "v", "w", "x", "y", "z"))
    assert foreign.dataset.labels is None
    with pytest.warns(XNNWarning, match=r"4 class folder.* 1000 output"):
        assert names_of(folder, 1000, None).dataset.labels is None


def test_a_flat_folder_has_no_labels(folder):
    assert names_of(folder / "a", 4, None).dataset.labels is None


def test_targets_by_index_and_name():
    assert find_target("2", 4, None) == 2
    assert find_target("b", 4, tuple("abcd")) == 1
    wrong = (
        ("4", None),
        ("-1", None),
        ("cat", None),
        ("e", tuple("abcd")),
        ("²", None),
        ("--5", None),
    )
    for text, names in wrong:
        with pytest.raises(DataError):
            find_target(text, 4, names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["benchmark", "rules", "--images", "0"], "images must be at least 2, got 0"),
        (["benchmark", "tune", "--methods", "FOO"], "there is nothing to tune of 'FOO'"),
        (["benchmark", "cub", "--map-images", "0"], "map_images must be at least 1"),
        (["whatif", "RUN", "IMAGE", "--controls", "0"], "there must be at least 1 control"),
    ],
)
def test_settings_that_are_refused_are_one_line(arguments, message, tmp_path, capsys):
    out, data = tmp_path / "out", ["--root", "x", "--weights", "y"]
    more = data if arguments[0] == "benchmark" else []
    assert message in fails(capsys, *arguments, *more, "--out", str(out))
    assert not out.exists()


FIT = ["fit", "m:f", "DIR", "--layer", "3", "--out", "x"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["fit", "model"], "Missing from xnn fit: --layer STR, --out STR (`xnn fit --help`)"),
        ([*FIT, "--outputs-are", "colour"], "no choice 'colour' for argument '--outputs-are'."),
        ([*FIT, "--outputs-are", "clases"], "; near ones: classes (`xnn fit --help`)"),
        ([*FIT, "--size", "16x"], "--size: a size is 224, 16x64 (height x width) or"),
        ([*FIT, "--epochs", "many"], "--epochs: 'many' is no whole number"),
        ([*FIT, "--tokens", "cls"], "; near ones: --token"),
    ],
)
def test_arguments_that_the_parser_refuses_are_one_line(arguments, wanted, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1  # not broken where it goes to a file
    assert wanted in said
    assert "│" not in said


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out, _ = text_of(capsys)
    for command in ("layers", "fit", "explain", "evaluate", "report", "demo"):
        assert command in out


def test_what_is_missing_names_the_whole_command(capsys):
    line = fails(capsys, "benchmark", "rules", "--root", "nowhere")
    assert "Missing from xnn benchmark rules: " in line
    assert line.endswith("(`xnn benchmark rules --help`)")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_demo_asks_for_its_place_before_it_trains(capsys, tmp_path, monkeypatch, place):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("torchxnn.apps.demo.prepare_planted", None)
    line = fails(capsys, "demo", "--data", "planted", "--out", tmp_path / place)
    assert "report.html cannot be written" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_demo_needs_its_data(capsys, tmp_path):
    line = fails(capsys, "demo", "--data", "cub", "--out", tmp_path / "demo")
    assert "--root" in line
    assert not (tmp_path / "demo").exists()
    assert torch.get_num_threads() == 1


def test_check_prints_layers_and_the_cascade(folder, tmp_path, capsys):
    image = next((folder / "b").iterdir())
    picture = tmp_path / "cascade.png"
    assert main(["check", "cli_examples:small_network", str(image), "--randomize",
                 "--out", str(picture)]) == 0  # fmt: skip
    out, _ = text_of(capsys)
    assert "random input" in out
    assert "1 real image" in out
    assert "features.0" in out
    assert "rank correlation" in out
    assert re.search(r"The maps (hardly )?depend on the weights: .* is [+-]0\.\d\d", out)
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 300
    assert "out of range" in fails(capsys, "check", "cli_examples:small_network", "--target", "9")


def test_check_takes_a_network_or_a_saved_xnn(tmp_path, capsys):
    line = fails(capsys, "check", str(tmp_path / "nothing"))
    assert line.startswith("no saved XNN is there (no xnn.json), and a network is torchvision:")
    line = fails(capsys, "check", "resnet18")
    assert "no saved XNN is there" in line
    assert "did you mean torchvision:resnet18?" in line


def test_check_names_an_operation_without_a_rule(capsys):
    line = fails(capsys, "check", "cli_examples:unsupported_network")
    assert "in Sorting (cli_examples.py" in line
    assert "no rule" in line  # the cast to complex numbers, the first thing on the way down


def test_altered_copies_are_fitted_and_none_of_held_out_pictures(folder, tmp_path, capsys):
    out = tmp_path / "copies"
    assert main([str(a) for a in fit(folder, out, "--copies", "2")]) == 0
    about = json.loads((out / "xnn.json").read_text())
    assert about["report"]["held_out"] == "given"
    assert about["report"]["train"]["images"] + about["report"]["validation"]["images"] == 64 * 3
    assert "copies must be at least 1" in fails(capsys, *fit(folder, out, "--copies", "-1"))


@pytest.mark.slow
def test_a_reader_who_has_seen_enough_is_no_error():
    """Help is longer than what a pipe holds, and whoever reads it closes it after a line."""
    process = subprocess.Popen(
        [sys.executable, "-m", "torchxnn.cli", "benchmark", "cub", "--help"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 141)
    assert "Traceback" not in errors


def test_a_port_is_checked_before_anything_is_announced(capsys, tmp_path):
    assert "port must be 0 to 65535" in fails(capsys, "study", "serve", tmp_path, "--port", "99999")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = fails(capsys, "study", "serve", tmp_path, "--port", port)
    assert f"cannot listen on port {port}" in line
