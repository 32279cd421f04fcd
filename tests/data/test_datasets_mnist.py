"""MNIST from IDX files: headers, counts, damage, one channel."""

import gzip
import pickle

import numpy as np
import pytest
import torch

from dataset_examples import digits, idx, write_mnist
from torchxnn.data.datasets.base import make_loader
from torchxnn.data.datasets.mnist import MNIST, MNIST_PREPROCESSING
from torchxnn.errors import DataError
from torchxnn.models.preprocessing import Preprocessing

PLAIN = Preprocessing(size=28, resize="squash", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("zipped", [True, False])
def test_pixels_labels_and_split(tmp_path, zipped):
    write_mnist(tmp_path, zipped)
    train, test = (MNIST(tmp_path, PLAIN, split) for split in ("train", "test"))
    images, labels = digits(12, seed=0)
    assert train.labels == tuple(labels)
    assert train.classes == tuple("0123456789")
    for index in range(12):
        image = train[index].image
        assert image.shape == (1, 28, 28)
        torch.testing.assert_close(image[0], torch.tensor(images[index] / 255, dtype=torch.float32))
    assert (len(test), len(MNIST(tmp_path))) == (5, 17)
    suffix = ".gz" if zipped else ""
    assert MNIST(tmp_path)[13].path == f"t10k-images-idx3-ubyte{suffix}#1"


def test_default_preprocessing_normalises(tmp_path):
    write_mnist(tmp_path)
    plain, normal = MNIST(tmp_path, PLAIN)[3].image, MNIST(tmp_path)[3].image
    torch.testing.assert_close(normal, (plain - 0.1307) / 0.3081)
    drawn = MNIST_PREPROCESSING.picture(normal)
    assert drawn.shape == (28, 28, 3)
    np.testing.assert_array_equal(drawn[..., 2], digits(12, seed=0)[0][3])


def test_three_channels_and_other_sizes(tmp_path):
    write_mnist(tmp_path)
    grey, colour = (MNIST(tmp_path, channels=channels)[0].image for channels in (1, 3))
    assert torch.equal(colour, grey.expand(3, 28, 28))
    assert MNIST(tmp_path, Preprocessing(size=32, resize="squash"), channels=3)[0].image.shape == (
        3,
        32,
        32,
    )
    with pytest.raises(DataError, match="one channel needs the same mean and std"):
        MNIST(tmp_path, Preprocessing(size=28))
    with pytest.raises(DataError, match="channels must be 1 or 3, got 2"):
        MNIST(tmp_path, channels=2)
    with pytest.raises(DataError, match="split must be"):
        MNIST(tmp_path, split="validation")


@pytest.mark.parametrize("folder", ["raw", "MNIST/raw"])
def test_other_folders_and_names(tmp_path, folder):
    write_mnist(tmp_path / folder, zipped=False)
    for path in (tmp_path / folder).iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert MNIST(tmp_path).paths[0] == f"{folder}/train-images.idx3-ubyte#0"


def test_batches_and_copies(tmp_path):
    data = pickle.loads(pickle.dumps(MNIST(write_mnist(tmp_path), split="test")))
    ((images, labels),) = make_loader(data)
    assert (images.shape, labels.tolist()) == ((5, 1, 28, 28), [0, 1, 2, 3, 4])


def test_the_content_decides_what_is_zipped(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(MNIST(tmp_path, split="train")) == 12


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named(tmp_path, name):
    (write_mnist(tmp_path) / f"{name}.gz").unlink()
    with pytest.raises(DataError, match=f"is not MNIST: there is no {name}, with or without .gz"):
        MNIST(tmp_path)


IMAGES = idx(digits(12, seed=0)[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", r"not an IDX file of unsigned bytes with 3 dimension.* start with 00 00 08 03"),
        (b"\x00\x00\x08\x01" + IMAGES[4:], r"not an IDX file .* got '00 00 08 01'"),
        (b"\x00\x00\x0d\x03" + IMAGES[4:], "not an IDX file"),  # floats
        (IMAGES[:10], "not an IDX file"),
        (
            IMAGES[:-1],
            "is truncated: 12 x 28 x 28 needs 9408 bytes after the header, there are 9407",
        ),
        (IMAGES + b"\x00", "is longer than its header says"),
        (gzip.compress(IMAGES)[:-400], "the gzip file is truncated"),
        (
            gzip.compress(IMAGES)[:50] + b"\xff" * 50 + gzip.compress(IMAGES)[100:],
            "gzip file is damaged",
        ),
        (gzip.compress(IMAGES) + b"rubbish", "the gzip file is damaged"),
        (idx(np.zeros((13, 28, 28))), r"has 13 images, train-labels-idx1-ubyte\.gz 12 labels"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "is truncated: 4294967295 x 4294967295"),
    ],
)
def test_damage_is_named(tmp_path, data, message):
    write_mnist(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        MNIST(tmp_path)
    assert "train-images-idx3-ubyte.gz" in str(caught.value)


def test_wrong_labels_and_no_images(tmp_path):
    write_mnist(tmp_path, zipped=False)
    labels = digits(12, seed=0)[1]
    labels[7] = 10
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(DataError, match="label 7 is 10, expected 0 to 9"):
        MNIST(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels[:0]))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((0, 28, 28))))
    with pytest.raises(DataError, match=r"has no images \(its header says \(0, 28, 28\)\)"):
        MNIST(tmp_path)
