"""What every registered data set keeps to, on a small set in its official layout."""

import pickle

import pytest
import torch

from dataset_examples import (
    write_ade_challenge,
    write_cub,
    write_funnybirds,
    write_mnist,
    write_nyu,
    write_places,
)
from image_examples import write_noise
from torchxnn.data.config import DataConfig
from torchxnn.data.datasets.base import ImageSubset, make_loader
from torchxnn.data.datasets.elpv import ELPV
from torchxnn.data.datasets.folder import ImageFolder
from torchxnn.data.datasets.images import read_image
from torchxnn.data.datasets.open import DATASETS, open_dataset
from torchxnn.errors import DataError, XNNWarning
from torchxnn.models.preprocessing import Preprocessing

SMALL = Preprocessing(size=24, resize="squash", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def write_folder(root):
    write_noise(root / "cat/1.jpg")
    write_noise(root / "dog/1.jpg")
    return root


WRITERS = {
    "cub": write_cub,
    "nyu": write_nyu,
    "places": write_places,
    "ade20k": write_ade_challenge,
    "mnist": write_mnist,
    "funnybirds": write_funnybirds,
}


@pytest.fixture(params=["folder", "elpv", *DATASETS])
def dataset(request, tmp_path):
    name = request.param
    if name == "elpv":
        pytest.importorskip("elpv_dataset", reason="needs the extra 'demo'")
        return ImageSubset(ELPV(SMALL), range(3))
    if name == "folder":
        return ImageFolder(write_folder(tmp_path), SMALL)
    return DATASETS[name](WRITERS[name](tmp_path), SMALL)


def test_every_data_set_keeps_the_contract(dataset):
    assert dataset.name
    assert len(dataset) == len(dataset.paths) == len(dataset.labels) > 0
    assert dataset.preprocessing == SMALL
    assert len(set(dataset.paths)) == len(dataset)
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample.path == dataset.paths[index]
        file = dataset.file(index)
        assert file is None or SMALL(read_image(file)).equal(sample.image)
        assert sample.label == dataset.labels[index]
        assert 0 <= sample.label < len(dataset.classes)
        assert sample.image.dtype == torch.float32
        assert sample.image.shape[1:] == (24, 24)
        assert sample.image.isfinite().all()
        assert SMALL.picture(sample.image).shape == (24, 24, 3)
        if sample.masks is not None:
            assert sample.masks.shape == (24, 24)
            assert sample.masks.min() >= 0
            assert sample.masks.max() < len(dataset.object_names)
        if sample.parts is not None:
            assert sample.parts.shape == (len(dataset.part_names), 3)
    with pytest.raises(IndexError, match="there is no image"):
        dataset[len(dataset)]


@pytest.mark.parametrize("name", ["cub", "nyu", "places", "ade20k", "funnybirds"])
def test_pictures_that_are_files_are_found(tmp_path, name):
    dataset = DATASETS[name](WRITERS[name](tmp_path), SMALL)
    assert all(dataset.file(index) for index in range(len(dataset)))
    assert ImageSubset(dataset, [1]).file(0) == dataset.file(1)


def test_every_data_set_can_be_batched_and_copied(dataset):
    copy = pickle.loads(pickle.dumps(dataset))
    for (images, labels), (again, _) in zip(
        make_loader(dataset, 2), make_loader(copy, 2), strict=True
    ):
        assert torch.equal(images, again)
        assert len(images) == len(labels)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_refuses_a_folder_that_is_not_it(tmp_path, name):
    with pytest.raises(DataError, match=str(tmp_path)):
        DATASETS[name](tmp_path, SMALL)


@pytest.mark.parametrize("layout", ["named", "auto"])
@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_opened_for_a_network(tmp_path, name, layout):
    expected = DATASETS[name](WRITERS[name](tmp_path), SMALL, "train")
    config = DataConfig(layout=name if layout == "named" else "auto")
    outputs = len(expected.classes)
    opened = open_dataset(tmp_path, SMALL, config, outputs, None, "train")
    assert type(opened.dataset) is type(expected)
    assert (opened.class_names, opened.dataset.labels) == (expected.classes, expected.labels)
    assert opened.dataset[0].image.shape == (3, 24, 24)
    with pytest.raises(DataError, match=f"{outputs} classes, the model {outputs + 1} outputs"):
        open_dataset(tmp_path, SMALL, config, outputs + 1, None, "train")


def test_scenes_are_those_of_the_network(tmp_path):
    write_nyu(tmp_path)
    names = ("Living room", "bathroom", "kitchen")
    with pytest.warns(XNNWarning, match="no images of bathroom"):
        opened = open_dataset(tmp_path, SMALL, DataConfig(split="all"), 3, names, "test")
    assert (opened.class_names, opened.dataset.labels) == (names, (2, 2, 0))


def test_a_layout_that_nobody_knows_is_refused():
    with pytest.raises(DataError, match="no layout 'birds'; known: auto, folder, cub, nyu"):
        DataConfig(layout="birds")
