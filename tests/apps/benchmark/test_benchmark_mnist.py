"""The benchmark on handwritten digits, on a few made-up ones in the official format."""

import gzip
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dataset_examples import idx
from torchxnn.apps.benchmark.mnist import build_network, distort, load
from torchxnn.cli.main import main
from torchxnn.xnn import XNN


def write_digits(root, count):
    """Digit d is a bar in column 2 d + 4, or row if d is odd."""
    rng = np.random.default_rng(0)
    for split in ("train", "t10k"):
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 30, (count, 28, 28)).astype(np.uint8)
        for image, digit in zip(pixels, labels, strict=True):
            place = slice(2 * digit + 4, 2 * digit + 6)
            image[(place, slice(None)) if digit % 2 else (slice(None), place)] = 250
        for kind, values in (("images-idx3", pixels), ("labels-idx1", labels.astype(np.uint8))):
            (root / f"{split}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(values)))
    return root


@pytest.mark.filterwarnings("ignore::torchxnn.errors.XNNWarning")
def test_the_command_trains_fits_and_draws(tmp_path, capsys):
    root = tmp_path / "data"
    root.mkdir()
    write_digits(root, 200)
    out = tmp_path / "out"
    arguments = ["benchmark", "mnist", "--root", str(root), "--out", str(out)]
    arguments += ["--network-epochs", "2", "--epochs", "2", "--examples", "2", "--trials", "1"]
    assert main(arguments) in (0, None)
    results = json.loads((out / "results.json").read_text())
    row = results["methods"]["SRAE"]
    assert results["training_images"] == 200
    assert 0 <= results["accuracy_test"] <= 1
    assert row["f_reg_test"] > 0
    assert row["o1"] is None or row["o1"] >= 0
    assert len(results["examples"]) == 4
    assert (out / "figure_10.png").stat().st_size > 5_000
    network = build_network()
    network.load_state_dict(load_file(out / "mnist_cnn.safetensors"))
    xnn = XNN.from_pretrained(out / "xnn", model=network)
    images, _ = load(root, "test")
    values = xnn.contributions(images[:3]).sum(2) + xnn.intercept
    torch.testing.assert_close(values, xnn.predict(images[:3]))
    assert "test images, trained on 200" in capsys.readouterr().out


def test_distorted_digits_stay_digits():
    images = torch.zeros(6, 1, 28, 28)
    images[:, :, 8:20, 12:16] = 1
    moved = distort(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert float(moved.amin()) >= 0
    assert float(moved.amax()) <= 1 + 1e-6
    kept = moved.flatten(1).sum(1) / images.flatten(1).sum(1)
    assert bool(((kept > 0.7) & (kept < 1.4)).all())


def test_a_digit_that_does_not_exist(tmp_path, capsys):
    arguments = ["benchmark", "mnist", "--root", str(tmp_path), "--out", str(tmp_path / "o")]
    assert main([*arguments, "--digit", "11"]) == 2
    assert "digit must be 0 to 9" in capsys.readouterr().err
